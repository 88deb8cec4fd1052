//! What differs between two table sets, and whether the maps have room for it.
//!
//! Must never look at what the two share.

use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use proxy_common::{
    AddressEntry, AddressKey, Block, EgressEntry, EgressKey, EndpointSlot, Lengths, LocalEntry,
    LocalKey, NetnsCookie, PolicySetId, PortEntry, PortKey, Route, RouteKey, ServiceEntry,
    ServiceKey, Workload,
};

use super::error::KernelError;
use super::limits::{Limits, TableMap};
use crate::tables::TableSet;

/// The differences between two maps, by what they do.
pub(super) struct Diff<K, V> {
    pub(super) gone: Vec<K>,
    pub(super) changed: Vec<(K, V)>,
    pub(super) new: Vec<(K, V)>,
}

impl<K: Ord + Clone, V: PartialEq + Clone> Diff<K, V> {
    fn between(from: &OrdMap<K, V>, to: &OrdMap<K, V>) -> Self {
        let (mut gone, mut changed, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for item in from.diff(to) {
            match item {
                DiffItem::Add(key, value) => new.push((key.clone(), value.clone())),
                DiffItem::Update { new: value, .. } => {
                    changed.push((value.0.clone(), value.1.clone()));
                }
                DiffItem::Remove(key, _) => gone.push(key.clone()),
            }
        }
        Self { gone, changed, new }
    }
}

/// All that differs between two table sets.
pub struct Changes {
    pub(super) workloads: Diff<NetnsCookie, Workload>,
    pub(super) local: Diff<LocalKey, LocalEntry>,
    pub(super) nearby: Diff<AddressKey, NetnsCookie>,
    pub(super) addresses: Diff<AddressKey, AddressEntry>,
    pub(super) services: Diff<ServiceKey, ServiceEntry>,
    pub(super) routes: Diff<RouteKey, Route>,
    pub(super) blocks: Diff<Block, Arc<[EndpointSlot]>>,
    pub(super) egress: Diff<EgressKey, EgressEntry>,
    pub(super) lengths: Diff<PolicySetId, Lengths>,
    pub(super) ports: Diff<PortKey, PortEntry>,
}

impl Changes {
    /// What to do to get from `from` to `to`.
    pub fn between(from: &TableSet, to: &TableSet) -> Self {
        Self {
            workloads: Diff::between(&from.workloads, &to.workloads),
            local: Diff::between(&from.local, &to.local),
            nearby: Diff::between(&from.nearby, &to.nearby),
            addresses: Diff::between(&from.addresses, &to.addresses),
            services: Diff::between(&from.services, &to.services),
            routes: Diff::between(&from.routes, &to.routes),
            blocks: Diff::between(&from.blocks, &to.blocks),
            egress: Diff::between(from.egress.entries(), to.egress.entries()),
            lengths: Diff::between(from.egress.lengths(), to.egress.lengths()),
            ports: Diff::between(&from.egress_ports, &to.egress_ports),
        }
    }
}

/// Refuses what does not fit, before anything is written.
pub fn check_size(from: &TableSet, to: &TableSet, limits: &Limits) -> Result<(), KernelError> {
    // Only of these two it matters how many go; the others are large.
    let workloads = Diff::between(&from.workloads, &to.workloads).gone.len();
    let local = Diff::between(&from.local, &to.local).gone.len();
    let sizes = [
        // What goes last stands beside what comes first for a moment.
        (TableMap::Workloads, to.workloads.len() + workloads),
        (TableMap::Local, to.local.len() + local),
        // The rest twice: what an earlier process wrote, or what is about to be
        // replaced, stands beside it until workloads refer to the new.
        (TableMap::Addresses, to.addresses.len() * 2),
        (TableMap::Services, to.services.len() * 2),
        (TableMap::Routes, to.routes.len() * 2),
        (TableMap::Endpoints, to.slots * 2),
        (TableMap::Egress, to.egress.entries().len() * 2),
        (TableMap::PolicySets, to.egress.lengths().len() * 2),
        (TableMap::EgressPorts, to.egress_ports.len() * 2),
    ];
    for (map, wanted) in sizes {
        limits.check(map, wanted)?;
    }
    Ok(())
}
