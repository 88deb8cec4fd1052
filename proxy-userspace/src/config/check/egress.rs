//! Egress rules against each other: one connect cannot be read as HTTP and
//! passed through as bytes at once.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Findings;
use crate::config::name::network;
use crate::config::object::{EgressProtocol, EgressRule, EgressTarget, Labels};
use crate::config::{Kind, Objects};

/// The rules that open one prefix for one port and one namespace.
#[derive(Default)]
struct Opened<'a> {
    http: Vec<&'a EgressRule>,
    tcp: Vec<&'a EgressRule>,
}

/// Network address, then length: a prefix stands before all that it covers.
type Prefix = (IpAddr, u8);

pub(super) fn check(objects: &Objects, findings: &mut Findings) {
    let mut by_port: BTreeMap<(&str, u16), BTreeMap<Prefix, Opened<'_>>> = BTreeMap::new();
    for rule in objects.egress_rules.values() {
        let EgressTarget::Net(address, length) = rule.target else {
            continue;
        };
        for (port, protocol) in &rule.ports {
            let prefixes = by_port.entry((namespace(rule), port.0)).or_default();
            let opened = prefixes.entry((address, length)).or_default();
            match protocol {
                EgressProtocol::Http => opened.http.push(rule),
                EgressProtocol::Tcp => opened.tcp.push(rule),
            }
        }
    }
    for ((_, port), prefixes) in &by_port {
        // The prefixes that cover the current one, widest first.
        let mut covering: Vec<(Prefix, &Opened<'_>)> = Vec::new();
        for (prefix, opened) in prefixes {
            covering.retain(|((start, length), _)| {
                network(prefix.0, *length) == *start && *length <= prefix.1
            });
            conflicts(&opened.http, &opened.tcp, *port, findings);
            for (_, wider) in &covering {
                conflicts(&opened.http, &wider.tcp, *port, findings);
                conflicts(&wider.http, &opened.tcp, *port, findings);
            }
            covering.push((*prefix, opened));
        }
    }
}

fn conflicts(http: &[&EgressRule], tcp: &[&EgressRule], port: u16, findings: &mut Findings) {
    for first in http {
        for second in tcp
            .iter()
            .filter(|second| meet(&first.source.labels, &second.source.labels))
        {
            let value = format!("{} port {port} as http", first.target);
            let expected = format!(
                "one protocol for an address and port: EgressRule {} opens {} port {port} as tcp",
                second.name, second.target
            );
            findings.mistake(
                Kind::EgressRule,
                &first.name,
                "spec.ports",
                &value,
                expected,
            );
        }
    }
}

/// Whether one workload can have the labels that both ask for.
fn meet(one: &Labels, other: &Labels) -> bool {
    one.iter()
        .all(|(key, value)| other.get(key).is_none_or(|wanted| wanted == value))
}

/// The namespace whose workloads the rule is for.
fn namespace(rule: &EgressRule) -> &str {
    rule.source
        .namespace
        .as_deref()
        .unwrap_or(&rule.name.namespace)
}
