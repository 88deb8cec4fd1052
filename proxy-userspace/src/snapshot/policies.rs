//! Egress by class of workloads: what the snapshots keep of it from one to the
//! next, and how a change of rules becomes a change of tables.
//!
//! Owns the count of who uses a port table. Must never change a port table
//! that was written: its number belongs to its content.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use proxy_common::{
    EgressEntry, EgressKey, PolicySetId, Port, PortEntry, PortKey, PortTableId, RuleId, Transport,
};

use super::EgressView;
use super::ids::{EgressIds, PolicyClass, PortTable};
use crate::config::Objects;
use crate::config::object::EgressRule;
use crate::egress::policy::{NumberedRule, PrefixChange, Prefixes, RuleChange};
use crate::tables::EgressTable;

/// The rules of one class.
#[derive(Clone, Debug)]
struct Class {
    policy_set: PolicySetId,
    prefixes: Prefixes,
    /// Those on host names.
    hosts: Arc<[Arc<EgressView>]>,
}

/// The rules of every class that an enrolled workload is in.
#[derive(Clone, Debug, Default)]
pub(super) struct Policies {
    classes: BTreeMap<PolicyClass, Class>,
    /// How many prefixes use each port table.
    uses: imbl::HashMap<PortTableId, usize>,
}

/// What is changed while policies are brought up to date.
pub(super) struct Into<'a> {
    pub(super) ids: &'a mut EgressIds,
    pub(super) egress: &'a mut EgressTable,
    pub(super) ports: &'a mut OrdMap<PortKey, PortEntry>,
    /// Every rule, as the proxy sees it.
    pub(super) views: &'a imbl::HashMap<RuleId, Arc<EgressView>>,
    /// Whom every workload may ask for names.
    pub(super) resolvers: &'a [SocketAddr],
}

impl Policies {
    /// The number of a class and its rules on host names.
    pub(super) fn of(&self, class: &PolicyClass) -> Option<(PolicySetId, &Arc<[Arc<EgressView>]>)> {
        let class = self.classes.get(class)?;
        Some((class.policy_set, &class.hosts))
    }

    /// Goes from the rules of `former` to those of `next`.
    pub(super) fn update(&mut self, former: &Objects, next: &Objects, into: &mut Into<'_>) {
        let locals = next.index().inventory.local().values();
        let enrolled = locals.filter(|workload| {
            let local = workload.local.as_ref();
            local.is_some_and(|local| local.enrolled)
        });
        let wanted: BTreeSet<PolicyClass> = enrolled
            .map(|workload| next.index().rules.egress_selectors_of(workload))
            .collect();
        let known: Vec<PolicyClass> = self.classes.keys().cloned().collect();
        for class in known.iter().filter(|class| !wanted.contains(*class)) {
            if let Some(mut gone) = self.classes.remove(class) {
                let changes = gone.prefixes.clear();
                self.write(gone.policy_set, changes, into);
            }
        }
        let (known, fresh): (Vec<_>, Vec<_>) = wanted
            .into_iter()
            .partition(|class| self.classes.contains_key(class));
        if !known.is_empty() {
            let changes = changed(former, next, into.ids);
            for class in known {
                self.change(class, next, &changes, into);
            }
        }
        for class in fresh {
            self.add(class, next, into);
        }
    }

    /// A class that nobody was in.
    fn add(&mut self, class: PolicyClass, next: &Objects, into: &mut Into<'_>) {
        let mut fresh = Class {
            policy_set: into.ids.policy_set(&class),
            prefixes: Prefixes::new(into.resolvers),
            hosts: Arc::default(),
        };
        let rules = next.egress_rules.values();
        let rules = rules.filter(|rule| is_of(rule, &class));
        let rules = rules.map(|rule| RuleChange {
            before: None,
            after: Some((into.ids.rule(&rule.name), Arc::clone(rule))),
        });
        let changes = fresh.prefixes.update(rules);
        self.write(fresh.policy_set, changes, into);
        fresh.hosts = hosts(next, &class, into);
        self.classes.insert(class, fresh);
    }

