//! Numbers for the things that cross the kernel boundary.
//!
//! A name keeps its number as long as the process lives. Must never hand out
//! a number of an earlier process again: flows that were pending when it died
//! still carry them, so each life counts from a base of its own.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::hash::Hash;
use std::time::{SystemTime, UNIX_EPOCH};

use hashbrown::HashMap;
use proxy_common::{
    NetworkId, PolicySetId, Port, PortEntry, PortTableId, RuleId, ServiceId, Transport, WorkloadId,
};

use crate::config::object::{Labels, ObjectName};

/// The selectors of egress rules that pick a workload, each with its
/// namespace: workloads with the same ones have the same egress rules.
pub type PolicyClass = Vec<(String, Labels)>;

/// What a port table says, as one value.
pub type PortTable = BTreeMap<(Port, Transport), PortEntry>;

/// Numbers of one kind of thing.
#[derive(Debug)]
struct Numbers<K> {
    next: u32,
    step: u32,
    by_name: HashMap<K, u32>,
}

impl<K: Hash + Eq> Numbers<K> {
    fn from(next: u32, step: u32) -> Self {
        Self {
            next,
            step,
            by_name: HashMap::new(),
        }
    }

    fn of<Q>(&mut self, name: &Q) -> u32
    where
        K: Borrow<Q>,
        Q: ToOwned<Owned = K> + Hash + Eq + ?Sized,
    {
        if let Some(number) = self.by_name.get(name) {
            return *number;
        }
        let number = self.next;
        // Wrapping needs four billion names in one life; 0 and the canary's
        // number stay out of reach because the base keeps clear of both ends.
        self.next = self.next.wrapping_add(self.step);
        self.by_name.insert(name.to_owned(), number);
        number
    }
}

/// The numbers of everything but egress.
#[derive(Debug)]
pub struct Ids {
    workloads: Numbers<ObjectName>,
    services: Numbers<(ObjectName, Port, Transport)>,
    /// With those of egress one space: each takes every other number.
    route_rules: Numbers<ObjectName>,
    networks: Numbers<String>,
}

/// The numbers of egress.
#[derive(Debug)]
pub struct EgressIds {
    rules: Numbers<ObjectName>,
    policy_sets: Numbers<PolicyClass>,
    port_tables: Numbers<PortTable>,
}

/// Where this life begins to count.
pub(super) fn base() -> u32 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    // 2^12 numbers a tick of 1/64 s (half as many rules, which step by two) for
    // 2^20 ticks, which is over four hours: an earlier life that a pending flow
    // could still tell of (minutes) lies behind, and so does one that ended a
    // moment ago.
    let ticks = since.as_millis() * 64 / 1000 % (1 << 20);
    u32::try_from(ticks).expect("20 bits") << 12 | 1
}

impl Default for Ids {
    fn default() -> Self {
        let base = base();
        Self {
            workloads: Numbers::from(base, 1),
            services: Numbers::from(base, 1),
            route_rules: Numbers::from(base + 1, 2),
            networks: Numbers::from(base, 1),
        }
    }
}

impl Default for EgressIds {
    fn default() -> Self {
        let base = base();
        Self {
            rules: Numbers::from(base, 2),
            policy_sets: Numbers::from(base, 1),
            port_tables: Numbers::from(base, 1),
        }
    }
}

impl Ids {
    /// Of a workload.
    pub fn workload(&mut self, name: &ObjectName) -> WorkloadId {
        WorkloadId(self.workloads.of(name))
    }

    /// Of a service port.
    pub fn service(
        &mut self,
        name: &ObjectName,
        (port, transport): (Port, Transport),
    ) -> ServiceId {
        ServiceId(self.services.of(&(name.clone(), port, transport)))
    }

    /// Of a route rule; no egress rule has the same.
    pub fn route_rule(&mut self, name: &ObjectName) -> RuleId {
        RuleId(self.route_rules.of(name))
    }

    /// Of a network.
    pub fn network(&mut self, name: &str) -> NetworkId {
        NetworkId(self.networks.of(name))
    }
}

impl EgressIds {
    /// Makes room for so many rules more, each with a port table of its own.
    pub fn expect(&mut self, rules: usize) {
        self.rules.by_name.reserve(rules);
        self.port_tables.by_name.reserve(rules);
    }

    /// Of an egress rule.
    pub fn rule(&mut self, name: &ObjectName) -> RuleId {
        RuleId(self.rules.of(name))
    }

    /// Of a class of workloads.
    pub fn policy_set(&mut self, class: &PolicyClass) -> PolicySetId {
        PolicySetId(self.policy_sets.of(class))
    }

    /// Of a port table: the same content has the same number, so a table is
    /// never changed once it was written.
    pub fn port_table(&mut self, table: &PortTable) -> PortTableId {
        PortTableId(self.port_tables.of(table))
    }

    /// Forgets a port table that nobody uses: these are the only names whose
    /// number of values has no bound.
    pub fn forget_port_table(&mut self, table: &PortTable) {
        self.port_tables.by_name.remove(table);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_numbers_and_share_none() {
        let mut ids = Ids::default();
        let name = |name: &str| ObjectName::new("default", name);
        let (a, b) = (ids.workload(&name("a")), ids.workload(&name("b")));
        assert_ne!(a, b);
        assert_eq!(ids.workload(&name("a")), a);
        assert_ne!(a, WorkloadId(0));
        let mut egress = EgressIds::default();
        let (a, b) = (egress.rule(&name("a")), egress.rule(&name("b")));
        for rule in ["a", "b", "c"].map(|rule| ids.route_rule(&name(rule))) {
            assert!(rule != a && rule != b, "one space: {rule:?} {a:?} {b:?}");
        }
    }
}
