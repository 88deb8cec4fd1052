//! How full the maps are, and what they cost.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;

use aya::Pod;
use aya::maps::{HashMap, Map, MapData, MapError};
use proxy_common::{Handed, Heard, HeardKey, Note, Peer};

use super::Kernel;
use super::limits::TableMap;
use super::maps::{MapSpec, SPECS};

/// How full a map is.
#[derive(Clone, Copy, Debug)]
pub struct MapUsage {
    /// Its name in the kernel half.
    pub name: &'static str,
    /// What the operator calls it; `None`: its size is not chosen.
    pub setting: Option<&'static str>,
    /// Entries in it; `None` of rings and socket storage, which nobody can count.
    pub entries: Option<usize>,
    /// Entries that fit, for a ring bytes; 0: as many as there are sockets.
    pub limit: usize,
    /// Memory that the kernel says it takes; `None` where it does not say.
    pub bytes: Option<u64>,
}

impl Kernel {
    /// Entries, limit and memory of every map.
    pub fn usage(&self) -> Vec<MapUsage> {
        let usage = |spec: &MapSpec| MapUsage {
            name: spec.name,
            setting: TableMap::of(spec.name).map(TableMap::name),
            entries: self.entries(spec),
            limit: spec.capacity(&self.limits),
            bytes: memory(&self.pins.map(spec.name)),
        };
        SPECS.iter().map(usage).collect()
    }

    fn entries(&self, spec: &MapSpec) -> Option<usize> {
        let (tables, maps) = (&self.written, &self.maps);
        let limit = spec.capacity(&self.limits);
        Some(match spec.name {
            "WORKLOADS" => tables.workloads.len(),
            "LOCAL" => tables.local.len(),
            "NEARBY" => tables.nearby.len(),
            "ADDRESSES" => tables.addresses.len(),
            "SERVICES" => tables.services.len(),
            "ROUTES" => tables.routes.len(),
            "ENDPOINTS" => tables.slots,
            "EGRESS" => tables.egress.entries().len(),
            "EGRESS_LENGTHS" => tables.egress.lengths().len(),
            "EGRESS_PORTS" => tables.egress_ports.len(),
            "PENDING" => counted(maps.pending.keys(), limit),
            "FLOWS" => counted(maps.flows.keys(), limit),
            "OLDER" => counted(maps.older.keys(), limit),
            "OFFERS" => counted(maps.offers.keys(), limit),
            "SEATS" => counted(maps.seats.keys(), limit),
            "PEERS" => {
                self.of_hooks::<u64, { size_of::<Peer>() }>(spec.name, Map::HashMap, limit)?
            }
            "NOTES" => {
                self.of_hooks::<u64, { size_of::<Note>() }>(spec.name, Map::HashMap, limit)?
            }
            "HEARD" => self.of_hooks::<HeardKey, { size_of::<Heard>() }>(
                spec.name,
                Map::LruHashMap,
                limit,
            )?,
            "HANDED" => {
                self.of_hooks::<u64, { size_of::<Handed>() }>(spec.name, Map::HashMap, limit)?
            }
            _ if spec.is_array() => limit,
            _ => return None,
        })
    }

    /// Entries of a hash map that is the hooks' alone, with values of `BYTES`.
    fn of_hooks<K: Pod, const BYTES: usize>(
        &self,
        name: &str,
        kind: fn(MapData) -> Map,
        limit: usize,
    ) -> Option<usize> {
        let map = MapData::from_pin(self.pins.map(name)).ok()?;
        let map: HashMap<MapData, K, [u8; BYTES]> = kind(map).try_into().ok()?;
        Some(counted(map.keys(), limit))
    }
}

/// The keys of a map that hooks write to. One that goes meanwhile makes the kernel begin
/// anew, so no more are counted than can be there.
fn counted<K>(keys: impl Iterator<Item = Result<K, MapError>>, limit: usize) -> usize {
    keys.flatten().take(limit).count()
}

/// The memory that the kernel charges for a pinned map, from its `fdinfo`.
fn memory(pin: &Path) -> Option<u64> {
    let map = MapData::from_pin(pin).ok()?;
    let info = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
    let text = std::fs::read_to_string(info).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("memlock:"))?;
    // Before Linux 6.4 the kernel took some kinds for nothing.
    line.trim().parse().ok().filter(|bytes| *bytes > 0)
}
