//! How full the maps are, and what they cost.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;

use aya::maps::MapData;

use super::Kernel;
use super::limits::TableMap;

/// How full a map is.
#[derive(Clone, Copy, Debug)]
pub struct MapUsage {
    /// Which.
    pub map: TableMap,
    /// Entries in it.
    pub entries: usize,
    /// Entries that fit.
    pub limit: u32,
    /// Memory that the kernel says it takes; `None` where it does not say.
    pub bytes: Option<u64>,
}

impl Kernel {
    /// Entries, limit and memory of each map of a chosen size.
    pub fn usage(&self) -> Vec<MapUsage> {
        let tables = &self.written;
        let used = |map| match map {
            TableMap::Workloads => tables.workloads.len(),
            TableMap::Local => tables.local.len(),
            TableMap::Addresses => tables.addresses.len(),
            TableMap::Services => tables.services.len(),
            TableMap::Routes => tables.routes.len(),
            TableMap::Endpoints => tables.slots,
            TableMap::Egress => tables.egress.entries().len(),
            TableMap::PolicySets => tables.egress.lengths().len(),
            TableMap::EgressPorts => tables.egress_ports.len(),
            TableMap::Flows => self.flows_pending(),
        };
        let usage = |map: &TableMap| MapUsage {
            map: *map,
            entries: used(*map),
            limit: self.limits.of(*map),
            bytes: memory(&self.pins.map(map.map())),
        };
        TableMap::ALL.iter().map(usage).collect()
    }
}

/// The memory that the kernel charges for a pinned map, from its `fdinfo`.
fn memory(pin: &Path) -> Option<u64> {
    let map = MapData::from_pin(pin).ok()?;
    let info = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
    let text = std::fs::read_to_string(info).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("memlock:"))?;
    line.trim().parse().ok()
}
