//! Brings the maps from what they hold to what a [`TableSet`] asks for.
//!
//! Owns the order: what no live entry refers to is written first, then what
//! closes, then what changes in place (one element, atomic), then what opens,
//! and last what nobody refers to any more is removed. So no connect sees half
//! an object, and a failure on the way leaves something that is closed.

use std::collections::BTreeSet;

use aya::Pod;
use aya::maps::MapError;
use aya::maps::lpm_trie::Key as TrieKey;
use aya::maps::{HashMap, MapData};
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use proxy_common::{
    AddressEntry, AddressKey, EgressEntry, EgressKey, LocalEntry, LocalKey, NetnsCookie,
    PolicySetId, PortEntry, PortKey, ServiceEntry, ServiceKey, Workload, WorkloadId,
};

use super::error::KernelError;
use super::limits::{Limits, TableMap};
use super::maps::Maps;
use crate::tables::{EgressPrefix, TableSet};

/// The differences between two maps, by what they do.
struct Diff<K, V> {
    gone: Vec<K>,
    changed: Vec<(K, V)>,
    new: Vec<(K, V)>,
}

impl<K: Ord + Copy, V: PartialEq + Copy> Diff<K, V> {
    fn between(from: &OrdMap<K, V>, to: &OrdMap<K, V>) -> Self {
        let (mut gone, mut changed, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for item in from.diff(to) {
            match item {
                DiffItem::Add(key, value) => new.push((*key, *value)),
                DiffItem::Update { new: value, .. } => changed.push((*value.0, *value.1)),
                DiffItem::Remove(key, _) => gone.push(*key),
            }
        }
        Self { gone, changed, new }
    }
}

/// All that differs between two table sets.
pub struct Changes {
    workloads: Diff<NetnsCookie, Workload>,
    local: Diff<LocalKey, LocalEntry>,
    addresses: Diff<AddressKey, AddressEntry>,
    services: Diff<ServiceKey, ServiceEntry>,
    egress: Diff<EgressPrefix, EgressEntry>,
    ports: Diff<PortKey, PortEntry>,
}

impl Changes {
    /// What to do to get from `from` to `to`.
    pub fn between(from: &TableSet, to: &TableSet) -> Self {
        Self {
            workloads: Diff::between(&from.workloads, &to.workloads),
            local: Diff::between(&from.local, &to.local),
            addresses: Diff::between(&from.addresses, &to.addresses),
            services: Diff::between(&from.services, &to.services),
            egress: Diff::between(&from.egress, &to.egress),
            ports: Diff::between(&from.egress_ports, &to.egress_ports),
        }
    }

    /// Refuses what does not fit, before anything is written. What goes last
    /// stands beside what comes first for a moment, so both have to fit.
    pub fn check_size(&self, to: &TableSet, limits: &Limits) -> Result<(), KernelError> {
        let sizes = [
            (
                TableMap::Workloads,
                to.workloads.len() + self.workloads.gone.len(),
            ),
            (TableMap::Local, to.local.len() + self.local.gone.len()),
            (TableMap::Addresses, to.addresses.len()),
            (TableMap::Services, to.services.len()),
            (TableMap::Egress, to.egress.len() + self.egress.gone.len()),
            (
                TableMap::EgressPorts,
                to.egress_ports.len() + self.ports.gone.len(),
            ),
        ];
        for (map, wanted) in sizes {
            limits.check(map, wanted)?;
        }
        Ok(())
    }
}

/// Writes the difference between `from`, which the maps hold, and `to`.
pub fn write(
    maps: &mut Maps,
    from: &TableSet,
    to: &TableSet,
    changes: &Changes,
) -> Result<(), KernelError> {
    let Changes { egress, ports, .. } = changes;
    let live = live_policy_sets(from);
    let is_live = |prefix: &EgressPrefix| live.contains(&prefix.1.policy_set);

    // Nobody refers to these yet: port tables are never changed once written.
    put(&mut maps.egress_ports, "EGRESS_PORTS", &ports.new)?;
    put(&mut maps.egress_ports, "EGRESS_PORTS", &ports.changed)?;
    let (opening, unused): (Vec<_>, Vec<_>) =
        egress.new.iter().partition(|(prefix, _)| is_live(prefix));
    put_egress(maps, unused)?;
    close(
        maps,
        changes,
        egress.gone.iter().filter(|prefix| is_live(prefix)),
    )?;
    change(maps, changes)?;
    put_egress(maps, opening)?;
    open(maps, from, to, changes)?;

    // Nobody refers to these any more.
    for prefix in egress.gone.iter().filter(|prefix| !is_live(prefix)) {
        remove(maps.egress.remove(&trie_key(prefix)), "EGRESS")?;
    }
    for key in &ports.gone {
        remove(maps.egress_ports.remove(key), "EGRESS_PORTS")?;
    }
    Ok(())
}

fn put_egress<'a>(
    maps: &mut Maps,
    entries: impl IntoIterator<Item = &'a (EgressPrefix, EgressEntry)>,
) -> Result<(), KernelError> {
    for (prefix, value) in entries {
        maps.egress
            .insert(&trie_key(prefix), value, 0)
            .map_err(KernelError::map("EGRESS"))?;
    }
    Ok(())
}

