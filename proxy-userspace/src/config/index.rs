//! What objects are asked for other than by name: who belongs to whom, who has
//! which address, which egress rules speak of one port.
//!
//! Kept in step by [`super::Objects`] with every change of one object, and
//! shared between its copies like the objects themselves, so that a change
//! never costs a look at all of them. Must never decide anything.

use std::cmp::Ordering;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use imbl::{HashMap, OrdMap, OrdSet};

use super::object::{
    EgressProtocol, EgressRule, EgressTarget, Labels, ObjectName, RouteRule, Service, Workload,
};

/// Whom an egress rule holds for: a namespace, and labels in it.
pub type EgressSelector = (String, Labels);

/// An object that sorts by its name.
#[derive(Debug)]
pub struct Named<T>(Arc<T>);

/// What has a name within its kind.
pub trait HasName {
    /// That name.
    fn object_name(&self) -> &ObjectName;
}

macro_rules! has_name {
    ($($kind:ty),*) => { $(
        impl HasName for $kind {
            fn object_name(&self) -> &ObjectName {
                &self.name
            }
        }
    )* };
}
has_name!(Service, Workload, RouteRule, EgressRule);

impl<T> Clone for Named<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Named<T> {
    type Target = Arc<T>;

    fn deref(&self) -> &Arc<T> {
        &self.0
    }
}

impl<T: HasName> Ord for Named<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.object_name().cmp(other.0.object_name())
    }
}

impl<T: HasName> PartialOrd for Named<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: HasName> PartialEq for Named<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T: HasName> Eq for Named<T> {}

/// Who has an address.
#[derive(Clone, Debug)]
pub enum Owner {
    /// It is the workload's own.
    Workload(Arc<Workload>),
    /// It is one of the service's virtual ones.
    Service(Arc<Service>),
}

impl Owner {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Workload(one), Self::Workload(other)) => one.name == other.name,
            (Self::Service(one), Self::Service(other)) => one.name == other.name,
            _ => false,
        }
    }
}

/// The rules on addresses that open one port for one namespace.
#[derive(Clone, Debug, Default)]
pub struct OpenedPort {
    http: usize,
    tcp: usize,
    udp: usize,
    /// By network address, then length: a prefix stands before all that it covers.
    pub prefixes: OrdMap<(IpAddr, u8), OrdSet<Named<EgressRule>>>,
}

impl OpenedPort {
    /// Whether both protocols of TCP are there: else no two rules contradict each other.
    pub fn is_mixed(&self) -> bool {
        self.http > 0 && self.tcp > 0
    }

    fn count(&mut self, protocol: EgressProtocol) -> &mut usize {
        match protocol {
            EgressProtocol::Http => &mut self.http,
            EgressProtocol::Tcp => &mut self.tcp,
            EgressProtocol::Udp => &mut self.udp,
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Index {
    local: OrdMap<ObjectName, Arc<Workload>>,
    /// By the hash of namespace, key and value: whoever asks looks again.
    labelled: HashMap<u64, OrdSet<Named<Workload>>>,
    /// By the hash of namespace and the first pair of the selector.
    selecting: HashMap<u64, OrdSet<Named<Service>>>,
    routed: OrdMap<ObjectName, OrdSet<Named<RouteRule>>>,
    owners: HashMap<(String, IpAddr), Vec<Owner>>,
    selectors: OrdMap<EgressSelector, usize>,
    on_names: OrdSet<Named<EgressRule>>,
    opened: OrdMap<(String, u16), OpenedPort>,
}

impl Index {
    /// The workloads of this node.
    pub fn local(&self) -> &OrdMap<ObjectName, Arc<Workload>> {
        &self.local
    }

    /// The workloads that a service picks, ready or not, by name.
    pub fn members<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = &'a Arc<Workload>> {
        let sets = service
            .selector
            .iter()
            .map(|pair| self.labelled.get(&hash(&service.name.namespace, pair)));
        // The smallest set that every member must be in; none if one is empty.
        let smallest = sets.min_by_key(|set| set.map_or(0, OrdSet::len)).flatten();
        smallest
            .into_iter()
            .flatten()
            .map(|named| &named.0)
            .filter(|workload| service.owns(workload))
    }

    /// The services that pick a workload.
    pub fn services_of<'a>(
        &'a self,
        workload: &'a Workload,
    ) -> impl Iterator<Item = &'a Arc<Service>> {
        workload
            .labels
            .iter()
            .filter_map(|pair| self.selecting.get(&hash(&workload.name.namespace, pair)))
            .flatten()
            .map(|named| &named.0)
            .filter(|service| service.owns(workload))
    }

    /// The route rules for a service, by name.
    pub fn rules_for(&self, service: &ObjectName) -> impl Iterator<Item = &Arc<RouteRule>> {
        self.routed
            .get(service)
            .into_iter()
            .flatten()
            .map(|named| &named.0)
    }

    /// Everybody who has an address in a network: one, once it was checked,
    /// but for services that share an address and not a port.
    pub fn owners(&self, network: &str, addr: IpAddr) -> &[Owner] {
        self.owners
            .get(&(network.to_owned(), addr))
            .map_or(&[], Vec::as_slice)
    }

    /// The selectors of egress rules that pick a workload, in order.
    pub fn egress_selectors_of(&self, workload: &Workload) -> Vec<EgressSelector> {
        self.selectors
            .keys()
            .filter(|(namespace, labels)| {
                *namespace == workload.name.namespace
                    && super::object::selects(labels, &workload.labels)
            })
            .cloned()
            .collect()
    }

