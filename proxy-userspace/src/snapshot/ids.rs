//! Numbers for the things that cross the kernel boundary.
//!
//! A name keeps its number as long as the process lives. Must never hand out
//! a number of an earlier process again: flows that were pending when it died
//! still carry them, so each life counts from a base of its own.

use std::collections::{BTreeMap, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

use proxy_common::{
    NetworkId, PolicySetId, Port, PortEntry, PortTableId, RuleId, ServiceId, Transport, WorkloadId,
};

use crate::config::Kind;
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
    by_name: HashMap<K, u32>,
}

impl<K: std::hash::Hash + Eq + Clone> Numbers<K> {
    fn from(next: u32) -> Self {
        Self {
            next,
            by_name: HashMap::new(),
        }
    }

    fn of(&mut self, name: &K) -> u32 {
        if let Some(number) = self.by_name.get(name) {
            return *number;
        }
        let number = self.next;
        // Wrapping needs four billion names in one life; 0 and the canary's
        // number stay out of reach because the base keeps clear of both ends.
        self.next = self.next.wrapping_add(1);
        self.by_name.insert(name.clone(), number);
        number
    }
}

/// All the numbers.
#[derive(Debug)]
pub struct Ids {
    workloads: Numbers<ObjectName>,
    services: Numbers<(ObjectName, Port, Transport)>,
    rules: Numbers<(Kind, ObjectName)>,
    networks: Numbers<String>,
    policy_sets: Numbers<PolicyClass>,
    port_tables: Numbers<PortTable>,
}

/// Where this life begins to count.
pub(super) fn base() -> u32 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    // 2^12 numbers a tick of 1/64 s for 2^20 ticks, which is over four hours: an
    // earlier life that a pending flow could still tell of (minutes) lies
    // behind, and so does one that ended a moment ago.
    let ticks = since.as_millis() * 64 / 1000 % (1 << 20);
    u32::try_from(ticks).expect("20 bits") << 12 | 1
}

impl Default for Ids {
    fn default() -> Self {
        let base = base();
        Self {
            workloads: Numbers::from(base),
            services: Numbers::from(base),
            rules: Numbers::from(base),
            networks: Numbers::from(base),
            policy_sets: Numbers::from(base),
            port_tables: Numbers::from(base),
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

    /// Of an egress rule.
    pub fn rule(&mut self, name: &ObjectName) -> RuleId {
        RuleId(self.rules.of(&(Kind::EgressRule, name.clone())))
    }

    /// Of a route rule; no egress rule has the same.
    pub fn route_rule(&mut self, name: &ObjectName) -> RuleId {
        RuleId(self.rules.of(&(Kind::RouteRule, name.clone())))
    }

    /// Of a network.
    pub fn network(&mut self, name: &str) -> NetworkId {
        NetworkId(self.networks.of(&name.to_owned()))
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
        let name = |name: &str| ObjectName {
            namespace: "default".into(),
            name: name.into(),
        };
        let (a, b) = (ids.workload(&name("a")), ids.workload(&name("b")));
        assert_ne!(a, b);
        assert_eq!(ids.workload(&name("a")), a);
        assert_ne!(a, WorkloadId(0));
    }
}
