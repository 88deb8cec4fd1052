//! Objects in, snapshot out.
//!
//! Owns the numbers ([`Ids`]) and carries the counters of what did not change,
//! so that an unrelated apply does not start anybody's turn again. Must never
//! touch the kernel or a socket.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use proxy_common::{
    Addr, AddressEntry, AddressKey, AddressKind, LISTENERS_MAX, LocalKey, NetworkId, ServiceEntry,
    ServiceKey,
};

use super::ids::Ids;
use super::mesh::Mesh;
use super::policies::Into;
use super::{Basis, CANARY, EgressView, Snapshot, Source, service};
use crate::config::object::{EgressRule, EgressTarget, ObjectName, Service, ServicePort, Workload};
use crate::config::{Objects, Owner};
use crate::egress::host::{HostName, HostPattern};
use crate::node::{CANARY_ADDR, CANARY_PORT, Pod};
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
}

/// Namespace and sockets of each enrolled workload of this node.
pub type Pods = BTreeMap<ObjectName, Arc<Pod>>;

/// A change of one object, before and after.
type Edit<'a, T> = (Option<&'a Arc<T>>, Option<&'a Arc<T>>);

/// Makes snapshots, one after the other.
#[derive(Debug, Default)]
pub struct Compiler {
    ids: Ids,
}

impl Compiler {
    /// The snapshot of `input`, but for what the pods themselves decide on;
    /// `former` is the one in force, and what did not change since is shared with it.
    pub fn compile(&mut self, input: Input<'_>, former: &Snapshot) -> Snapshot {
        let objects = input.objects;
        let mut snapshot = Snapshot {
            generation: input.generation,
            revision: input.revision,
            services: former.services.clone(),
            egress: former.egress.clone(),
            tables: TableSet {
                workloads: OrdMap::new(),
                local: OrdMap::new(),
                ..former.tables.clone()
            },
            basis: Basis {
                objects: objects.clone(),
                policies: former.basis.policies.clone(),
                canaries: former.basis.canaries.clone(),
            },
            ..Snapshot::default()
        };
        let before = &former.basis.objects;
        self.services(objects, before, former, &mut snapshot);
        self.addresses(objects, before, &mut snapshot.tables);
        self.egress_views(objects, before, &mut snapshot);
        let mut into = Into {
            ids: &mut self.ids,
            tables: &mut snapshot.tables,
            views: &snapshot.egress,
        };
        snapshot.basis.policies.update(before, objects, &mut into);
        snapshot
    }

    /// Adds what the pods are to a snapshot.
    pub fn place(&mut self, pods: &Pods, snapshot: &mut Snapshot) {
        let objects = snapshot.basis.objects.clone();
        let mut networks = BTreeSet::new();
        for (name, pod) in pods {
            if let Some(workload) = objects.workloads.get(name) {
                networks.insert(self.ids.network(&workload.network));
                self.source(&objects, workload, pod, snapshot);
            }
        }
        let former = std::mem::replace(&mut snapshot.basis.canaries, networks.clone());
        for gone in former.difference(&networks) {
            let (address, service) = canary_keys(*gone);
            snapshot.tables.addresses.remove(&address);
            snapshot.tables.services.remove(&service);
        }
        for network in networks {
            let (address, service) = canary_keys(network);
            let entry = AddressEntry::new(AddressKind::Service);
            snapshot.tables.addresses.insert(address, entry);
            let entry = ServiceEntry { service: CANARY };
            snapshot.tables.services.insert(service, entry);
        }
    }

    /// Every service that changed, or whose endpoints or rules did.
    fn services(
        &mut self,
        objects: &Objects,
        before: &Objects,
        former: &Snapshot,
        snapshot: &mut Snapshot,
    ) {
        let affected = affected(objects, before);
        // All that goes first: what one service gives up another may take.
        for name in &affected {
            if let Some(service) = before.services.get(name) {
                for port in &service.ports {
                    let id = self.ids.service(&service.name, port.port);
                    snapshot.services.remove(&id);
                    for key in self.service_keys(service, port) {
                        snapshot.tables.services.remove(&key);
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
                self.service(objects, service, former, snapshot);
                for stays in self.endpoints(service, snapshot) {
                    left.remove(&stays);
                }
            }
        }
        snapshot.left = Arc::new(left);
    }

    /// Where the ready endpoints of a service listen.
    fn endpoints(&mut self, service: &Service, snapshot: &Snapshot) -> Vec<SocketAddr> {
        let ports = service.ports.iter();
        let views = ports.filter_map(|port| {
            let id = self.ids.service(&service.name, port.port);
            snapshot.services.get(&id)
        });
        let endpoints = views.flat_map(|view| &view.all.endpoints);
        endpoints.map(|endpoint| endpoint.addr).collect()
    }

    fn service(
        &mut self,
        objects: &Objects,
        service: &Service,
        former: &Snapshot,
        snapshot: &mut Snapshot,
    ) {
        for port in &service.ports {
            let id = self.ids.service(&service.name, port.port);
            let view = service::view(
                objects,
                service,
                port,
                id,
                former.services.get(&id).map(Arc::as_ref),
            );
            snapshot.services.insert(id, Arc::new(view));
            for key in self.service_keys(service, port) {
                let entry = ServiceEntry { service: id };
                snapshot.tables.services.insert(key, entry);
            }
        }
    }

    /// Where a port of a service can be dialled.
    fn service_keys(&mut self, service: &Service, port: &ServicePort) -> Vec<ServiceKey> {
        let network = self.ids.network(&service.network);
        let port = port.port;
        let addresses = service.cluster_ips.iter().filter(|ip| ip.is_ipv4());
        let key = |ip: &IpAddr| ServiceKey {
            network,
            addr: Addr::from(*ip),
            port,
            pad: 0,
        };
        addresses.map(key).collect()
    }

    /// What every address is. IPv6 ones are left out: until IPv6 is governed
    /// they are external, and denied with everything external.
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
        for (network, ip) in touched.into_iter().filter(|(_, ip)| ip.is_ipv4()) {
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

/// The canary's address is a service of every network that has a pod here.
fn canary_keys(network: NetworkId) -> (AddressKey, ServiceKey) {
    let addr = Addr::from(CANARY_ADDR);
    let service = ServiceKey {
        network,
        addr,
        port: CANARY_PORT,
        pad: 0,
    };
    (AddressKey { network, addr }, service)
}
