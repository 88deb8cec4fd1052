//! Objects in, snapshot out.
//!
//! Owns the numbers ([`Ids`]) and carries the counters of what did not change,
//! so that an unrelated apply does not start anybody's turn again. Must never
//! touch the kernel or a socket.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use proxy_common::{
    Addr, AddressEntry, AddressKey, AddressKind, EgressEntry, EgressKey, LISTENERS_MAX, LocalKey,
    PortKey, PortTableId, ServiceEntry, ServiceKey,
};

use super::ids::{Ids, PolicyClass, PortTable};
use super::{CANARY, EgressView, Snapshot, Source, service};
use crate::config::Objects;
use crate::config::object::{
    EgressRule, EgressTarget, Labels, MeshConfig, ObjectName, Service, Workload, selects,
};
use crate::egress::host::{HostName, HostPattern};
use crate::egress::policy;
use crate::node::{CANARY_ADDRS, CANARY_PORT, Pod};
use crate::tables::TableSet;

/// Pending flows that one workload may have: what a busy pod needs many times
/// over, and a fraction of what the node's table holds.
const PENDING_MAX: u32 = 4_096;

/// Time to send a request head, unless a `MeshConfig` says otherwise.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

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
}

/// Makes snapshots, one after the other.
#[derive(Debug, Default)]
pub struct Compiler {
    ids: Ids,
}

impl Compiler {
    /// The snapshot of `input`; `former` is the one in force.
    pub fn compile(&mut self, input: Input<'_>, former: &Snapshot) -> Snapshot {
        let Input {
            objects,
            pods,
            generation,
            revision,
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
        snapshot
    }

    fn service(
        &mut self,
        objects: &Objects,
        service: &Service,
        former: &Snapshot,
        snapshot: &mut Snapshot,
    ) {
        let network = self.ids.network(&service.network);
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
            for ip in &service.cluster_ips {
                let key = ServiceKey {
                    network,
                    addr: Addr::from(*ip),
                    port: port.port,
                    pad: 0,
                };
                snapshot
                    .tables
                    .services
                    .insert(key, ServiceEntry { service: id });
            }
        }
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
        tables
            .services
            .insert(key, ServiceEntry { service: CANARY });
    }
}

/// The mesh-wide settings that hold in one namespace.
struct Mesh {
    egress: proxy_common::EgressDefault,
    on_proxy_down: proxy_common::OnProxyDown,
    access_log: bool,
    header_timeout: Duration,
}

impl Mesh {
    fn of(objects: &Objects, namespace: &str) -> Self {
        let named = |name: &str| {
            objects
                .mesh_configs
                .values()
                .find(|mesh| mesh.name.name == name)
        };
        let own = named(namespace).filter(|_| namespace != "default");
        let layers = [own, named("default")];
        Self {
            egress: first(&layers, |mesh| mesh.egress).unwrap_or_default(),
            on_proxy_down: first(&layers, |mesh| mesh.on_proxy_down).unwrap_or_default(),
            access_log: first(&layers, |mesh| mesh.access_log).unwrap_or(true),
            header_timeout: first(&layers, |mesh| mesh.header_timeout).unwrap_or(HEADER_TIMEOUT),
        }
    }
}

/// The first layer's value that is set.
fn first<T>(
    layers: &[Option<&Arc<MeshConfig>>],
    field: impl Fn(&MeshConfig) -> Option<T>,
) -> Option<T> {
    layers.iter().flatten().find_map(|mesh| field(mesh))
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
