//! How much each map may hold: the operator's choice, fixed while the map is
//! pinned. Must never let a table set pass that does not fit.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serde::Deserialize;

use super::error::KernelError;

macro_rules! table_maps {
    ($($(#[$doc:meta])* $name:ident = $map:literal, $flag:literal, $default:literal;)*) => {
        /// A map whose size the operator may choose.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub enum TableMap { $($(#[$doc])* $name,)* }

        impl TableMap {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The map's name in the kernel half.
            pub const fn map(self) -> &'static str {
                match self { $(Self::$name => $map,)* }
            }

            /// What the operator calls it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $flag,)* }
            }

            /// The one with this name in the kernel half.
            pub fn of(map: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|table| table.map() == map)
            }

            const fn default_limit(self) -> u32 {
                match self { $(Self::$name => $default,)* }
            }
        }
    };
}

// 10 000 services with 10 endpoints each fit, all with addresses of both families and with
// ports declared `tcp`: 220 000 addresses, 200 000 slots of endpoints, and 60 000 services
// where each has three ports. All of that twice, as `write` checks it. `ENDPOINTS` is an
// array, whose room is taken whether it is filled or not: 24 MiB. So is that of `FLOWS` and
// `NOTES`, some 9 MiB each: a hook must not fail for want of memory. The others grow; an entry
// that is not there costs them 16 bytes.
table_maps! {
    /// Enrolled workloads.
    Workloads = "WORKLOADS", "workloads", 4_096;
    /// Addresses inside enrolled workloads.
    Local = "LOCAL", "local", 65_536;
    /// Addresses of services and workloads.
    Addresses = "ADDRESSES", "addresses", 524_288;
    /// Ports of services, on each of their addresses.
    Services = "SERVICES", "services", 131_072;
    /// What each workload gets of services whose rules tell workloads apart.
    Routes = "ROUTES", "routes", 262_144;
    /// Endpoints in the tables of `tcp` and `tls` ports.
    Endpoints = "ENDPOINTS", "endpoints", 524_288;
    /// External prefixes, for each set of workloads with the same rules.
    Egress = "EGRESS", "egress", 262_144;
    /// Sets of workloads with the same egress rules.
    PolicySets = "EGRESS_LENGTHS", "policySets", 16_384;
    /// Ports that are open behind them.
    EgressPorts = "EGRESS_PORTS", "egressPorts", 262_144;
    /// Connections on their way to the proxy.
    Flows = "FLOWS", "flows", 65_536;
    /// Open connections and UDP sockets that were balanced or sent to the proxy. More of
    /// them are no error: theirs are kept on the sockets, which costs each connect more.
    Notes = "NOTES", "notes", 65_536;
}

impl TableMap {
    /// Whose limit is that of the map of this name; `None`: its size is not chosen.
    pub fn that_sizes(name: &str) -> Option<Self> {
        // Every enrolled workload has one count of pending flows.
        // Those of its addresses that others dial are some of its own.
        let name = match name {
            "PENDING" => "WORKLOADS",
            "NEARBY" => "LOCAL",
            name => name,
        };
        Self::of(name)
    }
}

/// The largest limit: a map of it takes a few gigabytes.
const LIMIT_MAX: u32 = 16 << 20;

/// One chosen limit, as `NAME=N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapLimit {
    /// Which map.
    pub map: TableMap,
    /// How many entries it holds.
    pub entries: NonZeroU32,
}

impl std::str::FromStr for MapLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, entries) = text
            .split_once('=')
            .ok_or_else(|| "want MAP=ENTRIES, such as egress=500000".to_owned())?;
        let map = TableMap::ALL.iter().find(|map| map.name() == name);
        let names: Vec<_> = TableMap::ALL.iter().map(|map| map.name()).collect();
        let map = *map.ok_or_else(|| format!("no such map: want one of {}", names.join(", ")))?;
        let entries = entries.parse().ok().filter(Limits::is_possible);
        let entries = entries.ok_or_else(|| format!("want 1 to {LIMIT_MAX} entries"))?;
        Ok(Self { map, entries })
    }
}

/// The limits of all maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits(BTreeMap<TableMap, NonZeroU32>);

impl Limits {
    /// Whether a map can be made that large.
    pub fn is_possible(entries: &NonZeroU32) -> bool {
        entries.get() <= LIMIT_MAX
    }

    /// Chooses one; a later choice wins.
    pub fn set(&mut self, limit: MapLimit) {
        self.0.insert(limit.map, limit.entries);
    }

    /// Entries that fit into a map.
    pub fn of(&self, map: TableMap) -> u32 {
        self.0
            .get(&map)
            .map_or_else(|| map.default_limit(), |limit| limit.get())
    }

    /// The same for a map of this name; `None`: its size is not chosen.
    pub fn by_map(&self, name: &str) -> Option<u32> {
        TableMap::that_sizes(name).map(|map| self.of(map))
    }

    /// Refuses what does not fit.
    pub fn check(&self, map: TableMap, wanted: usize) -> Result<(), KernelError> {
        let limit = self.of(map) as usize;
        if wanted <= limit {
            return Ok(());
        }
        Err(KernelError::TooLarge {
            map: map.map(),
            name: map.name(),
            wanted,
            limit,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a node shall hold, beside what an earlier process wrote.
    #[test]
    fn ten_thousand_services_fit_unasked() {
        const SERVICES: usize = 10_000;
        const ENDPOINTS: usize = 10;
        const FAMILIES: usize = 2;
        let limits = Limits::default();
        let wanted = [
            (TableMap::Addresses, SERVICES * (1 + ENDPOINTS)),
            (TableMap::Services, SERVICES * 3),
            (TableMap::Endpoints, SERVICES * ENDPOINTS),
        ];
        for (map, entries) in wanted {
            limits.check(map, entries * FAMILIES * 2).unwrap();
        }
    }

    #[test]
    fn limits_are_chosen_by_name() {
        let mut limits = Limits::default();
        assert_eq!(limits.of(TableMap::Egress), 262_144);
        limits.set("egress=500000".parse().unwrap());
        assert_eq!(limits.of(TableMap::Egress), 500_000);
        limits.set("workloads=10".parse().unwrap());
        assert_eq!(limits.by_map("PENDING"), Some(10));
        assert_eq!(limits.by_map("EVENTS"), None);
        let refused = limits.check(TableMap::Workloads, 11).unwrap_err();
        assert!(refused.to_string().contains("--map-limit workloads="));
        for text in [
            "egress",
            "egress=0",
            "egress=-1",
            "pods=1",
            "egress=999999999",
        ] {
            assert!(text.parse::<MapLimit>().is_err(), "{text}");
        }
    }
}
