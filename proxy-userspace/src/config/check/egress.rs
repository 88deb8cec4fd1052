//! Egress rules against each other: one connect cannot be read as HTTP and
//! passed through as bytes at once.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdSet;
use imbl::ordmap::DiffItem;
use proxy_common::Port;

use super::Findings;
use crate::config::index::{Named, OpenedPort};
use crate::config::name::network;
use crate::config::object::{EgressProtocol, EgressRule, Labels};
use crate::config::{Kind, Objects};

/// The rules that open one prefix for one port and one namespace.
struct Opened<'a> {
    http: Vec<&'a EgressRule>,
    tcp: Vec<&'a EgressRule>,
}

/// Network address, then length: a prefix stands before all that it covers.
type Prefix = (IpAddr, u8);

/// Looks at every port and namespace that a new or changed rule speaks of.
pub(super) fn check(objects: &Objects, former: &Objects, findings: &mut Findings) {
    let mut touched: BTreeSet<(&str, Port)> = BTreeSet::new();
    for item in former.egress_rules.diff(&objects.egress_rules) {
        let rule: &Arc<EgressRule> = match item {
            DiffItem::Add(_, rule) => rule,
            DiffItem::Update { new, .. } => new.1,
            DiffItem::Remove(..) => continue,
        };
        let namespace = rule.source_namespace();
        touched.extend(rule.ports.iter().map(|(port, _)| (namespace, *port)));
    }
    for (namespace, port) in touched {
        if let Some(opened) = objects.index().rules.opened(namespace, port.0)
            && opened.is_mixed()
        {
            sweep(port, opened, findings);
        }
    }
}

/// Every prefix of one port against itself and those that cover it.
fn sweep(port: Port, opened: &OpenedPort, findings: &mut Findings) {
    // The prefixes that cover the current one, widest first.
    let mut covering: Vec<(Prefix, Opened<'_>)> = Vec::new();
    for (prefix, rules) in &opened.prefixes {
        covering.retain(|((start, length), _)| {
            network(prefix.0, *length) == *start && *length <= prefix.1
        });
        let opened = by_protocol(port, rules);
        conflicts(&opened.http, &opened.tcp, port.0, findings);
        for (_, wider) in &covering {
            conflicts(&opened.http, &wider.tcp, port.0, findings);
            conflicts(&wider.http, &opened.tcp, port.0, findings);
        }
        covering.push((*prefix, opened));
    }
}

fn by_protocol(port: Port, rules: &OrdSet<Named<EgressRule>>) -> Opened<'_> {
    let with = |protocol| {
        let opens = move |rule: &&EgressRule| rule.ports.contains(&(port, protocol));
        rules.iter().map(|rule| &***rule).filter(opens).collect()
    };
    Opened {
        http: with(EgressProtocol::Http),
        tcp: with(EgressProtocol::Tcp),
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
