//! Objects in, snapshot out.
//!
//! Owns the numbers ([`Ids`]) and carries the counters of what did not change,
//! so that an unrelated apply does not start anybody's turn again. Must never
//! touch the kernel or a socket.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use proxy_common::{
    Addr, AddressEntry, AddressKey, AddressKind, Block, LISTENERS_MAX, LocalKey, NetworkId,
    ServiceAction, ServiceEntry, ServiceKey, WorkloadId,
};

use super::ids::{self, Ids};
use super::mesh::Mesh;
use super::policies::Into;
use super::{
    Basis, BySource, CANARY, EgressView, ServiceView, Snapshot, Source, balanced, service,
};
use crate::balance::{Blocks, NoRoom};
use crate::config::object::{EgressRule, EgressTarget, ObjectName, Service, ServicePort, Workload};
use crate::config::{Objects, Owner};
use crate::egress::host::{HostName, HostPattern};
use crate::node::{CANARY_ADDRS, CANARY_PORT, Pod};
use crate::tables::TableSet;

/// Pending flows that one workload may have: what a busy pod needs many times
/// over, and a fraction of what the node's table holds.
const PENDING_MAX: u32 = 4_096;

/// What a snapshot is made of.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// The objects to put in force.
    pub objects: &'a Objects,
    /// Number of the rules.
    pub generation: u64,
    /// Number of the inventory.
    pub revision: u64,
    /// The blocks that the kernel's maps name now, be it for an earlier process.
    pub present: &'a OrdMap<Block, usize>,
}

/// Namespace and sockets of each enrolled workload of this node.
pub type Pods = BTreeMap<ObjectName, Arc<Pod>>;

/// A change of one object, before and after.
type Edit<'a, T> = (Option<&'a Arc<T>>, Option<&'a Arc<T>>);

/// Makes snapshots, one after the other.
#[derive(Debug)]
pub struct Compiler {
    ids: Ids,
    blocks: Blocks,
}

impl Compiler {
    /// One whose tables have place in `capacity` endpoint slots.
    pub fn new(capacity: u32) -> Self {
        Self {
            ids: Ids::default(),
            blocks: Blocks::new(capacity, ids::base()),
        }
    }

    /// The snapshot of `input`, but for what the pods themselves decide on;
    /// `former` is the one in force, and what did not change since is shared with
    /// it. An error leaves everything as it was.
    pub fn compile(&mut self, input: Input<'_>, former: &Snapshot) -> Result<Snapshot, NoRoom> {
        self.blocks.begin(input.present, Instant::now());
        let compiled = self.try_compile(input, former);
        if compiled.is_err() {
            self.cancel();
        }
        compiled
    }

    /// Nothing of the last snapshot will be written.
    pub fn cancel(&mut self) {
        self.blocks.cancel();
    }

    fn try_compile(&mut self, input: Input<'_>, former: &Snapshot) -> Result<Snapshot, NoRoom> {
        let objects = input.objects;
        let mut snapshot = Snapshot {
            generation: input.generation,
            revision: input.revision,
            services: former.services.clone(),
            egress: former.egress.clone(),
            route_rules: former.route_rules.clone(),
            tables: TableSet {
                workloads: OrdMap::new(),
                local: OrdMap::new(),
                ..former.tables.clone()
            },
            basis: Basis {
                objects: objects.clone(),
                policies: former.basis.policies.clone(),
                canaries: former.basis.canaries.clone(),
                by_source: former.basis.by_source.clone(),
            },
            ..Snapshot::default()
        };
        let before = &former.basis.objects;
        self.route_rules(objects, before, &mut snapshot);
        self.services(objects, before, former, &mut snapshot)?;
        self.addresses(objects, before, &mut snapshot.tables);
        self.egress_views(objects, before, &mut snapshot);
        let mut into = Into {
            ids: &mut self.ids,
            tables: &mut snapshot.tables,
            views: &snapshot.egress,
        };
        snapshot.basis.policies.update(before, objects, &mut into);
        Ok(snapshot)
    }

    /// Adds what the pods are to a snapshot that was made after `former`. An
    /// error makes it useless, and leaves everything else as it was.
    pub fn place(
        &mut self,
        pods: &Pods,
        former: &Snapshot,
        snapshot: &mut Snapshot,
    ) -> Result<(), NoRoom> {
        let objects = snapshot.basis.objects.clone();
        let mut networks = BTreeSet::new();
        for (name, pod) in pods {
            if let Some(workload) = objects.workloads.get(name) {
                networks.insert(self.ids.network(&workload.network));
                self.source(&objects, workload, pod, snapshot);
            }
        }
        let canaries = std::mem::replace(&mut snapshot.basis.canaries, networks.clone());
        for gone in canaries.difference(&networks) {
            for (address, service) in canary_keys(*gone) {
                snapshot.tables.addresses.remove(&address);
                snapshot.tables.remove_service(&service);
            }
        }
        for (address, service) in networks.into_iter().flat_map(canary_keys) {
            let entry = AddressEntry::new(AddressKind::Service);
            snapshot.tables.addresses.insert(address, entry);
            let entry = ServiceEntry::proxied(CANARY);
            snapshot.tables.put_service(service, entry);
        }
        let placed = self.routes(former, snapshot);
        if placed.is_err() {
            self.cancel();
        }
        placed
    }

