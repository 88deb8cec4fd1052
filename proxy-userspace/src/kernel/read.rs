//! What the maps hold at a takeover: the work of an earlier process.
//!
//! Must never hand on an entry that this version could not have written: what is
//! decided from it, and what is left of it by difference, would mean nothing.

use aya::Pod;
use aya::maps::{HashMap, MapData, MapError};
use imbl::OrdMap;
use proxy_common::Record;

use super::batch;
use super::error::KernelError;
use super::maps::Maps;
use crate::tables::TableSet;

/// Everything that is configuration.
pub fn read(maps: &Maps) -> Result<TableSet, KernelError> {
    let egress = batch::read(&maps.egress);
    let mut tables = TableSet {
        workloads: hash("WORKLOADS", &maps.workloads)?,
        local: hash("LOCAL", &maps.local)?,
        nearby: hash("NEARBY", &maps.nearby)?,
        addresses: hash("ADDRESSES", &maps.addresses)?,
        services: hash("SERVICES", &maps.services)?,
        routes: hash("ROUTES", &maps.routes)?,
        egress: table(
            "EGRESS",
            egress.map(|entry| entry.map(|(key, value)| ((key.prefix_len(), key.data()), value))),
        )?,
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
    table(name, batch::read(map))
}

fn table<K: Ord + Clone + Record, V: Clone + Record>(
    name: &'static str,
    entries: impl Iterator<Item = Result<(K, V), MapError>>,
) -> Result<OrdMap<K, V>, KernelError> {
    let mut table = OrdMap::new();
    for entry in entries {
        let (key, value) = entry.map_err(KernelError::map(name))?;
        let checked = key.check().and_then(|()| value.check());
        checked.map_err(|cause| KernelError::Unsound { map: name, cause })?;
        table.insert(key, value);
    }
    Ok(table)
}