    /// The egress rules on host names, by name.
    pub fn on_names(&self) -> impl Iterator<Item = &Arc<EgressRule>> {
        self.on_names.iter().map(|named| &named.0)
    }

    /// The rules on addresses that open a port for a namespace.
    pub fn opened(&self, namespace: &str, port: u16) -> Option<&OpenedPort> {
        self.opened.get(&(namespace.to_owned(), port))
    }

    pub(super) fn add_service(&mut self, service: &Arc<Service>) {
        if let Some(pair) = service.selector.first_key_value() {
            self.selecting
                .entry(hash(&service.name.namespace, pair))
                .or_default()
                .insert(Named(Arc::clone(service)));
        }
        for addr in &service.cluster_ips {
            let owner = Owner::Service(Arc::clone(service));
            self.own(&service.network, *addr, owner);
        }
    }

    pub(super) fn remove_service(&mut self, service: &Arc<Service>) {
        if let Some(pair) = service.selector.first_key_value() {
            let key = hash(&service.name.namespace, pair);
            if let Some(set) = self.selecting.get_mut(&key) {
                set.remove(&Named(Arc::clone(service)));
                if set.is_empty() {
                    self.selecting.remove(&key);
                }
            }
        }
        for addr in &service.cluster_ips {
            let owner = Owner::Service(Arc::clone(service));
            self.disown(&service.network, *addr, &owner);
        }
    }

    pub(super) fn add_workload(&mut self, workload: &Arc<Workload>) {
        if workload.local.is_some() {
            self.local
                .insert(workload.name.clone(), Arc::clone(workload));
        }
        for pair in &workload.labels {
            self.labelled
                .entry(hash(&workload.name.namespace, pair))
                .or_default()
                .insert(Named(Arc::clone(workload)));
        }
        for addr in &workload.addresses {
            let owner = Owner::Workload(Arc::clone(workload));
            self.own(&workload.network, *addr, owner);
        }
    }

    pub(super) fn remove_workload(&mut self, workload: &Arc<Workload>) {
        self.local.remove(&workload.name);
        for pair in &workload.labels {
            let key = hash(&workload.name.namespace, pair);
            if let Some(set) = self.labelled.get_mut(&key) {
                set.remove(&Named(Arc::clone(workload)));
                if set.is_empty() {
                    self.labelled.remove(&key);
                }
            }
        }
        for addr in &workload.addresses {
            let owner = Owner::Workload(Arc::clone(workload));
            self.disown(&workload.network, *addr, &owner);
        }
    }

    pub(super) fn add_route_rule(&mut self, rule: &Arc<RouteRule>) {
        self.routed
            .entry(rule.destination.clone())
            .or_default()
            .insert(Named(Arc::clone(rule)));
    }

    pub(super) fn remove_route_rule(&mut self, rule: &Arc<RouteRule>) {
        if let Some(set) = self.routed.get_mut(&rule.destination) {
            set.remove(&Named(Arc::clone(rule)));
            if set.is_empty() {
                self.routed.remove(&rule.destination);
            }
        }
    }

    pub(super) fn add_egress_rule(&mut self, rule: &Arc<EgressRule>) {
        *self.selectors.entry(rule.selector()).or_default() += 1;
        let EgressTarget::Net(addr, length) = rule.target else {
            self.on_names.insert(Named(Arc::clone(rule)));
            return;
        };
        for (port, protocol) in &rule.ports {
            let opened = self
                .opened
                .entry((rule.source_namespace().to_owned(), port.0))
                .or_default();
            *opened.count(*protocol) += 1;
            opened
                .prefixes
                .entry((addr, length))
                .or_default()
                .insert(Named(Arc::clone(rule)));
        }
    }

    pub(super) fn remove_egress_rule(&mut self, rule: &Arc<EgressRule>) {
        let selector = rule.selector();
        if let Some(count) = self.selectors.get_mut(&selector) {
            *count -= 1;
            if *count == 0 {
                self.selectors.remove(&selector);
            }
        }
        let EgressTarget::Net(addr, length) = rule.target else {
            self.on_names.remove(&Named(Arc::clone(rule)));
            return;
        };
        for (port, protocol) in &rule.ports {
            let key = (rule.source_namespace().to_owned(), port.0);
            let Some(opened) = self.opened.get_mut(&key) else {
                continue;
            };
            *opened.count(*protocol) -= 1;
            if let Some(set) = opened.prefixes.get_mut(&(addr, length)) {
                set.remove(&Named(Arc::clone(rule)));
                if set.is_empty() {
                    opened.prefixes.remove(&(addr, length));
                }
            }
            if opened.prefixes.is_empty() {
                self.opened.remove(&key);
            }
        }
    }

    /// Takes over what is known of the rules of `other`.
    pub(super) fn replace_rules(&mut self, other: &Self) {
        self.routed.clone_from(&other.routed);
        self.selectors.clone_from(&other.selectors);
        self.on_names.clone_from(&other.on_names);
        self.opened.clone_from(&other.opened);
    }

    fn own(&mut self, network: &str, addr: IpAddr, owner: Owner) {
        self.owners
            .entry((network.to_owned(), addr))
            .or_default()
            .push(owner);
    }

    fn disown(&mut self, network: &str, addr: IpAddr, owner: &Owner) {
        let key = (network.to_owned(), addr);
        if let Some(owners) = self.owners.get_mut(&key) {
            owners.retain(|other| !other.is(owner));
            if owners.is_empty() {
                self.owners.remove(&key);
            }
        }
    }
}

fn hash(namespace: &str, (key, value): (&String, &String)) -> u64 {
    let mut hasher = DefaultHasher::new();
    (namespace, key, value).hash(&mut hasher);
    hasher.finish()
}
