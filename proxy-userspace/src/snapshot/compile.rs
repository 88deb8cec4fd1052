//! Objects in, snapshot out.
//!
//! Owns what enrolled workloads get; `inventory` and `egress` own the rest. Carries
//! the counters of what did not change, so that an unrelated apply does not start
//! anybody's turn again. Must never touch the kernel or a socket.

mod egress;
mod inventory;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use proxy_common::{
    Acceleration, Addr, AddressEntry, AddressKey, AddressKind, Block, Destination, LISTENERS_MAX,
    LocalKey, NetworkId, ServiceEntry, ServiceKey, Transport,
};

use self::egress::Egress;
use self::inventory::Inventory;
use super::mesh::Mesh;
use super::policies::Policies;
use super::{Basis, CANARY, Snapshot, Source};
use crate::balance::NoRoom;
use crate::beside::both;
use crate::config::Objects;
use crate::config::object::{ObjectName, Workload};
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
    inventory: Inventory,
    egress: Egress,
    /// What the daemon was started with.
    accelerate: Acceleration,
}

impl Compiler {
    /// One whose tables have place in `capacity` endpoint slots, that lets every
    /// workload ask `resolvers` for names, and whose workloads accelerate as
    /// `accelerate` says unless they say it themselves.
    pub fn new(capacity: u32, resolvers: Vec<SocketAddr>, accelerate: Acceleration) -> Self {
        Self {
            inventory: Inventory::new(capacity),
            egress: Egress::new(resolvers),
            accelerate,
        }
    }

    /// The snapshot of `input`, but for what the pods themselves decide on;
    /// `former` is the one in force, and what did not change since is shared with
    /// it. An error leaves everything as it was.
    pub fn compile(&mut self, input: Input<'_>, former: &Snapshot) -> Result<Snapshot, NoRoom> {
        self.inventory.blocks.begin(input.present, Instant::now());
        let compiled = self.try_compile(input, former);
        if compiled.is_err() {
            self.cancel();
        }
        compiled
    }

    /// Nothing of the last snapshot will be written.
    pub fn cancel(&mut self) {
        self.inventory.blocks.cancel();
    }

    fn try_compile(&mut self, input: Input<'_>, former: &Snapshot) -> Result<Snapshot, NoRoom> {
        let objects = input.objects;
        let mut snapshot = Snapshot {
            generation: input.generation,
            revision: input.revision,
            services: former.services.clone(),
            route_rules: former.route_rules.clone(),
            tables: TableSet {
                workloads: OrdMap::new(),
                local: OrdMap::new(),
                nearby: OrdMap::new(),
                ..former.tables.clone()
            },
            basis: Basis {
                objects: objects.clone(),
                policies: Policies::default(),
                canaries: former.basis.canaries.clone(),
                by_source: former.basis.by_source.clone(),
            },
            ..Snapshot::default()
        };
        // Neither half looks at what the other makes.
        let Self {
            inventory, egress, ..
        } = self;
        let (egress, services) = both(
            || egress.compile(objects, former),
            || inventory.compile(objects, former, &mut snapshot),
        );
        services?;
        egress.put_into(&mut snapshot);
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
                networks.insert(self.inventory.ids.network(&workload.network));
                self.source(&objects, workload, pod, snapshot);
            }
        }
        let mut leavers = former.sources.clone();
        leavers.retain(|id, _| !snapshot.sources.contains_key(id));
        snapshot.leavers = leavers;
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
        let placed = self.inventory.routes(former, snapshot);
        if placed.is_err() {
            self.cancel();
        }
        placed
    }

    fn source(
        &mut self,
        objects: &Objects,
        workload: &Workload,
        pod: &Arc<Pod>,
        snapshot: &mut Snapshot,
    ) {
        let id = self.inventory.ids.workload(&workload.name);
        let network = self.inventory.ids.network(&workload.network);
        let class = objects.index().rules.egress_selectors_of(workload);
        let policies = &snapshot.basis.policies;
        // Every class of an enrolled workload was compiled; none means no rule.
        let (policy_set, hosts) = match policies.of(&class) {
            Some((policy_set, hosts)) => (policy_set, Arc::clone(hosts)),
            None => (self.egress.policy_set(&class), Arc::default()),
        };
        let mesh = Mesh::of(objects, workload.name.namespace());
        let tables = &mut snapshot.tables;
        let mut entry = proxy_common::Workload {
            id,
            network,
            policy_set,
            pending_max: PENDING_MAX,
            egress_default: mesh.egress as u8,
            on_proxy_down: mesh.on_proxy_down as u8,
            accelerate: self.acceleration(workload) as u8,
            own: pod.local().iter().map(|addr| Addr::from(addr.ip)).collect(),
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
        for local in pod.local() {
            let addr = Addr::from(local.ip);
            tables.local.insert(LocalKey { netns, addr }, 1);
        }
        let mut services: Vec<_> = objects.index().inventory.services_of(workload).collect();
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