fn put<K: Pod, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    name: &'static str,
    entries: &[(K, V)],
) -> Result<(), KernelError> {
    for (key, value) in entries {
        map.insert(key, value, 0).map_err(KernelError::map(name))?;
    }
    Ok(())
}

/// Everything that takes a way out: a service without its entry is a virtual
/// address with an unknown port (Deny), an external prefix falls to the default.
fn close<'a>(
    maps: &mut Maps,
    changes: &Changes,
    egress_gone: impl Iterator<Item = &'a EgressPrefix>,
) -> Result<(), KernelError> {
    for key in &changes.services.gone {
        remove(maps.services.remove(key), "SERVICES")?;
    }
    for prefix in egress_gone {
        remove(maps.egress.remove(&trie_key(prefix)), "EGRESS")?;
    }
    for key in &changes.addresses.gone {
        remove(maps.addresses.remove(key), "ADDRESSES")?;
    }
    Ok(())
}

/// Everything that stays and says something else: one element each.
fn change(maps: &mut Maps, changes: &Changes) -> Result<(), KernelError> {
    put(&mut maps.addresses, "ADDRESSES", &changes.addresses.changed)?;
    put(&mut maps.services, "SERVICES", &changes.services.changed)?;
    put_egress(maps, &changes.egress.changed)
}

/// Addresses before their services (an address alone denies), then workloads:
/// what they refer to is all there.
fn open(
    maps: &mut Maps,
    from: &TableSet,
    to: &TableSet,
    changes: &Changes,
) -> Result<(), KernelError> {
    put(&mut maps.addresses, "ADDRESSES", &changes.addresses.new)?;
    put(&mut maps.services, "SERVICES", &changes.services.new)?;
    put(&mut maps.local, "LOCAL", &changes.local.new)?;
    let workloads = &changes.workloads;
    for (netns, workload) in workloads.changed.iter().chain(&workloads.new) {
        write_workload(
            maps,
            *netns,
            workload,
            from.workloads.get(netns).map(|old| old.id),
        )?;
    }
    for netns in &workloads.gone {
        remove(maps.workloads.remove(netns), "WORKLOADS")?;
    }
    // Only now: a number may have gone from one workload to another.
    if !workloads.gone.is_empty() || !workloads.changed.is_empty() {
        let in_use: BTreeSet<WorkloadId> =
            to.workloads.values().map(|workload| workload.id).collect();
        for id in from.workloads.values().map(|workload| workload.id) {
            if !in_use.contains(&id) {
                remove(maps.pending.remove(&id), "PENDING")?;
            }
        }
    }
    for key in &changes.local.gone {
        remove(maps.local.remove(key), "LOCAL")?;
    }
    Ok(())
}

fn write_workload(
    maps: &mut Maps,
    netns: NetnsCookie,
    workload: &Workload,
    old: Option<WorkloadId>,
) -> Result<(), KernelError> {
    if old != Some(workload.id) {
        maps.pending
            .insert(workload.id, 0, 0)
            .map_err(KernelError::map("PENDING"))?;
    }
    maps.workloads
        .insert(netns, workload, 0)
        .map_err(KernelError::map("WORKLOADS"))
}

/// What the maps hold now: after a crash, the work of an earlier process.
pub fn read(maps: &Maps) -> Result<TableSet, KernelError> {
    fn all<K: Ord + Clone, V: Clone>(
        name: &'static str,
        entries: impl Iterator<Item = Result<(K, V), MapError>>,
    ) -> Result<OrdMap<K, V>, KernelError> {
        let mut table = OrdMap::new();
        for entry in entries {
            let (key, value) = entry.map_err(KernelError::map(name))?;
            table.insert(key, value);
        }
        Ok(table)
    }
    Ok(TableSet {
        workloads: all("WORKLOADS", maps.workloads.iter())?,
        local: all("LOCAL", maps.local.iter())?,
        addresses: all("ADDRESSES", maps.addresses.iter())?,
        services: all("SERVICES", maps.services.iter())?,
        egress: all(
            "EGRESS",
            maps.egress
                .iter()
                .map(|entry| entry.map(|(key, value)| ((key.prefix_len(), key.data()), value))),
        )?,
        egress_ports: all("EGRESS_PORTS", maps.egress_ports.iter())?,
    })
}

fn live_policy_sets(tables: &TableSet) -> BTreeSet<PolicySetId> {
    tables
        .workloads
        .values()
        .map(|workload| workload.policy_set)
        .collect()
}

fn trie_key(prefix: &EgressPrefix) -> TrieKey<EgressKey> {
    TrieKey::new(prefix.0, prefix.1)
}

/// A removal of what is already gone has done its work.
fn remove(result: Result<(), MapError>, map: &'static str) -> Result<(), KernelError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        other => other.map_err(KernelError::map(map)),
    }
}
