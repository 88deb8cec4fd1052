//! Typed handles on the pinned maps, and the check that a reused pin is what
//! this version would make.
//!
//! Must never be used to decide anything: what stands in the maps is decided
//! in `snapshot` and written by `write`.

use std::fmt;
use std::path::Path;

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, MapInfo, MapType, PerCpuArray, SkStorage, SockHash};
use proxy_common::{
    ABI_VERSION, AddressEntry, AddressKey, Beat, Counter, EgressEntry, EgressKey, Ending,
    EndpointSlot, Enrolled, Event, Flow, FlowKey, Handed, Heard, HeardKey, Lengths, LocalEntry,
    LocalKey, NetnsCookie, NodeConfig, Note, OfferKey, Older, Partner, Peer, PolicySetId,
    PortEntry, PortKey, Route, RouteKey, Seat, ServiceEntry, ServiceKey, Talking, Told, Workload,
    WorkloadId,
};

use super::error::KernelError;
use super::limits::{Limits, TableMap};

/// The map's elements are made when they are needed (`linux/bpf.h`).
const BPF_F_NO_PREALLOC: u32 = 1;

/// What a pinned map must look like.
#[derive(Clone, Copy, Debug)]
pub struct MapSpec {
    /// Name in the object and of the pin.
    pub name: &'static str,
    kind: MapType,
    key: usize,
    value: usize,
    /// `BPF_F_*`, as it is made with.
    flags: u32,
    /// Entries that fit (bytes, for the ring buffer), unless the operator chose another number.
    max_entries: usize,
}

impl MapSpec {
    /// Entries that fit, or bytes; 0: those of socket storage go with their sockets.
    pub fn capacity(&self, limits: &Limits) -> usize {
        let chosen = limits.by_map(self.name);
        chosen.map_or(self.max_entries, |entries| entries as usize)
    }

    /// Whether all its entries are there from the start.
    pub const fn is_array(&self) -> bool {
        matches!(self.kind, MapType::Array | MapType::PerCpuArray)
    }
}

const fn spec<K, V>(name: &'static str, kind: MapType, max_entries: usize) -> MapSpec {
    MapSpec {
        name,
        kind,
        key: size_of::<K>(),
        value: size_of::<V>(),
        // The kernel makes socket storage in no other way.
        flags: match kind {
            MapType::SkStorage => BPF_F_NO_PREALLOC,
            _ => 0,
        },
        max_entries,
    }
}

/// A hash map that takes memory for what is in it.
const fn grows<K, V>(name: &'static str, max_entries: usize) -> MapSpec {
    MapSpec {
        flags: BPF_F_NO_PREALLOC,
        ..spec::<K, V>(name, MapType::Hash, max_entries)
    }
}

const fn ring(name: &'static str, bytes: usize) -> MapSpec {
    MapSpec {
        name,
        kind: MapType::RingBuf,
        key: 0,
        value: 0,
        flags: 0,
        max_entries: bytes,
    }
}

/// Connections older than their workload's enrolment that are remembered.
pub const OLDER_MAX: usize = 65_536;

/// Every map of `proxy-ebpf/src/maps.rs`.
pub const SPECS: [MapSpec; 33] = [
    spec::<u32, u32>("ABI", MapType::Array, 1),
    spec::<u32, NodeConfig>("NODE", MapType::Array, 1),
    spec::<u32, Beat>("BEAT", MapType::Array, 1),
    spec::<u32, Enrolled>("ENROLLED", MapType::Array, 1),
    grows::<NetnsCookie, Workload>("WORKLOADS", 4_096),
    grows::<LocalKey, LocalEntry>("LOCAL", 65_536),
    grows::<AddressKey, AddressEntry>("ADDRESSES", 524_288),
    grows::<ServiceKey, ServiceEntry>("SERVICES", 131_072),
    grows::<RouteKey, Route>("ROUTES", 262_144),
    spec::<u32, EndpointSlot>("ENDPOINTS", MapType::Array, 524_288),
    grows::<EgressKey, EgressEntry>("EGRESS", 262_144),
    grows::<PolicySetId, Lengths>("EGRESS_LENGTHS", 16_384),
    grows::<PortKey, PortEntry>("EGRESS_PORTS", 262_144),
    spec::<WorkloadId, u64>("PENDING", MapType::Hash, 4_096),
    spec::<u32, u64>("PENDING_TOTAL", MapType::Array, 1),
    spec::<FlowKey, Flow>("FLOWS", MapType::Hash, 65_536),
    spec::<u64, Note>("NOTES", MapType::Hash, 65_536),
    spec::<u32, Note>("SOCKET_NOTES", MapType::SkStorage, 0),
    spec::<u32, Talking>("TALKS", MapType::SkStorage, 0),
    spec::<u32, Told>("TOLD", MapType::SkStorage, 0),
    grows::<u64, Peer>("PEERS", 65_536),
    spec::<HeardKey, Heard>("HEARD", MapType::LruHash, 16_384),
    spec::<u32, Flow>("ACCEPTED", MapType::SkStorage, 0),
    spec::<u32, u32>("LISTENERS", MapType::SkStorage, 0),
    grows::<u64, Older>("OLDER", OLDER_MAX),
    grows::<AddressKey, NetnsCookie>("NEARBY", 65_536),
    grows::<OfferKey, u64>("OFFERS", 65_536),
    spec::<u32, Partner>("PARTNERS", MapType::SkStorage, 0),
    spec::<Seat, u32>("SEATS", MapType::SockHash, 131_072),
    grows::<u64, Handed>("HANDED", 65_536),
    ring("EVENTS", 262_144),
    ring("ENDINGS", 524_288),
    spec::<u32, u64>("COUNTERS", MapType::PerCpuArray, Counter::ALL.len()),
];