    /// What each source gets of the balanced services that tell sources apart:
    /// of every service that changed, and for every source that did.
    fn routes(&mut self, former: &Snapshot, snapshot: &mut Snapshot) -> Result<(), NoRoom> {
        let sources: Vec<Arc<Source>> = snapshot.sources.values().cloned().collect();
        let is_new = |source: &&Arc<Source>| {
            let old = former.sources.get(&source.id);
            old.is_none_or(|old| old.labels != source.labels || old.services != source.services)
        };
        let new: Vec<Arc<Source>> = sources.iter().filter(is_new).cloned().collect();
        let before: Vec<WorkloadId> = former.sources.keys().copied().collect();
        let is_gone = |id: &WorkloadId| !snapshot.sources.contains_key(id);
        let gone: Vec<WorkloadId> = before.iter().copied().filter(is_gone).collect();
        let was = &former.basis.by_source;
        let now = snapshot.basis.by_source.clone();
        for item in was.diff(&now) {
            let (old, changed) = match item {
                DiffItem::Add(_, new) => (None, Some(new)),
                DiffItem::Update { old, new } => (Some(old.1), Some(new.1)),
                DiffItem::Remove(_, old) => (Some(old), None),
            };
            if let Some(old) = old {
                forget_routes(old, &before, &mut snapshot.tables);
            }
            if let Some(changed) = changed {
                self.routes_of(changed, &sources, &mut snapshot.tables)?;
            }
        }
        if new.is_empty() && gone.is_empty() {
            return Ok(());
        }
        for (id, service) in &now {
            if was.get(id) == Some(service) {
                forget_routes(service, &gone, &mut snapshot.tables);
                self.routes_of(service, &new, &mut snapshot.tables)?;
            }
        }
        Ok(())
    }

    fn routes_of(
        &mut self,
        service: &BySource,
        sources: &[Arc<Source>],
        tables: &mut TableSet,
    ) -> Result<(), NoRoom> {
        for dialled in &service.dialled {
            let mut placing = balanced::Placing {
                ids: &mut self.ids,
                blocks: &mut self.blocks,
                tables,
                dialled: *dialled,
            };
            placing.routes(&service.view, sources)?;
        }
        Ok(())
    }

    /// The names of the route rules.
    fn route_rules(&mut self, objects: &Objects, before: &Objects, snapshot: &mut Snapshot) {
        for (old, new) in edits(&before.route_rules, &objects.route_rules) {
            if let Some(rule) = new {
                let label = rule.name.to_string().into();
                let id = self.ids.route_rule(&rule.name);
                snapshot.route_rules.insert(id, label);
            } else if let Some(rule) = old {
                snapshot
                    .route_rules
                    .remove(&self.ids.route_rule(&rule.name));
            }
        }
    }

    /// Every service that changed, or whose endpoints or rules did.
    fn services(
        &mut self,
        objects: &Objects,
        before: &Objects,
        former: &Snapshot,
        snapshot: &mut Snapshot,
    ) -> Result<(), NoRoom> {
        let affected = affected(objects, before);
        // All that goes first: what one service gives up another may take.
        for name in &affected {
            if let Some(service) = before.services.get(name) {
                for port in &service.ports {
                    let id = self.ids.service(&service.name, port.port);
                    snapshot.services.remove(&id);
                    snapshot.basis.by_source.remove(&id);
                    for key in self.service_keys(service, port) {
                        snapshot.tables.remove_service(&key);
                    }
                }
            }
        }
        let mut left = HashSet::new();
        for name in &affected {
            if let Some(service) = before.services.get(name) {
                left.extend(self.endpoints(service, former));
            }
        }
        for name in &affected {
            if let Some(service) = objects.services.get(name) {
                self.service(objects, service, former, snapshot)?;
                for stays in self.endpoints(service, snapshot) {
                    left.remove(&stays);
                }
            }
        }
        snapshot.left = Arc::new(left);
        Ok(())
    }

