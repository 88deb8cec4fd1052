//! What the objects say of each other. Owns the rules that no document can
//! break alone; `egress` holds the ones between egress rules. Must never
//! change anything.

mod egress;
mod routes;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use super::index::Owner;
use super::mistake::{Mistake, Mistakes, Warning, Warnings};
use super::object::{ObjectName, Service, Workload};
use super::{Kind, Objects};

const SERVICES_MAX: usize = 50_000;
const WORKLOADS_MAX: usize = 250_000;
const ROUTE_RULES_MAX: usize = 10_000;
const EGRESS_RULES_MAX: usize = 250_000;
const MESH_CONFIGS_MAX: usize = 1_000;

/// Whether the set holds together. `former` does: what is in both unchanged
/// was found to fit.
pub(super) fn check(objects: &Objects, former: &Objects) -> Result<Vec<Warning>, Mistakes> {
    let mut findings = Findings::default();
    counts(objects, &mut findings);
    // A set too large is not looked at any further.
    if !findings.mistakes.is_empty() {
        return Err(findings.mistakes);
    }
    addresses(objects, former, &mut findings);
    services(objects, &mut findings);
    routes::check(objects, &mut findings);
    egress::check(objects, former, &mut findings);
    mesh_configs(objects, &mut findings);
    findings.mistakes.or(findings.warnings.into_vec())
}

#[derive(Default)]
struct Findings {
    mistakes: Mistakes,
    warnings: Warnings,
}

impl Findings {
    fn mistake(
        &mut self,
        kind: Kind,
        name: &ObjectName,
        path: &str,
        value: &dyn Display,
        expected: String,
    ) {
        self.mistakes.push(Mistake {
            source: None,
            document: None,
            object: Some(format!("{kind} {name}")),
            path: path.to_owned(),
            value: Some(value.to_string()),
            expected,
        });
    }

    fn warn(&mut self, kind: Kind, name: &ObjectName, path: &str, message: String) {
        self.warnings.push(Warning {
            source: None,
            document: None,
            object: Some(format!("{kind} {name}")),
            path: path.to_owned(),
            message,
        });
    }
}

fn counts(objects: &Objects, findings: &mut Findings) {
    for (kind, count, max) in [
        (Kind::Service, objects.services.len(), SERVICES_MAX),
        (Kind::Workload, objects.workloads.len(), WORKLOADS_MAX),
        (Kind::RouteRule, objects.route_rules.len(), ROUTE_RULES_MAX),
        (
            Kind::EgressRule,
            objects.egress_rules.len(),
            EGRESS_RULES_MAX,
        ),
        (
            Kind::MeshConfig,
            objects.mesh_configs.len(),
            MESH_CONFIGS_MAX,
        ),
    ] {
        if count > max {
            findings.mistakes.push(Mistake {
                source: None,
                document: None,
                object: None,
                path: kind.plural().to_owned(),
                value: Some(count.to_string()),
                expected: format!("at most {max} on one node"),
            });
        }
    }
}

/// The objects of one kind that are new or not what they were.
fn changed<'a, T: PartialEq>(
    former: &OrdMap<ObjectName, Arc<T>>,
    next: &'a OrdMap<ObjectName, Arc<T>>,
) -> BTreeMap<&'a ObjectName, &'a Arc<T>> {
    let new = former.diff(next).filter_map(|item| match item {
        DiffItem::Add(name, object) => Some((name, object)),
        DiffItem::Update { new, .. } => Some(new),
        DiffItem::Remove(..) => None,
    });
    new.collect()
}

