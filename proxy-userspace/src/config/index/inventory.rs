//! Services and workloads, asked for other than by name.

use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::DefaultHashBuilder;
use imbl::shared_ptr::DefaultSharedPtr;
use imbl::{GenericHashMap, OrdMap, OrdSet};

use super::Named;
use crate::config::object::{ObjectName, Service, Workload};

/// Of a hundred thousand addresses each is hashed: with a quicker function than
/// the usual one, seeded as that is.
type HashMap<K, V> = GenericHashMap<K, V, DefaultHashBuilder, DefaultSharedPtr>;

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

/// Who belongs to whom, and who has which address.
#[derive(Clone, Debug, Default)]
pub struct InventoryIndex {
    local: OrdMap<ObjectName, Arc<Workload>>,
    /// Of the two below.
    hasher: DefaultHashBuilder,
    /// By the hash of namespace, key and value: whoever asks looks again.
    labelled: HashMap<u64, OrdSet<Named<Workload>>>,
    /// By the hash of namespace and the first pair of the selector.
    selecting: HashMap<u64, OrdSet<Named<Service>>>,
    owners: HashMap<(String, IpAddr), Vec<Owner>>,
    /// How many addresses have more than one owner.
    shared: usize,
}

impl InventoryIndex {
    /// The workloads of this node.
    pub fn local(&self) -> &OrdMap<ObjectName, Arc<Workload>> {
        &self.local
    }

    /// The workloads that a service picks, ready or not, by name.
    pub fn members<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = &'a Arc<Workload>> {
        let sets = service.selector.iter().map(|pair| {
            self.labelled
                .get(&self.hash(service.name.namespace(), pair))
        });
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
            .filter_map(|pair| {
                self.selecting
                    .get(&self.hash(workload.name.namespace(), pair))
            })
            .flatten()
            .map(|named| &named.0)
            .filter(|service| service.owns(workload))
    }

    /// Everybody who has an address in a network: one, once it was checked,
    /// but for services that share an address and not a port.
    pub fn owners(&self, network: &str, addr: IpAddr) -> &[Owner] {
        self.owners
            .get(&(network.to_owned(), addr))
            .map_or(&[], Vec::as_slice)
    }

    /// Whether any address has more than one owner: else each means one thing.
    pub fn has_shared_addresses(&self) -> bool {
        self.shared > 0
    }

    pub(in crate::config) fn add_service(&mut self, service: &Arc<Service>) {
        if let Some(pair) = service.selector.first_key_value() {
            let key = self.hash(service.name.namespace(), pair);
            self.selecting
                .entry(key)
                .or_default()
                .insert(Named(Arc::clone(service)));
        }
        for addr in &service.cluster_ips {
            let owner = Owner::Service(Arc::clone(service));
            self.own(&service.network, *addr, owner);
        }
    }

    pub(in crate::config) fn remove_service(&mut self, service: &Arc<Service>) {
        if let Some(pair) = service.selector.first_key_value() {
            let key = self.hash(service.name.namespace(), pair);
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

    pub(in crate::config) fn add_workload(&mut self, workload: &Arc<Workload>) {
        if workload.local.is_some() {
            self.local
                .insert(workload.name.clone(), Arc::clone(workload));
        }
        for pair in &workload.labels {
            let key = self.hash(workload.name.namespace(), pair);
            self.labelled
                .entry(key)
                .or_default()
                .insert(Named(Arc::clone(workload)));
        }
        for addr in &workload.addresses {
            let owner = Owner::Workload(Arc::clone(workload));
            self.own(&workload.network, *addr, owner);
        }
    }

    pub(in crate::config) fn remove_workload(&mut self, workload: &Arc<Workload>) {
        self.local.remove(&workload.name);
        for pair in &workload.labels {
            let key = self.hash(workload.name.namespace(), pair);
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

    fn hash(&self, namespace: &str, (key, value): (&String, &String)) -> u64 {
        self.hasher.hash_one((namespace, key, value))
    }

    fn own(&mut self, network: &str, addr: IpAddr, owner: Owner) {
        let owners = self.owners.entry((network.to_owned(), addr));
        let owners = owners.or_insert_with(|| Vec::with_capacity(1));
        owners.push(owner);
        self.shared += usize::from(owners.len() == 2);
    }

    fn disown(&mut self, network: &str, addr: IpAddr, owner: &Owner) {
        let key = (network.to_owned(), addr);
        if let Some(owners) = self.owners.get_mut(&key) {
            let before = owners.len();
            owners.retain(|other| !other.is(owner));
            self.shared -= usize::from(before > 1 && owners.len() < 2);
            if owners.is_empty() {
                self.owners.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::object::Labels;

    fn workload(name: &str, addresses: &[&str]) -> Arc<Workload> {
        Arc::new(Workload {
            name: ObjectName::new("default", name),
            labels: Labels::new(),
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
            ready: true,
            network: String::new(),
            node: None,
            local: None,
            accelerate: None,
        })
    }

    #[test]
    fn an_address_is_shared_as_long_as_two_have_it() {
        let three = [
            workload("a", &["10.0.0.1", "fd00::1"]),
            workload("b", &["10.0.0.1"]),
            workload("c", &["10.0.0.1", "10.0.0.2"]),
        ];
        let mut index = InventoryIndex::default();
        for (workload, shared) in three.iter().zip([false, true, true]) {
            index.add_workload(workload);
            assert_eq!(index.has_shared_addresses(), shared);
        }
        for (workload, shared) in three.iter().zip([true, false, false]) {
            index.remove_workload(workload);
            assert_eq!(index.has_shared_addresses(), shared);
        }
    }
}