    /// Where the ready endpoints of a service listen.
    fn endpoints(&mut self, service: &Service, snapshot: &Snapshot) -> Vec<SocketAddr> {
        let ports = service.ports.iter();
        let views = ports.filter_map(|port| {
            let id = self.ids.service(&service.name, port.port);
            snapshot.services.get(&id)
        });
        let endpoints = views.flat_map(|view| view.all.endpoints());
        endpoints.map(|endpoint| endpoint.addr).collect()
    }

    fn service(
        &mut self,
        objects: &Objects,
        service: &Service,
        former: &Snapshot,
        snapshot: &mut Snapshot,
    ) -> Result<(), NoRoom> {
        for port in &service.ports {
            let id = self.ids.service(&service.name, port.port);
            let old = former.services.get(&id).map(Arc::as_ref);
            let view = Arc::new(service::view(objects, service, port, id, old));
            self.entries(service, port, &view, snapshot)?;
            snapshot.services.insert(id, view);
        }
        Ok(())
    }

    /// The kernel's entries of a service port.
    fn entries(
        &mut self,
        service: &Service,
        port: &ServicePort,
        view: &Arc<ServiceView>,
        snapshot: &mut Snapshot,
    ) -> Result<(), NoRoom> {
        // A family that nobody can dial gets no tables: they would only take room.
        let mut of_family: BTreeMap<bool, (Addr, ServiceEntry)> = BTreeMap::new();
        for key in self.service_keys(service, port) {
            let family = key.addr.is_v4();
            let entry = if let Some((_, entry)) = of_family.get(&family) {
                *entry
            } else {
                let mut placing = balanced::Placing {
                    ids: &mut self.ids,
                    blocks: &mut self.blocks,
                    tables: &mut snapshot.tables,
                    dialled: key.addr,
                };
                placing.entry(view)?
            };
            of_family.entry(family).or_insert((key.addr, entry));
            snapshot.tables.put_service(key, entry);
        }
        let by_source = of_family
            .into_values()
            .filter(|(_, entry)| matches!(entry.action(), ServiceAction::BalanceBySource));
        let dialled: Vec<Addr> = by_source.map(|(dialled, _)| dialled).collect();
        if !dialled.is_empty() {
            let view = Arc::clone(view);
            let by_source = BySource { view, dialled };
            snapshot
                .basis
                .by_source
                .insert(by_source.view.id, by_source);
        }
        Ok(())
    }

    /// Where a port of a service can be dialled.
    fn service_keys(&mut self, service: &Service, port: &ServicePort) -> Vec<ServiceKey> {
        let network = self.ids.network(&service.network);
        let port = port.port;
        let addresses = service.cluster_ips.iter();
        let key = |ip: &IpAddr| ServiceKey {
            network,
            addr: Addr::from(*ip),
            port,
            pad: 0,
        };
        addresses.map(key).collect()
    }

    /// What every address is.
    fn addresses(&mut self, objects: &Objects, before: &Objects, tables: &mut TableSet) {
        let mut touched: BTreeSet<(&str, IpAddr)> = BTreeSet::new();
        for (old, new) in edits(&before.services, &objects.services) {
            for service in [old, new].into_iter().flatten() {
                let addresses = service.cluster_ips.iter();
                touched.extend(addresses.map(|ip| (service.network.as_str(), *ip)));
            }
        }
        for (old, new) in edits(&before.workloads, &objects.workloads) {
            for workload in [old, new].into_iter().flatten() {
                let addresses = workload.addresses.iter();
                touched.extend(addresses.map(|ip| (workload.network.as_str(), *ip)));
            }
        }
        for (network, ip) in touched {
            let key = AddressKey {
                network: self.ids.network(network),
                addr: Addr::from(ip),
            };
            let kind = match objects.index().owners(network, ip).first() {
                Some(Owner::Service(_)) => AddressKind::Service,
                Some(Owner::Workload(_)) => AddressKind::Workload,
                None => {
                    tables.addresses.remove(&key);
                    continue;
                }
            };
            tables.addresses.insert(key, AddressEntry::new(kind));
        }
    }

    fn egress_views(&mut self, objects: &Objects, before: &Objects, snapshot: &mut Snapshot) {
        for (old, new) in edits(&before.egress_rules, &objects.egress_rules) {
            if let Some(rule) = new {
                let view = self.egress_view(rule);
                snapshot.egress.insert(view.id, view);
            } else if let Some(rule) = old {
                snapshot.egress.remove(&self.ids.rule(&rule.name));
            }
        }
    }

