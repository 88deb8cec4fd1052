//! Brings the maps from what they hold to what a [`TableSet`] asks for.
//!
//! Owns the order: what no live entry refers to is written first, then what
//! closes, then what changes in place (one element, atomic), then what opens,
//! and last what nobody refers to any more is removed. So no connect sees half
//! an object, and a failure on the way leaves something that is closed.

use std::collections::{BTreeMap, BTreeSet};

use aya::maps::MapError;
use aya::maps::lpm_trie::Key as TrieKey;
use proxy_common::{
    AddressEntry, AddressKey, EgressEntry, EgressKey, NetnsCookie, NetworkId, PolicySetId,
    PortEntry, PortKey, Route, RouteKey, ServiceEntry, ServiceKey, Workload, WorkloadId,
};

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
    let slots: usize = to.blocks.values().map(|slots| slots.len()).sum();
    let sizes = [
        ("WORKLOADS", to.workloads.len()),
        ("LOCAL", to.local.len()),
        // The rest twice: what an earlier process wrote, or what is about to be
        // replaced, stands beside it until workloads refer to the new.
        ("ADDRESSES", to.addresses.len() * 2),
        ("SERVICES", to.services.len() * 2),
        ("ROUTES", to.routes.len() * 2),
        ("ENDPOINTS", slots * 2),
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

/// All differences, and who looks at what before and after.
struct Plan<'a> {
    from: &'a TableSet,
    to: &'a TableSet,
    addresses: Diff<AddressKey, AddressEntry>,
    services: Diff<ServiceKey, ServiceEntry>,
    routes: Diff<RouteKey, Route>,
    egress: Diff<EgressPrefix, EgressEntry>,
    ports: Diff<PortKey, PortEntry>,
    /// Of the workloads that stand in `from`.
    live_networks: BTreeSet<NetworkId>,
    live_policy_sets: BTreeSet<PolicySetId>,
    /// Of the workloads that stand in `to`.
    kept_networks: BTreeSet<NetworkId>,
    kept_policy_sets: BTreeSet<PolicySetId>,
}

impl<'a> Plan<'a> {
    fn new(from: &'a TableSet, to: &'a TableSet) -> Self {
        Self {
            from,
            to,
            addresses: Diff::between(&from.addresses, &to.addresses),
            services: Diff::between(&from.services, &to.services),
            routes: Diff::between(&from.routes, &to.routes),
            egress: Diff::between(&from.egress, &to.egress),
            ports: Diff::between(&from.egress_ports, &to.egress_ports),
            live_networks: all(from, |workload| workload.network),
            live_policy_sets: all(from, |workload| workload.policy_set),
            kept_networks: all(to, |workload| workload.network),
            kept_policy_sets: all(to, |workload| workload.policy_set),
        }
    }
}

/// Writes the difference between `from`, which the maps hold, and `to`.
pub fn write(maps: &mut Maps, from: &TableSet, to: &TableSet) -> Result<(), KernelError> {
    let plan = Plan::new(from, to);
    prepare(maps, &plan)?;
    close(maps, &plan)?;
    change(maps, &plan)?;
    open(maps, &plan)?;
    clear(maps, &plan)
}

/// What nobody refers to yet: port tables and blocks, which are never changed
/// once written, and the objects of networks and policy sets that no workload
/// has so far. All of them are such when a new process takes over.
fn prepare(maps: &mut Maps, plan: &Plan<'_>) -> Result<(), KernelError> {
    for (key, value) in plan.ports.new.iter().chain(&plan.ports.changed) {
        maps.egress_ports
            .insert(key, value, 0)
            .map_err(KernelError::map("EGRESS_PORTS"))?;
    }
    write_blocks(maps, plan.from, plan.to)?;
    // Of services that did not tell sources apart yet, or of sources that are new.
    for (key, route) in &plan.routes.new {
        maps.routes
            .insert(key, route, 0)
            .map_err(KernelError::map("ROUTES"))?;
    }
    for (prefix, value) in &plan.egress.new {
        if !plan.live_policy_sets.contains(&prefix.1.policy_set) {
            maps.egress
                .insert(&trie_key(prefix), value, 0)
                .map_err(KernelError::map("EGRESS"))?;
        }
    }
    insert_services(maps, plan, |network| !plan.live_networks.contains(&network))
}

/// New addresses before their services (an address alone denies), of the
/// networks that `of` picks.
fn insert_services(
    maps: &mut Maps,
    plan: &Plan<'_>,
    of: impl Fn(NetworkId) -> bool,
) -> Result<(), KernelError> {
    for (key, value) in plan.addresses.new.iter().filter(|(key, _)| of(key.network)) {
        maps.addresses
            .insert(key, value, 0)
            .map_err(KernelError::map("ADDRESSES"))?;
    }
    for (key, value) in plan.services.new.iter().filter(|(key, _)| of(key.network)) {
        maps.services
            .insert(key, value, 0)
            .map_err(KernelError::map("SERVICES"))?;
    }
    Ok(())
}