/// One record must fit its ring buffer many times over.
const _: () = {
    assert!(size_of::<Event>() * 1_000 < 262_144);
    assert!(size_of::<Ending>() * 1_000 < 524_288);
};

/// What cannot be changed of a map, but for its size.
#[derive(PartialEq)]
struct Shape {
    kind: MapType,
    key: usize,
    value: usize,
    flags: u32,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            key,
            value,
            flags,
        } = self;
        write!(f, "{kind:?}, key {key}, value {value}, flags {flags:#x}")
    }
}

/// Checks that a pin, if there is one, can be reused.
pub fn check_pin(spec: &MapSpec, limits: &Limits, pin: &Path) -> Result<(), KernelError> {
    if !pin.exists() {
        return Ok(());
    }
    let info = MapInfo::from_pin(pin).map_err(KernelError::map(spec.name))?;
    let found = Shape {
        kind: info.map_type().map_err(KernelError::map(spec.name))?,
        key: info.key_size() as usize,
        value: info.value_size() as usize,
        flags: info.map_flags(),
    };
    let wanted = Shape {
        kind: spec.kind,
        key: spec.key,
        value: spec.value,
        flags: spec.flags,
    };
    let table = TableMap::that_sizes(spec.name);
    let entries = spec.capacity(limits);
    let has = info.max_entries();
    if found == wanted && has as usize == entries {
        return Ok(());
    }
    let path = pin.into();
    Err(match table {
        Some(table) if found == wanted => KernelError::OtherLimit {
            path,
            name: table.name(),
            found: has,
            wanted: limits.of(table),
        },
        _ => KernelError::ForeignPin {
            path,
            found: format!("{found}, {has} entries"),
            wanted: format!("{wanted}, {entries} entries"),
        },
    })
}

/// Checks the version that the pinned `ABI` map holds; 0 is one just made.
pub fn check_abi(ebpf: &mut Ebpf, pin: &Path) -> Result<(), KernelError> {
    let mut abi: Array<MapData, u32> = take(ebpf, "ABI")?;
    let found = abi.get(&0, 0).map_err(KernelError::map("ABI"))?;
    if found != 0 && found != ABI_VERSION {
        return Err(KernelError::ForeignPin {
            path: pin.into(),
            found: format!("ABI {found}"),
            wanted: format!("ABI {ABI_VERSION}"),
        });
    }
    abi.set(0, ABI_VERSION, 0).map_err(KernelError::map("ABI"))
}

/// The maps that the daemon works with, in the types of `proxy-common`.
pub struct Maps {
    pub node: Array<MapData, NodeConfig>,
    pub enrolled: Array<MapData, Enrolled>,
    pub workloads: HashMap<MapData, NetnsCookie, Workload>,
    pub local: HashMap<MapData, LocalKey, LocalEntry>,
    pub addresses: HashMap<MapData, AddressKey, AddressEntry>,
    pub services: HashMap<MapData, ServiceKey, ServiceEntry>,
    pub routes: HashMap<MapData, RouteKey, Route>,
    pub endpoints: Array<MapData, EndpointSlot>,
    pub egress: HashMap<MapData, EgressKey, EgressEntry>,
    pub egress_lengths: HashMap<MapData, PolicySetId, Lengths>,
    pub egress_ports: HashMap<MapData, PortKey, PortEntry>,
    pub pending: HashMap<MapData, WorkloadId, u64>,
    pub flows: HashMap<MapData, FlowKey, Flow>,
    pub nearby: HashMap<MapData, AddressKey, NetnsCookie>,
    pub offers: HashMap<MapData, OfferKey, u64>,
    pub seats: SockHash<MapData, Seat>,
    pub older: HashMap<MapData, u64, Older>,
    pub listeners: SkStorage<MapData, u32>,
    pub counters: PerCpuArray<MapData, u64>,
}

impl Maps {
    /// Takes the maps out of a loaded object.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            node: take(ebpf, "NODE")?,
            enrolled: take(ebpf, "ENROLLED")?,
            workloads: take(ebpf, "WORKLOADS")?,
            local: take(ebpf, "LOCAL")?,
            addresses: take(ebpf, "ADDRESSES")?,
            services: take(ebpf, "SERVICES")?,
            routes: take(ebpf, "ROUTES")?,
            endpoints: take(ebpf, "ENDPOINTS")?,
            egress: take(ebpf, "EGRESS")?,
            egress_lengths: take(ebpf, "EGRESS_LENGTHS")?,
            egress_ports: take(ebpf, "EGRESS_PORTS")?,
            pending: take(ebpf, "PENDING")?,
            flows: take(ebpf, "FLOWS")?,
            nearby: take(ebpf, "NEARBY")?,
            offers: take(ebpf, "OFFERS")?,
            seats: take(ebpf, "SEATS")?,
            older: take(ebpf, "OLDER")?,
            listeners: take(ebpf, "LISTENERS")?,
            counters: take(ebpf, "COUNTERS")?,
        })
    }
}

/// Takes one map out of a loaded object, as its type.
pub fn take<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, KernelError>
where
    M: TryFrom<aya::maps::Map, Error = aya::maps::MapError>,
{
    let map = ebpf
        .take_map(name)
        .ok_or_else(|| KernelError::Load(format!("the object holds no map {name}")))?;
    M::try_from(map).map_err(KernelError::map(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_is_said_in_one_way() {
        for spec in SPECS {
            let capacity = spec.capacity(&Limits::default());
            assert_eq!(capacity, spec.max_entries, "{}", spec.name);
        }
    }
}