    fn source(
        &mut self,
        objects: &Objects,
        workload: &Workload,
        pod: &Arc<Pod>,
        snapshot: &mut Snapshot,
    ) {
        let id = self.ids.workload(&workload.name);
        let network = self.ids.network(&workload.network);
        let class = objects.index().egress_selectors_of(workload);
        let policies = &snapshot.basis.policies;
        // Every class of an enrolled workload was compiled; none means no rule.
        let (policy_set, hosts) = match policies.of(&class) {
            Some((policy_set, hosts)) => (policy_set, Arc::clone(hosts)),
            None => (self.ids.policy_set(&class), Arc::default()),
        };
        let mesh = Mesh::of(objects, &workload.name.namespace);
        let tables = &mut snapshot.tables;
        let mut entry = proxy_common::Workload {
            id,
            network,
            policy_set,
            pending_max: PENDING_MAX,
            egress_default: mesh.egress as u8,
            on_proxy_down: mesh.on_proxy_down as u8,
            ..proxy_common::Workload::default()
        };
        for (slot, listener) in entry.listeners.iter_mut().zip(pod.listeners()) {
            *slot = *listener;
        }
        entry.listeners_len =
            u16::try_from(pod.listeners().len().min(LISTENERS_MAX)).expect("at most four");
        let netns = pod.netns().cookie();
        tables.workloads.insert(netns, entry);
        for addr in pod.local() {
            tables.local.insert(
                LocalKey {
                    netns,
                    addr: Addr::from(addr.ip),
                },
                1,
            );
        }
        let mut services: Vec<_> = objects.index().services_of(workload).collect();
        services.sort_by_key(|service| &service.name);
        let source = Source {
            id,
            text: workload.name.to_string().into(),
            label: services
                .first()
                .map_or(&workload.name, |service| &service.name)
                .to_string()
                .into(),
            labels: workload.labels.clone(),
            services: services
                .iter()
                .map(|service| service.name.clone())
                .collect(),
            pod: Arc::clone(pod),
            hosts,
            access_log: mesh.access_log,
            header_timeout: mesh.header_timeout,
            name: workload.name.clone(),
        };
        snapshot.sources.insert(id, Arc::new(source));
    }

    fn egress_view(&mut self, rule: &EgressRule) -> Arc<EgressView> {
        Arc::new(EgressView {
            id: self.ids.rule(&rule.name),
            label: rule.name.to_string().into(),
            hosts: hosts_of(&rule.target),
            target: rule.target.clone(),
            ports: rule.ports.iter().map(|(port, _)| *port).collect(),
        })
    }
}

/// The names of a rule; the parser only lets through targets that are some.
fn hosts_of(target: &EgressTarget) -> Option<HostPattern> {
    match target {
        EgressTarget::Host(name) => HostName::parse(name).ok().map(HostPattern::Exact),
        EgressTarget::Wildcard(suffix) => HostName::parse(suffix).ok().map(HostPattern::Under),
        EgressTarget::Net(..) => None,
    }
}

/// The objects that are not what they were.
fn edits<'a, T: PartialEq>(
    before: &'a OrdMap<ObjectName, Arc<T>>,
    next: &'a OrdMap<ObjectName, Arc<T>>,
) -> impl Iterator<Item = Edit<'a, T>> {
    before.diff(next).map(|item| match item {
        DiffItem::Add(_, new) => (None, Some(new)),
        DiffItem::Update { old, new } => (Some(old.1), Some(new.1)),
        DiffItem::Remove(_, old) => (Some(old), None),
    })
}

/// The services whose views are not what they were.
fn affected(objects: &Objects, before: &Objects) -> BTreeSet<ObjectName> {
    let mut affected = BTreeSet::new();
    for (old, new) in edits(&before.services, &objects.services) {
        affected.extend(old.or(new).map(|service| service.name.clone()));
    }
    for (old, new) in edits(&before.workloads, &objects.workloads) {
        for (workload, set) in [(old, before), (new, objects)] {
            let services = workload.map(|workload| set.index().services_of(workload));
            let services = services.into_iter().flatten();
            affected.extend(services.map(|service| service.name.clone()));
        }
    }
    for (old, new) in edits(&before.route_rules, &objects.route_rules) {
        let rules = old.into_iter().chain(new);
        affected.extend(rules.map(|rule| rule.destination.clone()));
    }
    affected
}

/// Takes away what `sources` got of a service.
fn forget_routes(service: &BySource, sources: &[WorkloadId], tables: &mut TableSet) {
    for dialled in &service.dialled {
        for source in sources {
            tables.remove_route(&balanced::route_key(service.view.id, *source, dialled));
        }
    }
}

/// The canary's addresses are a service of every network that has a pod here.
fn canary_keys(network: NetworkId) -> [(AddressKey, ServiceKey); 2] {
    CANARY_ADDRS.map(Addr::from).map(|addr| {
        let service = ServiceKey {
            network,
            addr,
            port: CANARY_PORT,
            pad: 0,
        };
        (AddressKey { network, addr }, service)
    })
}

#[cfg(test)]
mod tests;
