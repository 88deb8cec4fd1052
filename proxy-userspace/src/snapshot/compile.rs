//! Objects in, snapshot out.
//!
//! Owns the numbers ([`Ids`]) and carries the counters of what did not change,
//! so that an unrelated apply does not start anybody's turn again. Must never
//! touch the kernel or a socket.

mod services;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use proxy_common::{
    Acceleration, Addr, AddressEntry, AddressKey, AddressKind, Block, Destination, LISTENERS_MAX,
    LocalKey, NetworkId, ServiceEntry, ServiceKey, Transport,
};

use super::ids::{self, Ids};
use super::mesh::Mesh;
use super::policies::Into;
use super::{Basis, CANARY, EgressView, Snapshot, Source};
use crate::balance::{Blocks, NoRoom};
use crate::config::object::{EgressRule, EgressTarget, ObjectName, Workload};
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
    /// What the daemon was started with.
    accelerate: Acceleration,
    blocks: Blocks,
    resolvers: Vec<SocketAddr>,
}

impl Compiler {
    /// One whose tables have place in `capacity` endpoint slots, that lets every
    /// workload ask `resolvers` for names, and whose workloads accelerate as
    /// `accelerate` says unless they say it themselves.
    pub fn new(capacity: u32, resolvers: Vec<SocketAddr>, accelerate: Acceleration) -> Self {
        Self {
            ids: Ids::default(),
            accelerate,
            blocks: Blocks::new(capacity, ids::base()),
            resolvers,
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
                nearby: OrdMap::new(),
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
            resolvers: &self.resolvers,
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
            accelerate: self.acceleration(workload) as u8,
            ..proxy_common::Workload::default()
        };
        for (slot, listener) in entry.listeners.iter_mut().zip(pod.listeners()) {
            *slot = *listener;
        }
        entry.listeners_len =
            u16::try_from(pod.listeners().len().min(LISTENERS_MAX)).expect("at most four");
        let netns = pod.netns().cookie();
        tables.workloads.insert(netns, entry);
        if entry.acceleration() != Acceleration::Off {
            nearby(tables, network, pod);
        }
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

    /// What a workload asks for: its own choice, but a daemon that was started
    /// with `off` has nothing to accelerate with.
    fn acceleration(&self, workload: &Workload) -> Acceleration {
        match self.accelerate {
            Acceleration::Off => Acceleration::Off,
            default => workload.accelerate.unwrap_or(default),
        }
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

/// Where others of this node find the pod that they dial.
fn nearby(tables: &mut TableSet, network: NetworkId, pod: &Pod) {
    for ip in pod.claimed() {
        let addr = Addr::from(*ip);
        tables
            .nearby
            .insert(AddressKey { network, addr }, pod.netns().cookie());
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

/// The canary's addresses are a service of every network that has a pod here.
fn canary_keys(network: NetworkId) -> [(AddressKey, ServiceKey); 2] {
    CANARY_ADDRS.map(Addr::from).map(|addr| {
        let port = CANARY_PORT;
        let service = ServiceKey::new(network, Destination { addr, port }, Transport::Tcp);
        (AddressKey { network, addr }, service)
    })
}

#[cfg(test)]
mod tests;
