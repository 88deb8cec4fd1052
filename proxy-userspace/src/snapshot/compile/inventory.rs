//! Services and workloads, compiled: the views of services, the kernel's entries,
//! what each source gets of those that tell sources apart, and whose each address is.
//!
//! Owns their numbers, and what of them has to be made again after a change. Must never leave a
//! table of a service that has changed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use proxy_common::{
    Addr, AddressEntry, AddressKey, AddressKind, Destination, NetworkId, ServiceAction,
    ServiceEntry, ServiceKey, WorkloadId,
};

use super::edits;
use crate::balance::{Blocks, NoRoom};
use crate::config::object::{AppProtocol, ObjectName, Service, ServicePort};
use crate::config::{Objects, Owner};
use crate::snapshot::ids::{self, Ids};
use crate::snapshot::{BySource, ServiceView, Snapshot, Source, balanced, service};
use crate::tables::TableSet;

/// What compiles services and workloads.
#[derive(Debug)]
pub(super) struct Inventory {
    pub(super) ids: Ids,
    pub(super) blocks: Blocks,
}

impl Inventory {
    /// One whose tables have place in `capacity` endpoint slots.
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            ids: Ids::default(),
            blocks: Blocks::new(capacity, ids::base()),
        }
    }

    /// Goes from what `former` holds to what `objects` ask for.
    pub(super) fn compile(
        &mut self,
        objects: &Objects,
        former: &Snapshot,
        snapshot: &mut Snapshot,
    ) -> Result<(), NoRoom> {
        let before = &former.basis.objects;
        self.route_rules(objects, before, snapshot);
        self.services(objects, before, former, snapshot)?;
        self.addresses(objects, before, &mut snapshot.tables);
        Ok(())
    }

    /// What each source gets of the balanced services that tell sources apart:
    /// of every service that changed, and for every source that did.
    pub(super) fn routes(
        &mut self,
        former: &Snapshot,
        snapshot: &mut Snapshot,
    ) -> Result<(), NoRoom> {
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

    /// What every address is. Whoever has one says so; who has one that somebody
    /// gave up has to be looked for.
    fn addresses(&mut self, objects: &Objects, before: &Objects, tables: &mut TableSet) {
        for (old, new) in edits(&before.services, &objects.services) {
            if let Some(service) = old {
                for ip in &service.cluster_ips {
                    self.given_up(objects, &service.network, *ip, tables);
                }
            }
            if let Some(service) = new {
                let network = self.ids.network(&service.network);
                let all = service.cluster_ips.iter();
                put_addresses(network, all, AddressKind::Service, tables);
            }
        }
        for (old, new) in edits(&before.workloads, &objects.workloads) {
            if let Some(workload) = old {
                for ip in &workload.addresses {
                    self.given_up(objects, &workload.network, *ip, tables);
                }
            }
            if let Some(workload) = new {
                let network = self.ids.network(&workload.network);
                let all = workload.addresses.iter();
                put_addresses(network, all, AddressKind::Workload, tables);
            }
        }
    }

    fn given_up(&mut self, objects: &Objects, network: &str, ip: IpAddr, tables: &mut TableSet) {
        let id = self.ids.network(network);
        let kind = match objects.index().inventory.owners(network, ip).first() {
            Some(Owner::Service(_)) => AddressKind::Service,
            Some(Owner::Workload(_)) => AddressKind::Workload,
            None => {
                let addr = Addr::from(ip);
                tables.addresses.remove(&AddressKey { network: id, addr });
                return;
            }
        };
        put_addresses(id, [&ip], kind, tables);
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
            if let Some(service) = before.services.get(*name) {
                for port in &service.ports {
                    let id = self.ids.service(&service.name, port.key());
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
            if let Some(service) = before.services.get(*name) {
                let mut ports = service.ports.iter();
                snapshot.touches_udp |= ports.any(|port| port.protocol == AppProtocol::Udp);
                left.extend(self.endpoints(service, former));
            }
        }
        for name in &affected {
            if let Some(service) = objects.services.get(*name) {
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
            let id = self.ids.service(&service.name, port.key());
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
            let id = self.ids.service(&service.name, port.key());
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
        let (port, transport) = port.key();
        let addresses = service.cluster_ips.iter();
        let key = |ip: &IpAddr| {
            let addr = Addr::from(*ip);
            ServiceKey::new(network, Destination { addr, port }, transport)
        };
        addresses.map(key).collect()
    }
}

fn put_addresses<'a>(
    network: NetworkId,
    all: impl IntoIterator<Item = &'a IpAddr>,
    kind: AddressKind,
    tables: &mut TableSet,
) {
    for ip in all {
        let addr = Addr::from(*ip);
        let key = AddressKey { network, addr };
        tables.addresses.insert(key, AddressEntry::new(kind));
    }
}

/// The services whose views are not what they were.
fn affected<'a>(objects: &'a Objects, before: &'a Objects) -> BTreeSet<&'a ObjectName> {
    let mut affected = BTreeSet::new();
    for (old, new) in edits(&before.services, &objects.services) {
        affected.extend(old.or(new).map(|service| &service.name));
    }
    // A service has many workloads, and its name is looked for once.
    let mut picking: HashMap<*const Service, &ObjectName> = HashMap::new();
    for (old, new) in edits(&before.workloads, &objects.workloads) {
        for (workload, set) in [(old, before), (new, objects)] {
            let services = workload.map(|workload| set.index().inventory.services_of(workload));
            let services = services.into_iter().flatten();
            picking.extend(services.map(|service| (Arc::as_ptr(service), &service.name)));
        }
    }
    affected.extend(picking.into_values());
    for (old, new) in edits(&before.route_rules, &objects.route_rules) {
        let rules = old.into_iter().chain(new);
        affected.extend(rules.map(|rule| &rule.destination));
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
