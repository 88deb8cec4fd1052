//! Rules, asked for other than by name.

use std::net::IpAddr;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::Named;
use crate::config::object::{
    EgressProtocol, EgressRule, EgressTarget, Labels, ObjectName, RouteRule, Workload, selects,
};

/// Whom an egress rule holds for: a namespace, and labels in it.
pub type EgressSelector = (String, Labels);

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

/// Which rules are for whom.
#[derive(Clone, Debug, Default)]
pub struct RulesIndex {
    routed: OrdMap<ObjectName, OrdSet<Named<RouteRule>>>,
    selectors: OrdMap<EgressSelector, usize>,
    on_names: OrdSet<Named<EgressRule>>,
    opened: OrdMap<(String, u16), OpenedPort>,
}

impl RulesIndex {
    /// The route rules for a service, by name.
    pub fn rules_for(&self, service: &ObjectName) -> impl Iterator<Item = &Arc<RouteRule>> {
        self.routed
            .get(service)
            .into_iter()
            .flatten()
            .map(|named| &named.0)
    }

    /// The selectors of egress rules that pick a workload, in order.
    pub fn egress_selectors_of(&self, workload: &Workload) -> Vec<EgressSelector> {
        self.selectors
            .keys()
            .filter(|(namespace, labels)| {
                *namespace == workload.name.namespace() && selects(labels, &workload.labels)
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

    pub(in crate::config) fn add_route_rule(&mut self, rule: &Arc<RouteRule>) {
        self.routed
            .entry(rule.destination.clone())
            .or_default()
            .insert(Named(Arc::clone(rule)));
    }

    pub(in crate::config) fn remove_route_rule(&mut self, rule: &Arc<RouteRule>) {
        if let Some(set) = self.routed.get_mut(&rule.destination) {
            set.remove(&Named(Arc::clone(rule)));
            if set.is_empty() {
                self.routed.remove(&rule.destination);
            }
        }
    }

    pub(in crate::config) fn add_egress_rule(&mut self, rule: &Arc<EgressRule>) {
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

    pub(in crate::config) fn remove_egress_rule(&mut self, rule: &Arc<EgressRule>) {
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
}
