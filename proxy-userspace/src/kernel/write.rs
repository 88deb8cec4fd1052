//! Brings the maps from what they hold to what a [`TableSet`] asks for.
//!
//! Owns the order: what no live entry refers to is written first, then what
//! closes, then what changes in place (one element, atomic), then what opens,
//! and last what nobody refers to any more is removed. So no connect sees half
//! an object, and a failure on the way leaves something that is closed.

use std::collections::BTreeSet;

use aya::maps::{Array, HashMap, MapData, MapError};
use nix::libc;
use proxy_common::{
    AddressEntry, AddressKey, EndpointSlot, Enrolled, Lengths, NetnsCookie, NetworkId, PolicySetId,
    ServiceEntry, ServiceKey, Workload, WorkloadId,
};

use super::batch::{self, Batched, Keyed};
use super::changes::Changes;
use super::error::KernelError;
use super::maps::Maps;
use crate::beside::both;
use crate::tables::TableSet;

/// bpf(2): only if the key is not there yet.
const BPF_NOEXIST: u64 = 1;

/// All differences, and who looks at what before and after.
struct Plan<'a> {
    from: &'a TableSet,
    to: &'a TableSet,
    changes: &'a Changes,
    /// Of the workloads that stand in `from`.
    live_networks: BTreeSet<NetworkId>,
    live_policy_sets: BTreeSet<PolicySetId>,
    /// Of the workloads that stand in `to`.
    kept_networks: BTreeSet<NetworkId>,
    kept_policy_sets: BTreeSet<PolicySetId>,
}

impl<'a> Plan<'a> {
    fn new(from: &'a TableSet, to: &'a TableSet, changes: &'a Changes) -> Self {
        Self {
            from,
            to,
            changes,
            live_networks: all(from, |workload| workload.network),
            live_policy_sets: all(from, |workload| workload.policy_set),
            kept_networks: all(to, |workload| workload.network),
            kept_policy_sets: all(to, |workload| workload.policy_set),
        }
    }
}

/// Writes the difference between `from`, which the maps hold, and `to`.
pub fn write(
    maps: &mut Maps,
    from: &TableSet,
    to: &TableSet,
    changes: &Changes,
) -> Result<(), KernelError> {
    let plan = Plan::new(from, to, changes);
    prepare(maps, &plan)?;
    close(maps, &plan)?;
    change(maps, changes)?;
    open(maps, &plan)?;
    clear(maps, &plan)
}

/// What nobody refers to yet: port tables and blocks, which are never changed
/// once written, and the objects of networks and policy sets that no workload
/// has so far. All of them are such when a new process takes over.
fn prepare(maps: &mut Maps, plan: &Plan<'_>) -> Result<(), KernelError> {
    let changes = plan.changes;
    // As nobody refers to it, egress may come at the same time as the rest.
    let (egress, services) = both(
        || {
            let ports = changes.ports.new.iter().chain(&changes.ports.changed);
            put(&mut maps.egress_ports, "EGRESS_PORTS", ports.copied())?;
            widen_lengths(&mut maps.egress_lengths, plan)?;
            let new = changes.egress.new.iter().copied();
            let new = new.filter(|(key, _)| !plan.live_policy_sets.contains(&key.policy_set));
            put(&mut maps.egress, "EGRESS", new)
        },
        || {
            write_blocks(&mut maps.endpoints, changes)?;
            // Of services that did not tell sources apart yet, or of sources that are new.
            let routes = changes.routes.new.iter().copied();
            put(&mut maps.routes, "ROUTES", routes)?;
            let (addresses, services) = (&mut maps.addresses, &mut maps.services);
            insert_services(addresses, services, changes, |network| {
                !plan.live_networks.contains(&network)
            })
        },
    );
    egress?;
    services
}

fn put<M: Batched>(
    map: &mut M,
    name: &'static str,
    entries: impl IntoIterator<Item = (M::Key, M::Value)>,
) -> Result<(), KernelError> {
    batch::put(map, entries).map_err(KernelError::map(name))
}

/// A removal of what is already gone has done its work.
fn remove<M: Keyed>(
    map: &mut M,
    name: &'static str,
    keys: impl IntoIterator<Item = M::Key>,
) -> Result<(), KernelError> {
    batch::remove(map, keys).map_err(KernelError::map(name))
}

