//! Brings the maps from what they hold to what a [`TableSet`] asks for.
//!
//! Owns the order: what no live entry refers to is written first, then what
//! closes, then what changes in place (one element, atomic), then what opens,
//! and last what nobody refers to any more is removed. So no connect sees half
//! an object, and a failure on the way leaves something that is closed.

use std::collections::{BTreeMap, BTreeSet};

use aya::maps::MapError;
use aya::maps::lpm_trie::Key as TrieKey;
use proxy_common::{EgressEntry, EgressKey, NetnsCookie, PolicySetId, Workload, WorkloadId};

use super::error::KernelError;
use super::maps::{Maps, max_entries};
use crate::tables::{EgressPrefix, TableSet};

/// The differences between two maps, by what they do.
struct Diff<K, V> {
    gone: Vec<K>,
    changed: Vec<(K, V)>,
    new: Vec<(K, V)>,
}

impl<K: Ord + Copy, V: PartialEq + Copy> Diff<K, V> {
    fn between(from: &BTreeMap<K, V>, to: &BTreeMap<K, V>) -> Self {
        let gone = from
            .keys()
            .filter(|key| !to.contains_key(key))
            .copied()
            .collect();
        let (mut changed, mut new) = (Vec::new(), Vec::new());
        for (key, value) in to {
            match from.get(key) {
                None => new.push((*key, *value)),
                Some(old) if old != value => changed.push((*key, *value)),
                Some(_) => {}
            }
        }
        Self { gone, changed, new }
    }
}

/// Refuses a table set that does not fit, before anything is written.
pub fn check_size(to: &TableSet) -> Result<(), KernelError> {
    let sizes = [
        ("WORKLOADS", to.workloads.len()),
        ("LOCAL", to.local.len()),
        ("ADDRESSES", to.addresses.len()),
        ("SERVICES", to.services.len()),
        // Old and new policy sets stand side by side for a moment.
        ("EGRESS", to.egress.len() * 2),
        ("EGRESS_PORTS", to.egress_ports.len() * 2),
    ];
    for (map, wanted) in sizes {
        let limit = max_entries(map);
        if wanted > limit {
            return Err(KernelError::TooLarge { map, wanted, limit });
        }
    }
    Ok(())
}

/// Writes the difference between `from`, which the maps hold, and `to`.
pub fn write(maps: &mut Maps, from: &TableSet, to: &TableSet) -> Result<(), KernelError> {
    let ports = Diff::between(&from.egress_ports, &to.egress_ports);
    let egress = Diff::between(&from.egress, &to.egress);
    let live = live_policy_sets(from);
    let is_live = |prefix: &EgressPrefix| live.contains(&prefix.1.policy_set);

    // Nobody refers to these yet: port tables are never changed once written.
    for (key, value) in ports.new.iter().chain(&ports.changed) {
        maps.egress_ports
            .insert(key, value, 0)
            .map_err(KernelError::map("EGRESS_PORTS"))?;
    }
    for (prefix, value) in egress.new.iter().filter(|(prefix, _)| !is_live(prefix)) {
        maps.egress
            .insert(&trie_key(prefix), value, 0)
            .map_err(KernelError::map("EGRESS"))?;
    }
    close(
        maps,
        from,
        to,
        egress.gone.iter().filter(|prefix| is_live(prefix)),
    )?;
    change(maps, from, to, &egress.changed)?;
    let opening = egress.new.iter().filter(|(prefix, _)| is_live(prefix));
    for (prefix, value) in opening {
        maps.egress
            .insert(&trie_key(prefix), value, 0)
            .map_err(KernelError::map("EGRESS"))?;
    }
    open(maps, from, to)?;

    // Nobody refers to these any more.
    for prefix in egress.gone.iter().filter(|prefix| !is_live(prefix)) {
        remove(maps.egress.remove(&trie_key(prefix)), "EGRESS")?;
    }
    for key in &ports.gone {
        remove(maps.egress_ports.remove(key), "EGRESS_PORTS")?;
    }
    Ok(())
}

/// Everything that takes a way out: a service without its entry is a virtual
/// address with an unknown port (Deny), an external prefix falls to the default.
fn close<'a>(
    maps: &mut Maps,
    from: &TableSet,
    to: &TableSet,
    egress_gone: impl Iterator<Item = &'a EgressPrefix>,
) -> Result<(), KernelError> {
    for key in Diff::between(&from.services, &to.services).gone {
        remove(maps.services.remove(&key), "SERVICES")?;
    }
    for prefix in egress_gone {
        remove(maps.egress.remove(&trie_key(prefix)), "EGRESS")?;
    }
    for key in Diff::between(&from.addresses, &to.addresses).gone {
        remove(maps.addresses.remove(&key), "ADDRESSES")?;
    }
    Ok(())
}

/// Everything that stays and says something else: one element each.
fn change(
    maps: &mut Maps,
    from: &TableSet,
    to: &TableSet,
    egress: &[(EgressPrefix, EgressEntry)],
) -> Result<(), KernelError> {
    for (key, value) in Diff::between(&from.addresses, &to.addresses).changed {
        maps.addresses
            .insert(key, value, 0)
            .map_err(KernelError::map("ADDRESSES"))?;
    }
    for (key, value) in Diff::between(&from.services, &to.services).changed {
        maps.services
            .insert(key, value, 0)
            .map_err(KernelError::map("SERVICES"))?;
    }
    for (prefix, value) in egress {
        maps.egress
            .insert(&trie_key(prefix), value, 0)
            .map_err(KernelError::map("EGRESS"))?;
    }
    Ok(())
}

/// Addresses before their services (an address alone denies), then workloads:
/// what they refer to is all there.
fn open(maps: &mut Maps, from: &TableSet, to: &TableSet) -> Result<(), KernelError> {
    for (key, value) in Diff::between(&from.addresses, &to.addresses).new {
        maps.addresses
            .insert(key, value, 0)
            .map_err(KernelError::map("ADDRESSES"))?;
    }
    for (key, value) in Diff::between(&from.services, &to.services).new {
        maps.services
            .insert(key, value, 0)
            .map_err(KernelError::map("SERVICES"))?;
    }
    let local = Diff::between(&from.local, &to.local);
    for (key, value) in local.new {
        maps.local
            .insert(key, value, 0)
            .map_err(KernelError::map("LOCAL"))?;
    }
    let workloads = Diff::between(&from.workloads, &to.workloads);
    for (netns, workload) in workloads.changed.iter().chain(&workloads.new) {
        write_workload(
            maps,
            *netns,
            workload,
            from.workloads.get(netns).map(|old| old.id),
        )?;
    }
    for netns in workloads.gone {
        remove(maps.workloads.remove(&netns), "WORKLOADS")?;
    }
    // Only now: a number may have gone from one workload to another.
    let in_use: BTreeSet<WorkloadId> = to.workloads.values().map(|workload| workload.id).collect();
    for id in from.workloads.values().map(|workload| workload.id) {
        if !in_use.contains(&id) {
            remove(maps.pending.remove(&id), "PENDING")?;
        }
    }
    for key in local.gone {
        remove(maps.local.remove(&key), "LOCAL")?;
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
    fn all<K: Ord, V>(
        name: &'static str,
        entries: impl Iterator<Item = Result<(K, V), MapError>>,
    ) -> Result<BTreeMap<K, V>, KernelError> {
        entries
            .collect::<Result<_, _>>()
            .map_err(KernelError::map(name))
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