    /// A class that was there, of whose rules some may have changed.
    fn change(
        &mut self,
        class: PolicyClass,
        next: &Objects,
        changes: &[RuleChange],
        into: &mut Into<'_>,
    ) {
        let Some(mut state) = self.classes.remove(&class) else {
            return;
        };
        if !changes.is_empty() {
            let own = changes.iter().filter_map(|change| {
                let of_class = |rule: &Option<NumberedRule>| {
                    rule.as_ref()
                        .filter(|(_, rule)| is_of(rule, &class))
                        .cloned()
                };
                let (before, after) = (of_class(&change.before), of_class(&change.after));
                (before.is_some() || after.is_some()).then_some(RuleChange { before, after })
            });
            let changes = state.prefixes.update(own);
            self.write(state.policy_set, changes, into);
            state.hosts = hosts(next, &class, into);
        }
        self.classes.insert(class, state);
    }

    fn write(&mut self, policy_set: PolicySetId, changes: Vec<PrefixChange>, into: &mut Into<'_>) {
        for change in changes {
            let (bits, addr) = change.prefix;
            let key = EgressKey {
                policy_set,
                bits,
                addr,
            };
            let old = match change.after {
                Some(table) => {
                    let port_table = self.acquire(&table, into);
                    into.egress.insert(key, EgressEntry { port_table })
                }
                None => into.egress.remove(&key),
            };
            if let (Some(old), Some(table)) = (old, change.before) {
                self.release(old.port_table, &table, into);
            }
        }
    }

    fn acquire(&mut self, table: &PortTable, into: &mut Into<'_>) -> PortTableId {
        let id = into.ids.port_table(table);
        let uses = self.uses.entry(id).or_insert(0);
        *uses += 1;
        if *uses == 1 {
            for (port, entry) in table {
                into.ports.insert(port_key(id, *port), *entry);
            }
        }
        id
    }

    fn release(&mut self, id: PortTableId, table: &PortTable, into: &mut Into<'_>) {
        let Some(uses) = self.uses.get_mut(&id) else {
            return;
        };
        *uses -= 1;
        if *uses > 0 {
            return;
        }
        self.uses.remove(&id);
        for port in table.keys() {
            into.ports.remove(&port_key(id, *port));
        }
        into.ids.forget_port_table(table);
    }
}

fn port_key(port_table: PortTableId, (port, transport): (Port, Transport)) -> PortKey {
    PortKey::new(port_table, port, transport)
}

/// Whether a rule holds for the workloads of a class.
fn is_of(rule: &EgressRule, class: &PolicyClass) -> bool {
    class.iter().any(|(namespace, labels)| {
        namespace == rule.source_namespace() && *labels == rule.source.labels
    })
}

fn hosts(next: &Objects, class: &PolicyClass, into: &mut Into<'_>) -> Arc<[Arc<EgressView>]> {
    let rules = next
        .index()
        .rules
        .on_names()
        .filter(|rule| is_of(rule, class));
    let views = rules.filter_map(|rule| into.views.get(&into.ids.rule(&rule.name)));
    views.cloned().collect()
}

/// The rules that are not what they were, with their numbers.
fn changed(former: &Objects, next: &Objects, ids: &mut EgressIds) -> Vec<RuleChange> {
    let items = former.egress_rules.diff(&next.egress_rules);
    let changes = items.map(|item| {
        let (name, before, after) = match item {
            DiffItem::Add(name, after) => (name, None, Some(after)),
            DiffItem::Update { old, new } => (new.0, Some(old.1), Some(new.1)),
            DiffItem::Remove(name, before) => (name, Some(before), None),
        };
        let id = ids.rule(name);
        let numbered = |rule: &Arc<EgressRule>| (id, Arc::clone(rule));
        RuleChange {
            before: before.map(numbered),
            after: after.map(numbered),
        }
    });
    changes.collect()
}