/// Every address means one thing: a port of one service, or one workload.
fn addresses(objects: &Objects, former: &Objects, findings: &mut Findings) {
    // As a rule, and of many objects each costs a look.
    if !objects.index().inventory.has_shared_addresses() {
        return;
    }
    let changed = Newcomers {
        workloads: changed(&former.workloads, &objects.workloads),
        services: changed(&former.services, &objects.services),
    };
    for workload in changed.workloads.values() {
        for address in &workload.addresses {
            for owner in objects
                .index()
                .inventory
                .owners(&workload.network, *address)
            {
                changed.workload(workload, *address, owner, findings);
            }
        }
    }
    for service in changed.services.values() {
        for address in &service.cluster_ips {
            for owner in objects.index().inventory.owners(&service.network, *address) {
                changed.service(service, *address, owner, findings);
            }
        }
    }
}

/// What an apply brings. Of two newcomers that want one thing the second is
/// at fault, by name; beside a newcomer, whoever was there is not.
struct Newcomers<'a> {
    workloads: BTreeMap<&'a ObjectName, &'a Arc<Workload>>,
    services: BTreeMap<&'a ObjectName, &'a Arc<Service>>,
}

impl Newcomers<'_> {
    fn workload(
        &self,
        workload: &Workload,
        address: IpAddr,
        owner: &Owner,
        findings: &mut Findings,
    ) {
        let name = &workload.name;
        match owner {
            Owner::Workload(other)
                if other.name < *name
                    || (other.name != *name && !self.workloads.contains_key(&other.name)) =>
            {
                let other = &other.name;
                let expected = format!(
                    "an address of its own: Workload {other} has it too; put one in another `network`"
                );
                findings.mistake(Kind::Workload, name, "spec.addresses", &address, expected);
            }
            Owner::Service(service) if !self.services.contains_key(&service.name) => {
                not_virtual(service, address, workload, findings);
            }
            Owner::Workload(_) | Owner::Service(_) => {}
        }
    }

    fn service(&self, service: &Service, address: IpAddr, owner: &Owner, findings: &mut Findings) {
        let name = &service.name;
        let other = match owner {
            Owner::Workload(workload) => return not_virtual(service, address, workload, findings),
            Owner::Service(other) => other,
        };
        let at_fault =
            other.name < *name || (other.name != *name && !self.services.contains_key(&other.name));
        if !at_fault {
            return;
        }
        let both = |port: &&super::object::ServicePort| {
            other.ports.iter().any(|theirs| theirs.key() == port.key())
        };
        for port in service.ports.iter().filter(both) {
            let value = format!("{address} port {}", port.port);
            let expected = format!(
                "an address and port of its own: Service {} has both too",
                other.name
            );
            findings.mistake(Kind::Service, name, "spec.clusterIPs", &value, expected);
        }
    }
}

fn not_virtual(service: &Service, address: IpAddr, workload: &Workload, findings: &mut Findings) {
    let expected = format!(
        "a virtual address: it is that of Workload {}",
        workload.name
    );
    findings.mistake(
        Kind::Service,
        &service.name,
        "spec.clusterIPs",
        &address,
        expected,
    );
}

fn services(objects: &Objects, findings: &mut Findings) {
    for (name, service) in &objects.services {
        if service.cluster_ips.is_empty() {
            let message =
                "no virtual address: nothing can be dialled to reach it through weir".to_owned();
            findings.warn(Kind::Service, name, "spec.clusterIPs", message);
        }
    }
}

fn mesh_configs(objects: &Objects, findings: &mut Findings) {
    for name in objects.mesh_configs.keys() {
        if name.name() != "default"
            && !is_inhabited(&objects.services, name.name())
            && !is_inhabited(&objects.workloads, name.name())
        {
            let message = format!(
                "nothing is in a namespace `{}`, which it is for",
                name.name()
            );
            findings.warn(Kind::MeshConfig, name, "metadata.name", message);
        }
    }
}

/// Whether one of the objects is in the namespace.
fn is_inhabited<T>(objects: &OrdMap<ObjectName, Arc<T>>, namespace: &str) -> bool {
    let first = objects.range(ObjectName::new(namespace, "")..).next();
    first.is_some_and(|(name, _)| name.namespace() == namespace)
}

#[cfg(test)]
mod tests;