/// Lengths are listed before a prefix has them, and as long as one had them: so each
/// prefix comes and goes by its own element alone.
fn widen_lengths(
    map: &mut HashMap<MapData, PolicySetId, Lengths>,
    plan: &Plan<'_>,
) -> Result<(), KernelError> {
    let (changes, before) = (plan.changes, plan.from.egress.lengths());
    let changed = changes.lengths.changed.iter().map(|(policy_set, lengths)| {
        let all = before
            .get(policy_set)
            .map_or(*lengths, |old| old.union(lengths));
        (*policy_set, all)
    });
    put(
        map,
        "EGRESS_LENGTHS",
        changes.lengths.new.iter().copied().chain(changed),
    )
}

/// What no prefix has any more is listed no longer.
fn narrow_lengths(
    map: &mut HashMap<MapData, PolicySetId, Lengths>,
    changes: &Changes,
) -> Result<(), KernelError> {
    put(
        map,
        "EGRESS_LENGTHS",
        changes.lengths.changed.iter().copied(),
    )?;
    remove(map, "EGRESS_LENGTHS", changes.lengths.gone.iter().copied())
}

/// Removes the prefixes of the policy sets that `of` picks.
fn remove_egress(
    maps: &mut Maps,
    changes: &Changes,
    of: impl Fn(PolicySetId) -> bool,
) -> Result<(), KernelError> {
    let gone = changes.egress.gone.iter().copied();
    let gone = gone.filter(|key| of(key.policy_set));
    remove(&mut maps.egress, "EGRESS", gone)
}

/// New addresses before their services (an address alone denies), of the
/// networks that `of` picks.
fn insert_services(
    addresses: &mut HashMap<MapData, AddressKey, AddressEntry>,
    services: &mut HashMap<MapData, ServiceKey, ServiceEntry>,
    changes: &Changes,
    of: impl Fn(NetworkId) -> bool,
) -> Result<(), KernelError> {
    let new = changes.addresses.new.iter().copied();
    put(
        addresses,
        "ADDRESSES",
        new.filter(|(key, _)| of(key.network)),
    )?;
    let new = changes.services.new.iter().copied();
    put(services, "SERVICES", new.filter(|(key, _)| of(key.network)))
}

/// Removes addresses and services of the networks that `of` picks: a port goes
/// before its address and comes after it, so that none stands by itself.
fn remove_services(
    maps: &mut Maps,
    changes: &Changes,
    of: impl Fn(NetworkId) -> bool,
) -> Result<(), KernelError> {
    let services = changes.services.gone.iter().copied();
    remove(
        &mut maps.services,
        "SERVICES",
        services.filter(|key| of(key.network)),
    )?;
    let addresses = changes.addresses.gone.iter().copied();
    remove(
        &mut maps.addresses,
        "ADDRESSES",
        addresses.filter(|key| of(key.network)),
    )
}

/// Tables of endpoints, in space that no entry names: a block is never changed.
/// Those that nobody names any more stay until their space is used again.
fn write_blocks(
    endpoints: &mut Array<MapData, EndpointSlot>,
    changes: &Changes,
) -> Result<(), KernelError> {
    let blocks = changes.blocks.new.iter();
    let slots = blocks.flat_map(|(block, slots)| (block.offset..).zip(slots.iter().copied()));
    put(endpoints, "ENDPOINTS", slots)
}

/// Everything that takes a way out: a service without its entry is a virtual
/// address with an unknown port (Deny), an external prefix falls to the default.
fn close(maps: &mut Maps, plan: &Plan<'_>) -> Result<(), KernelError> {
    remove_egress(maps, plan.changes, |policy_set| {
        plan.kept_policy_sets.contains(&policy_set)
    })?;
    remove_services(maps, plan.changes, |network| {
        plan.kept_networks.contains(&network)
    })
}

/// Everything that stays and says something else: one element each.
fn change(maps: &mut Maps, changes: &Changes) -> Result<(), KernelError> {
    let addresses = changes.addresses.changed.iter().copied();
    put(&mut maps.addresses, "ADDRESSES", addresses)?;
    let routes = changes.routes.changed.iter().copied();
    put(&mut maps.routes, "ROUTES", routes)?;
    let services = changes.services.changed.iter().copied();
    put(&mut maps.services, "SERVICES", services)?;
    let egress = changes.egress.changed.iter().copied();
    put(&mut maps.egress, "EGRESS", egress)
}

