//! Route rules against the services and workloads they speak of.

use std::collections::BTreeMap;

use super::Findings;
use crate::config::object::{Labels, ObjectName, RouteRule, Service, selects};
use crate::config::{Kind, Objects};

pub(super) fn check(objects: &Objects, findings: &mut Findings) {
    if objects.route_rules.is_empty() {
        return;
    }
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
        endpoints(objects, name, rule, service, findings);
    }
    ties(objects, findings);
}

/// Bytes have no headers: such a rule could never be kept.
fn http_match(name: &ObjectName, rule: &RouteRule, service: &Service, findings: &mut Findings) {
    let bytes_only = service.ports.iter().all(|port| port.protocol.is_balanced());
    if !rule.request.is_empty() && bytes_only && !service.ports.is_empty() {
        let value = format!(
            "Service {} has ports for tcp, tls or UDP only",
            service.name
        );
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
    objects: &Objects,
    name: &ObjectName,
    rule: &RouteRule,
    service: &Service,
    findings: &mut Findings,
) {
    let members = objects.index().inventory.members(service);
    let ready: Vec<_> = members.filter(|workload| workload.ready).collect();
    for (position, route) in rule.routes.iter().enumerate() {
        if !ready
            .iter()
            .any(|workload| selects(&route.labels, &workload.labels))
        {
            let message = format!(
                "no ready endpoint of Service {} has the labels {}: {} % of what the rule matches gets 503, or is refused on a port for tcp, tls or UDP",
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

/// Labels as `kubectl -l` takes them.
fn listed(labels: &Labels) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.join(",")
}
