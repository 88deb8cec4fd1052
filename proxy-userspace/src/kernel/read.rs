//! What the maps hold at a takeover: the work of an earlier process.
//!
//! Must never hand on an entry that this version could not have written: what is
//! decided from it, and what is left of it by difference, would mean nothing.

use aya::Pod;
use aya::maps::{HashMap, MapData};
use imbl::OrdMap;
use proxy_common::Record;

use super::batch;
use super::error::KernelError;
use super::maps::Maps;
use crate::tables::{EgressTable, TableSet};

/// Everything that is configuration.
pub fn read(maps: &Maps) -> Result<TableSet, KernelError> {
    let mut tables = TableSet {
        workloads: hash("WORKLOADS", &maps.workloads)?,
        local: hash("LOCAL", &maps.local)?,
        nearby: hash("NEARBY", &maps.nearby)?,
        addresses: hash("ADDRESSES", &maps.addresses)?,
        services: hash("SERVICES", &maps.services)?,
        routes: hash("ROUTES", &maps.routes)?,
        egress: EgressTable::read_back(
            hash("EGRESS", &maps.egress)?,
            hash("EGRESS_LENGTHS", &maps.egress_lengths)?,
        ),
        egress_ports: hash("EGRESS_PORTS", &maps.egress_ports)?,
        ..TableSet::default()
    };
    tables.count_blocks();
    Ok(tables)
}

fn hash<K, V>(name: &'static str, map: &HashMap<MapData, K, V>) -> Result<OrdMap<K, V>, KernelError>
where
    K: Pod + Ord + Record,
    V: Pod + Record,
{
    let mut table = OrdMap::new();
    for entry in batch::read(map) {
        let (key, value) = entry.map_err(KernelError::map(name))?;
        let checked = key.check().and_then(|()| value.check());
        checked.map_err(|cause| KernelError::Unsound { map: name, cause })?;
        table.insert(key, value);
    }
    Ok(table)
}
