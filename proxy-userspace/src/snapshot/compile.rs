//! Objects in, snapshot out.
//!
//! Owns the numbers ([`Ids`]) and carries the counters of what did not change,
//! so that an unrelated apply does not start anybody's turn again. Must never
//! touch the kernel or a socket.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use proxy_common::{
    Addr, AddressEntry, AddressKey, AddressKind, Block, EgressEntry, EgressKey, LISTENERS_MAX,
    LocalKey, PortKey, PortTableId, ServiceEntry, ServiceKey,
};

use super::ids::{self, Ids, PolicyClass, PortTable};
use super::mesh::Mesh;
use super::{CANARY, EgressView, Snapshot, Source, balanced, service};
use crate::balance::{Blocks, NoRoom};
use crate::config::Objects;
use crate::config::object::{
    EgressRule, EgressTarget, Labels, ObjectName, Service, Workload, selects,
};
use crate::egress::host::{HostName, HostPattern};
use crate::egress::policy;
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
    /// Namespace and sockets of each enrolled workload of this node.
    pub pods: &'a BTreeMap<ObjectName, Arc<Pod>>,
    /// Number of the rules.
    pub generation: u64,
    /// Number of the inventory.
    pub revision: u64,
    /// The blocks that the kernel's maps name now, be it for an earlier process.
    pub present: &'a BTreeSet<Block>,
}

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

    /// The snapshot of `input`; `former` is the one in force. An error leaves
    /// everything as it was.
    pub fn compile(&mut self, input: Input<'_>, former: &Snapshot) -> Result<Snapshot, NoRoom> {
        self.blocks.begin(input.present, Instant::now());
        let compiled = self.try_compile(input, former);
        if compiled.is_err() {
            self.blocks.cancel();
        }
        compiled
    }

    fn try_compile(&mut self, input: Input<'_>, former: &Snapshot) -> Result<Snapshot, NoRoom> {
        let Input {
            objects,
            pods,
            generation,
            revision,
            present: _,
        } = input;
        let mut snapshot = Snapshot {
            generation,
            revision,
            ..Snapshot::default()
        };
        for service in objects.services.values() {
            self.service(objects, service, former, &mut snapshot);
        }
        for rule in objects.egress_rules.values() {
            let view = self.egress_view(rule);
            snapshot.egress.insert(view.id, view);
        }
        self.addresses(objects, &mut snapshot.tables);
        self.policies(objects, pods, &mut snapshot.tables);
        for (name, pod) in pods {
            if let Some(workload) = objects.workloads.get(name) {
                self.source(objects, workload, pod, &mut snapshot);
            }
        }
        for rule in objects.route_rules.values() {
            let id = self.ids.route_rule(&rule.name);
            let label = rule.name.to_string().into();
            snapshot.route_rules.insert(id, label);
        }
        for service in objects.services.values() {
            self.entries(service, &mut snapshot)?;
        }
        Ok(snapshot)
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
            let former = former.services.get(&id).map(Arc::as_ref);
            let view = service::view(objects, service, port, id, former);
            snapshot.services.insert(id, Arc::new(view));
        }
    }

    /// The kernel's entries of a service; what its rules make of the sources is known.
    fn entries(&mut self, service: &Service, snapshot: &mut Snapshot) -> Result<(), NoRoom> {
        let network = self.ids.network(&service.network);
        for port in &service.ports {
            let id = self.ids.service(&service.name, port.port);
            let Some(view) = snapshot.services.get(&id).map(Arc::clone) else {
                continue;
            };
            // A family that nobody can dial gets no tables: they would only take room.
            let mut of_family: BTreeMap<bool, ServiceEntry> = BTreeMap::new();
            for ip in &service.cluster_ips {
                let entry = match of_family.entry(ip.is_ipv4()) {
                    Entry::Occupied(placed) => *placed.get(),
                    Entry::Vacant(vacant) => {
                        let mut placing = balanced::Placing {
                            ids: &mut self.ids,
                            blocks: &mut self.blocks,
                            tables: &mut snapshot.tables,
                            dialled: Addr::from(*ip),
                        };
                        *vacant.insert(placing.entry(&view, &snapshot.sources)?)
                    }
                };
                let key = ServiceKey {
                    network,
                    addr: Addr::from(*ip),
                    port: port.port,
                    pad: 0,
                };
                snapshot.tables.services.insert(key, entry);
            }
        }
        Ok(())
    }

    /// What every address is.
    fn addresses(&mut self, objects: &Objects, tables: &mut TableSet) {
        for service in objects.services.values() {
            let network = self.ids.network(&service.network);
            for ip in &service.cluster_ips {
                let key = AddressKey {
                    network,
                    addr: Addr::from(*ip),
                };
                tables
                    .addresses
                    .insert(key, AddressEntry::new(AddressKind::Service));
            }
        }
        for workload in objects.workloads.values() {
            let network = self.ids.network(&workload.network);
            for ip in &workload.addresses {
                let key = AddressKey {
                    network,
                    addr: Addr::from(*ip),
                };
                tables
                    .addresses
                    .insert(key, AddressEntry::new(AddressKind::Workload));
            }
        }
    }

    /// The egress prefixes of every class that an enrolled workload is in.
    fn policies(
        &mut self,
        objects: &Objects,
        pods: &BTreeMap<ObjectName, Arc<Pod>>,
        tables: &mut TableSet,
    ) {
        let mut classes: Vec<PolicyClass> = pods
            .keys()
            .filter_map(|name| objects.workloads.get(name))
            .map(|workload| class_of(objects, workload))
            .collect();
        classes.sort();
        classes.dedup();
        let mut in_use: HashMap<PortTable, PortTableId> = HashMap::new();
        for class in classes {
            let policy_set = self.ids.policy_set(&class);
            let rules = objects
                .egress_rules
                .values()
                .filter(|rule| class.contains(&selector_of(rule)));
            let rules: Vec<_> = rules
                .map(|rule| (self.ids.rule(&rule.name), rule.as_ref()))
                .collect();
            for ((bits, addr), table) in policy::compile(rules.into_iter()) {
                let port_table = self.ids.port_table(&table);
                let key = EgressKey { policy_set, addr };
                tables
                    .egress
                    .insert((32 + bits, key), EgressEntry { port_table });
                for (port, entry) in &table {
                    tables.egress_ports.insert(
                        PortKey {
                            port_table,
                            port: *port,
                            pad: 0,
                        },
                        *entry,
                    );
                }
                in_use.insert(table, port_table);
            }
        }
        self.ids.forget_port_tables(&in_use);
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
        let class = class_of(objects, workload);
        let mesh = Mesh::of(objects, &workload.name.namespace);
        let tables = &mut snapshot.tables;
        let mut entry = proxy_common::Workload {
            id,
            network,
            policy_set: self.ids.policy_set(&class),
            pending_max: PENDING_MAX,
            egress_default: mesh.egress as u8,
            on_proxy_down: mesh.on_proxy_down as u8,
            ..proxy_common::Workload::default()
        };
        for (slot, listener) in entry.listeners.iter_mut().zip(pod.listeners()) {
            *slot = *listener;
        }
        entry.listeners_len =
            u16::try_from(pod.listeners().len().min(LISTENERS_MAX)).expect("at most eight");
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
        canary(tables, network);
        let services: Vec<_> = objects
            .services
            .values()
            .filter(|service| service.owns(workload))
            .collect();
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
            hosts: self.hosts(objects, &class, snapshot),
            access_log: mesh.access_log,
            header_timeout: mesh.header_timeout,
            name: workload.name.clone(),
        };
        snapshot.sources.insert(id, Arc::new(source));
    }

    /// The rules on host names of a class.
    fn hosts(
        &mut self,
        objects: &Objects,
        class: &PolicyClass,
        snapshot: &Snapshot,
    ) -> Vec<Arc<EgressView>> {
        let of_class = |rule: &&Arc<EgressRule>| class.contains(&selector_of(rule));
        let rules = objects.egress_rules.values().filter(of_class);
        let views = rules.filter_map(|rule| snapshot.egress.get(&self.ids.rule(&rule.name)));
        views.filter(|view| view.hosts.is_some()).cloned().collect()
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

/// The canary's addresses are a service of every network that has a pod here.
fn canary(tables: &mut TableSet, network: proxy_common::NetworkId) {
    for addr in CANARY_ADDRS.map(Addr::from) {
        tables.addresses.insert(
            AddressKey { network, addr },
            AddressEntry::new(AddressKind::Service),
        );
        let key = ServiceKey {
            network,
            addr,
            port: CANARY_PORT,
            pad: 0,
        };
        tables.services.insert(key, ServiceEntry::proxied(CANARY));
    }
}

/// Whom a rule holds for.
fn selector_of(rule: &EgressRule) -> (String, Labels) {
    let namespace = rule
        .source
        .namespace
        .as_ref()
        .unwrap_or(&rule.name.namespace);
    (namespace.clone(), rule.source.labels.clone())
}

/// The selectors that pick a workload.
fn class_of(objects: &Objects, workload: &Workload) -> PolicyClass {
    let picks = |(namespace, labels): &(String, Labels)| {
        *namespace == workload.name.namespace && selects(labels, &workload.labels)
    };
    let mut class: PolicyClass = objects
        .egress_rules
        .values()
        .map(|rule| selector_of(rule))
        .filter(picks)
        .collect();
    class.sort();
    class.dedup();
    class
}