/// Removes addresses and services of the networks that `of` picks.
fn remove_services(
    maps: &mut Maps,
    plan: &Plan<'_>,
    of: impl Fn(NetworkId) -> bool,
) -> Result<(), KernelError> {
    for key in plan.services.gone.iter().filter(|key| of(key.network)) {
        remove(maps.services.remove(key), "SERVICES")?;
    }
    for key in plan.addresses.gone.iter().filter(|key| of(key.network)) {
        remove(maps.addresses.remove(key), "ADDRESSES")?;
    }
    Ok(())
}

/// Tables of endpoints, in space that no entry names: a block is never changed.
/// Those that nobody names any more stay until their space is used again.
fn write_blocks(maps: &mut Maps, from: &TableSet, to: &TableSet) -> Result<(), KernelError> {
    let new = to
        .blocks
        .iter()
        .filter(|(block, _)| !from.blocks.contains_key(block));
    for (block, slots) in new {
        for (index, slot) in (block.offset..).zip(slots.iter()) {
            maps.endpoints
                .set(index, slot, 0)
                .map_err(KernelError::map("ENDPOINTS"))?;
        }
    }
    Ok(())
}

/// Everything that takes a way out: a service without its entry is a virtual
/// address with an unknown port (Deny), an external prefix falls to the default.
fn close(maps: &mut Maps, plan: &Plan<'_>) -> Result<(), KernelError> {
    for prefix in &plan.egress.gone {
        if plan.kept_policy_sets.contains(&prefix.1.policy_set) {
            remove(maps.egress.remove(&trie_key(prefix)), "EGRESS")?;
        }
    }
    remove_services(maps, plan, |network| plan.kept_networks.contains(&network))
}

/// Everything that stays and says something else: one element each.
fn change(maps: &mut Maps, plan: &Plan<'_>) -> Result<(), KernelError> {
    for (key, value) in &plan.addresses.changed {
        maps.addresses
            .insert(key, value, 0)
            .map_err(KernelError::map("ADDRESSES"))?;
    }
    for (key, route) in &plan.routes.changed {
        maps.routes
            .insert(key, route, 0)
            .map_err(KernelError::map("ROUTES"))?;
    }
    for (key, value) in &plan.services.changed {
        maps.services
            .insert(key, value, 0)
            .map_err(KernelError::map("SERVICES"))?;
    }
    for (prefix, value) in &plan.egress.changed {
        maps.egress
            .insert(&trie_key(prefix), value, 0)
            .map_err(KernelError::map("EGRESS"))?;
    }
    Ok(())
}

/// Ways out for workloads that are there, then the workloads themselves: what
/// they refer to is all there.
fn open(maps: &mut Maps, plan: &Plan<'_>) -> Result<(), KernelError> {
    for (prefix, value) in &plan.egress.new {
        if plan.live_policy_sets.contains(&prefix.1.policy_set) {
            maps.egress
                .insert(&trie_key(prefix), value, 0)
                .map_err(KernelError::map("EGRESS"))?;
        }
    }
    insert_services(maps, plan, |network| plan.live_networks.contains(&network))?;
    let (from, to) = (plan.from, plan.to);
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

/// What nobody refers to any more.
fn clear(maps: &mut Maps, plan: &Plan<'_>) -> Result<(), KernelError> {
    remove_services(maps, plan, |network| !plan.kept_networks.contains(&network))?;
    for prefix in &plan.egress.gone {
        if !plan.kept_policy_sets.contains(&prefix.1.policy_set) {
            remove(maps.egress.remove(&trie_key(prefix)), "EGRESS")?;
        }
    }
    for key in &plan.ports.gone {
        remove(maps.egress_ports.remove(key), "EGRESS_PORTS")?;
    }
    for key in &plan.routes.gone {
        remove(maps.routes.remove(key), "ROUTES")?;
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
        routes: all("ROUTES", maps.routes.iter())?,
        blocks: BTreeMap::new(),
        egress: all(
            "EGRESS",
            maps.egress
                .iter()
                .map(|entry| entry.map(|(key, value)| ((key.prefix_len(), key.data()), value))),
        )?,
        egress_ports: all("EGRESS_PORTS", maps.egress_ports.iter())?,
    })
}

/// What the workloads of `tables` refer to.
fn all<T: Ord>(tables: &TableSet, of: impl Fn(&Workload) -> T) -> BTreeSet<T> {
    tables.workloads.values().map(of).collect()
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
