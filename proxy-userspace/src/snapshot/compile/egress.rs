//! Egress, compiled: the rules as the proxy sees them, and the prefixes and port
//! tables of every class of workloads.
//!
//! Owns the numbers of both. Must never look at what the inventory's half makes:
//! the two are compiled at the same time.

use std::net::SocketAddr;
use std::sync::Arc;

use imbl::OrdMap;
use proxy_common::{PolicySetId, PortEntry, PortKey, RuleId};

use super::edits;
use crate::config::Objects;
use crate::config::object::{EgressRule, EgressTarget};
use crate::egress::host::{HostName, HostPattern};
use crate::snapshot::ids::{EgressIds, PolicyClass};
use crate::snapshot::policies::{Into, Policies};
use crate::snapshot::{EgressView, Snapshot};
use crate::tables::EgressTable;

/// What compiles egress.
#[derive(Debug)]
pub(super) struct Egress {
    ids: EgressIds,
    /// Whom every workload may ask for names.
    resolvers: Vec<SocketAddr>,
}

/// What came of it: the fields of a [`Snapshot`].
pub(super) struct Compiled {
    views: imbl::HashMap<RuleId, Arc<EgressView>>,
    policies: Policies,
    egress: EgressTable,
    ports: OrdMap<PortKey, PortEntry>,
}

impl Compiled {
    pub(super) fn put_into(self, snapshot: &mut Snapshot) {
        snapshot.egress = self.views;
        snapshot.basis.policies = self.policies;
        snapshot.tables.egress = self.egress;
        snapshot.tables.egress_ports = self.ports;
    }
}

impl Egress {
    pub(super) fn new(resolvers: Vec<SocketAddr>) -> Self {
        Self {
            ids: EgressIds::default(),
            resolvers,
        }
    }

    /// The number of a class that has no rules.
    pub(super) fn policy_set(&mut self, class: &PolicyClass) -> PolicySetId {
        self.ids.policy_set(class)
    }

    /// Goes from what `former` holds to what `objects` ask for.
    pub(super) fn compile(&mut self, objects: &Objects, former: &Snapshot) -> Compiled {
        let before = &former.basis.objects;
        let mut compiled = Compiled {
            views: former.egress.clone(),
            policies: former.basis.policies.clone(),
            egress: former.tables.egress.clone(),
            ports: former.tables.egress_ports.clone(),
        };
        let (rules, known) = (objects.egress_rules.len(), before.egress_rules.len());
        self.ids.expect(rules.saturating_sub(known));
        for (old, new) in edits(&before.egress_rules, &objects.egress_rules) {
            if let Some(rule) = new {
                let view = self.view(rule);
                compiled.views.insert(view.id, view);
            } else if let Some(rule) = old {
                compiled.views.remove(&self.ids.rule(&rule.name));
            }
        }
        let mut into = Into {
            ids: &mut self.ids,
            egress: &mut compiled.egress,
            ports: &mut compiled.ports,
            views: &compiled.views,
            resolvers: &self.resolvers,
        };
        compiled.policies.update(before, objects, &mut into);
        compiled
    }

    fn view(&mut self, rule: &EgressRule) -> Arc<EgressView> {
        Arc::new(EgressView {
            id: self.ids.rule(&rule.name),
            label: rule.name.to_string().into(),
            hosts: hosts_of(&rule.target),
            target: rule.target.clone(),
            ports: rule.ports.iter().map(|(port, _)| *port).collect(),
        })
    }
}

/// The names of a rule; the parser only lets through targets that are some.
fn hosts_of(target: &EgressTarget) -> Option<HostPattern> {
    match target {
        EgressTarget::Host(name) => HostName::parse(name).ok().map(HostPattern::Exact),
        EgressTarget::Wildcard(suffix) => HostName::parse(suffix).ok().map(HostPattern::Under),
        EgressTarget::Net(..) => None,
    }
}
