//! Route rules against the services and workloads they speak of.

use std::collections::BTreeMap;

use super::Findings;
use crate::config::object::{
    AppProtocol, Labels, ObjectName, RouteRule, Service, Workload, selects,
};
use crate::config::{Kind, Objects};

pub(super) fn check(objects: &Objects, findings: &mut Findings) {
    if objects.route_rules.is_empty() {
        return;
    }
    let index = WorkloadIndex::new(objects);
    for (name, rule) in &objects.route_rules {
        let Some(service) = objects.services.get(&rule.destination) else {
            let message = format!(
                "there is no Service {}; the rule waits for it",
                rule.destination
            );
            findings.warn(Kind::RouteRule, name, "spec.destination", message);
            continue;
        };
        http_match(name, rule, service, findings);
        endpoints(name, rule, service, &index, findings);
    }
    ties(objects, findings);
}

/// Bytes have no headers: such a rule could never be kept.
fn http_match(name: &ObjectName, rule: &RouteRule, service: &Service, findings: &mut Findings) {
    let bytes_only = service
        .ports
        .iter()
        .all(|port| port.protocol == AppProtocol::Tcp);
    if !rule.request.is_empty() && bytes_only && !service.ports.is_empty() {
        let value = format!("Service {} has ports for tcp or tls only", service.name);
        let expected = "no match on the request, or a port that carries HTTP".to_owned();
        findings.mistake(
            Kind::RouteRule,
            name,
            "spec.match.request",
            &value,
            expected,
        );
    }
}

fn endpoints(
    name: &ObjectName,
    rule: &RouteRule,
    service: &Service,
    index: &WorkloadIndex<'_>,
    findings: &mut Findings,
) {
    let ready: Vec<_> = index.ready_of(service);
    for (position, route) in rule.routes.iter().enumerate() {
        if !ready
            .iter()
            .any(|workload| selects(&route.labels, &workload.labels))
        {
            let message = format!(
                "no ready endpoint of Service {} has the labels {}: {} % of what the rule matches gets 503, or is refused on a tcp or tls port",
                service.name,
                listed(&route.labels),
                route.weight
            );
            findings.warn(
                Kind::RouteRule,
                name,
                &format!("spec.route[{position}].labels"),
                message,
            );
        }
    }
}

/// Rules of one service with one precedence are tried by name, which is
/// seldom what was meant.
fn ties(objects: &Objects, findings: &mut Findings) {
    let mut first: BTreeMap<(&ObjectName, i32), &ObjectName> = BTreeMap::new();
    for (name, rule) in &objects.route_rules {
        let other = *first
            .entry((&rule.destination, rule.precedence))
            .or_insert(name);
        if other != name {
            let message = format!(
                "precedence {} is that of RouteRule {other} too: by name that one is tried first",
                rule.precedence
            );
            findings.warn(Kind::RouteRule, name, "spec.precedence", message);
        }
    }
}

/// Ready workloads by namespace and one label, so that the endpoints of a
/// service are found without looking at every workload.
struct WorkloadIndex<'a> {
    by_label: BTreeMap<(&'a str, &'a str, &'a str), Vec<&'a Workload>>,
}

impl<'a> WorkloadIndex<'a> {
    fn new(objects: &'a Objects) -> Self {
        // Only what some selector begins with.
        let asked: std::collections::BTreeSet<_> = objects
            .route_rules
            .values()
            .filter_map(|rule| first_pair(objects.services.get(&rule.destination)?))
            .collect();
        let mut by_label: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for workload in objects.workloads.values().filter(|workload| workload.ready) {
            for (key, value) in &workload.labels {
                let pair = (
                    workload.name.namespace.as_str(),
                    key.as_str(),
                    value.as_str(),
                );
                if asked.contains(&pair) {
                    by_label.entry(pair).or_default().push(&**workload);
                }
            }
        }
        Self { by_label }
    }

    fn ready_of(&self, service: &'a Service) -> Vec<&'a Workload> {
        let candidates = first_pair(service).and_then(|pair| self.by_label.get(&pair));
        candidates
            .into_iter()
            .flatten()
            .copied()
            .filter(|workload| service.owns(workload))
            .collect()
    }
}

/// Namespace and first label of what the selector asks for.
fn first_pair(service: &Service) -> Option<(&str, &str, &str)> {
    let (key, value) = service.selector.first_key_value()?;
    Some((&service.name.namespace, key, value))
}

/// Labels as `kubectl -l` takes them.
fn listed(labels: &Labels) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.join(",")
}