/// Ways out for workloads that are there, then the workloads themselves: what
/// they refer to is all there.
fn open(maps: &mut Maps, plan: &Plan<'_>) -> Result<(), KernelError> {
    let (from, to, changes) = (plan.from, plan.to, plan.changes);
    let new = changes.egress.new.iter().copied();
    let new = new.filter(|(key, _)| plan.live_policy_sets.contains(&key.policy_set));
    put(&mut maps.egress, "EGRESS", new)?;
    insert_services(
        &mut maps.addresses,
        &mut maps.services,
        changes,
        |network| plan.live_networks.contains(&network),
    )?;
    let local = changes.local.new.iter().copied();
    put(&mut maps.local, "LOCAL", local)?;
    let workloads = &changes.workloads;
    if !workloads.new.is_empty() {
        let all = from.workloads.keys().chain(to.workloads.keys());
        write_enrolled(maps, all)?;
    }
    for (netns, workload) in workloads.changed.iter().chain(&workloads.new) {
        write_workload(
            maps,
            *netns,
            workload,
            from.workloads.get(netns).map(|old| old.id),
        )?;
    }
    let gone = workloads.gone.iter().copied();
    remove(&mut maps.workloads, "WORKLOADS", gone)?;
    // Only now: a number may have gone from one workload to another.
    if !workloads.gone.is_empty() || !workloads.changed.is_empty() {
        let in_use: BTreeSet<WorkloadId> =
            to.workloads.values().map(|workload| workload.id).collect();
        let before = from.workloads.values().map(|workload| workload.id);
        let unused = before.filter(|id| !in_use.contains(id));
        remove(&mut maps.pending, "PENDING", unused)?;
    }
    let local = changes.local.gone.iter().copied();
    remove(&mut maps.local, "LOCAL", local)?;
    let nearby = changes.nearby.gone.iter().copied();
    remove(&mut maps.nearby, "NEARBY", nearby)?;
    let nearby = changes.nearby.changed.iter().chain(&changes.nearby.new);
    put(&mut maps.nearby, "NEARBY", nearby.copied())
}

/// What nobody refers to any more.
fn clear(maps: &mut Maps, plan: &Plan<'_>) -> Result<(), KernelError> {
    let changes = plan.changes;
    remove_services(maps, changes, |network| {
        !plan.kept_networks.contains(&network)
    })?;
    remove_egress(maps, changes, |policy_set| {
        !plan.kept_policy_sets.contains(&policy_set)
    })?;
    narrow_lengths(&mut maps.egress_lengths, changes)?;
    let ports = changes.ports.gone.iter().copied();
    remove(&mut maps.egress_ports, "EGRESS_PORTS", ports)?;
    let routes = changes.routes.gone.iter().copied();
    remove(&mut maps.routes, "ROUTES", routes)?;
    if changes.workloads.gone.is_empty() {
        return Ok(());
    }
    write_enrolled(maps, plan.to.workloads.keys())
}

/// Whom the hooks look up at all: known before they are enrolled, and forgotten
/// after they are not any more.
pub fn write_enrolled<'a>(
    maps: &mut Maps,
    netns: impl IntoIterator<Item = &'a NetnsCookie>,
) -> Result<(), KernelError> {
    let enrolled: Enrolled = netns.into_iter().copied().collect();
    let written = maps.enrolled.set(0, enrolled, 0);
    written.map_err(KernelError::map("ENROLLED"))
}

fn write_workload(
    maps: &mut Maps,
    netns: NetnsCookie,
    workload: &Workload,
    old: Option<WorkloadId>,
) -> Result<(), KernelError> {
    if old != Some(workload.id) {
        // A number that moves to another namespace keeps its count: its flows go on.
        match maps.pending.insert(workload.id, 0, BPF_NOEXIST) {
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::EEXIST) => {}
            counted => counted.map_err(KernelError::map("PENDING"))?,
        }
    }
    maps.workloads
        .insert(netns, workload, 0)
        .map_err(KernelError::map("WORKLOADS"))
}

/// What the workloads of `tables` refer to.
fn all<T: Ord>(tables: &TableSet, of: impl Fn(&Workload) -> T) -> BTreeSet<T> {
    tables.workloads.values().map(of).collect()
}
