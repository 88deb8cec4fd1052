//! What the objects say of each other. Owns the rules that no document can
//! break alone; `egress` holds the ones between egress rules. Must never
//! change anything.

mod egress;
mod routes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::IpAddr;

use super::mistake::{Mistake, Mistakes, Warning, Warnings};
use super::object::ObjectName;
use super::{Kind, Objects};

const SERVICES_MAX: usize = 10_000;
const WORKLOADS_MAX: usize = 100_000;
const ROUTE_RULES_MAX: usize = 10_000;
const EGRESS_RULES_MAX: usize = 100_000;
const MESH_CONFIGS_MAX: usize = 1_000;

/// Whether the set holds together.
pub(super) fn check(objects: &Objects) -> Result<Vec<Warning>, Mistakes> {
    let mut findings = Findings::default();
    counts(objects, &mut findings);
    // A set too large is not looked at any further.
    if !findings.mistakes.is_empty() {
        return Err(findings.mistakes);
    }
    addresses(objects, &mut findings);
    services(objects, &mut findings);
    routes::check(objects, &mut findings);
    egress::check(objects, &mut findings);
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

/// An address, within the network that gives it a meaning.
type Place<'a> = (&'a str, IpAddr);

/// Every address means one thing: a port of one service, or one workload.
fn addresses(objects: &Objects, findings: &mut Findings) {
    let mut owners: BTreeMap<Place<'_>, &ObjectName> = BTreeMap::new();
    for (name, workload) in &objects.workloads {
        for address in &workload.addresses {
            if let Some(other) = owners.insert((&workload.network, *address), name) {
                let expected = format!(
                    "an address of its own: Workload {other} has it too; put one in another `network`"
                );
                findings.mistake(Kind::Workload, name, "spec.addresses", address, expected);
            }
        }
    }
    let mut ports: BTreeMap<(Place<'_>, u16), &ObjectName> = BTreeMap::new();
    for (name, service) in &objects.services {
        for address in &service.cluster_ips {
            let place = (service.network.as_str(), *address);
            if let Some(other) = owners.get(&place) {
                let expected = format!("a virtual address: it is that of Workload {other}");
                findings.mistake(Kind::Service, name, "spec.clusterIPs", address, expected);
            }
            for port in &service.ports {
                if let Some(other) = ports.insert((place, port.port.0), name) {
                    let value = format!("{address} port {}", port.port);
                    let expected =
                        format!("an address and port of its own: Service {other} has both too");
                    findings.mistake(Kind::Service, name, "spec.clusterIPs", &value, expected);
                }
            }
        }
    }
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
    if objects.mesh_configs.is_empty() {
        return;
    }
    let known: BTreeSet<&str> = objects
        .services
        .keys()
        .chain(objects.workloads.keys())
        .map(|name| name.namespace.as_str())
        .collect();
    for name in objects.mesh_configs.keys() {
        if name.name != "default" && !known.contains(name.name.as_str()) {
            let message = format!("nothing is in a namespace `{}`, which it is for", name.name);
            findings.warn(Kind::MeshConfig, name, "metadata.name", message);
        }
    }
}

#[cfg(test)]
mod tests;
