//! `EGRESS` and `EGRESS_LENGTHS` as one value: the prefixes of every policy set,
//! and which lengths each set has.
//!
//! Must never hold a prefix whose length its policy set does not list: no look-up
//! would find it.

use imbl::OrdMap;
use proxy_common::{EgressEntry, EgressKey, Lengths, PolicySetId, Prefixes, V4_BITS};

/// A length of a policy set's prefixes, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Length {
    policy_set: PolicySetId,
    is_v4: bool,
    bits: u32,
}

impl Length {
    fn of(key: &EgressKey) -> Self {
        Self {
            policy_set: key.policy_set,
            // A shorter one is of IPv6, though IPv4 lies within it as bits.
            is_v4: key.bits >= V4_BITS && key.addr.is_v4(),
            bits: key.bits,
        }
    }

    /// The first of a policy set, and what stands behind its last.
    fn bounds(policy_set: PolicySetId) -> (Self, Self) {
        let end = |is_v4, bits| Self {
            policy_set,
            is_v4,
            bits,
        };
        (end(false, 0), end(true, u32::MAX))
    }
}

/// The prefixes of every policy set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EgressTable {
    entries: OrdMap<EgressKey, EgressEntry>,
    lengths: OrdMap<PolicySetId, Lengths>,
    /// How many prefixes have each length.
    counts: OrdMap<Length, usize>,
}

impl EgressTable {
    /// What was read back from the kernel, which may list lengths that are gone.
    pub fn read_back(
        entries: OrdMap<EgressKey, EgressEntry>,
        lengths: OrdMap<PolicySetId, Lengths>,
    ) -> Self {
        let mut counts = OrdMap::new();
        for key in entries.keys() {
            *counts.entry(Length::of(key)).or_insert(0) += 1;
        }
        Self {
            entries,
            lengths,
            counts,
        }
    }

    /// Puts a prefix; what it led to before comes back.
    pub fn insert(&mut self, key: EgressKey, entry: EgressEntry) -> Option<EgressEntry> {
        let former = self.entries.insert(key, entry);
        if former.is_none() {
            let count = self.counts.entry(Length::of(&key)).or_insert(0);
            *count += 1;
            if *count == 1 {
                self.list(key.policy_set);
            }
        }
        former
    }

    /// Takes a prefix away; what it led to comes back.
    pub fn remove(&mut self, key: &EgressKey) -> Option<EgressEntry> {
        let former = self.entries.remove(key)?;
        let length = Length::of(key);
        if let Some(count) = self.counts.get_mut(&length) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&length);
                self.list(key.policy_set);
            }
        }
        Some(former)
    }

    /// Lists the lengths of a policy set anew.
    fn list(&mut self, policy_set: PolicySetId) {
        let (first, end) = Length::bounds(policy_set);
        let all = || self.counts.range(first..end).map(|(length, _)| length);
        let of = |is_v4| {
            let family = all().filter(move |length| length.is_v4 == is_v4);
            family.map(|length| length.bits)
        };
        let lengths = Lengths::new(of(true), of(false));
        if lengths == Lengths::NONE {
            self.lengths.remove(&policy_set);
        } else {
            self.lengths.insert(policy_set, lengths);
        }
    }

    /// Every prefix.
    pub fn entries(&self) -> &OrdMap<EgressKey, EgressEntry> {
        &self.entries
    }

    /// The lengths of every policy set that has a prefix.
    pub fn lengths(&self) -> &OrdMap<PolicySetId, Lengths> {
        &self.lengths
    }
}

impl Prefixes for EgressTable {
    fn lengths(&self, policy_set: PolicySetId) -> Option<&Lengths> {
        self.lengths.get(&policy_set)
    }

    fn prefix(&self, key: &EgressKey) -> Option<EgressEntry> {
        self.entries.get(key).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proxy_common::{Addr, PortTableId, longest};

    use super::*;
    use crate::tables::TableSet;

    const SET: PolicySetId = PolicySetId(3);

    /// Close to each other, so that one often covers another; of both families.
    fn some_addr() -> impl Strategy<Value = Addr> {
        let v4 = (0_u32..64).prop_map(|low| Addr::from_v4_word((0x0a00_0000 | low << 6).to_be()));
        let v6 = (0_u128..64).prop_map(|low| {
            let bits = low << 122 | low << 60 | low;
            Addr::from(std::net::Ipv6Addr::from_bits(bits))
        });
        prop_oneof![v4, v6]
    }

    fn some_prefix() -> impl Strategy<Value = EgressKey> {
        (some_addr(), 0_u32..=128).prop_map(|(addr, bits)| {
            let bits = if addr.is_v4() { 96 + bits % 33 } else { bits };
            EgressKey {
                policy_set: SET,
                bits,
                addr: addr.prefix(bits),
            }
        })
    }

    proptest! {
        /// Whatever came and went, the search finds what a look at every prefix finds.
        #[test]
        fn the_longest_prefix_of_the_family_is_found(
            steps in vec((some_prefix(), any::<bool>()), 0..60),
            asked in vec(some_addr(), 1..30),
        ) {
            let mut tables = TableSet::default();
            for (number, (key, comes)) in (1..).zip(steps) {
                if comes {
                    let port_table = PortTableId(number);
                    tables.egress.insert(key, EgressEntry { port_table });
                } else {
                    tables.egress.remove(&key);
                }
            }
            let entries = tables.egress.entries();
            for addr in asked {
                let covers = |key: &EgressKey| {
                    let is_family = !addr.is_v4() || (key.bits >= 96 && key.addr.is_v4());
                    is_family && addr.prefix(key.bits) == key.addr
                };
                let covering = entries.iter().filter(|(key, _)| covers(key));
                let wanted = covering.max_by_key(|(key, _)| key.bits).map(|(_, entry)| *entry);
                prop_assert_eq!(longest(&tables.egress, SET, &addr), wanted, "{}", addr);
            }
            let back = EgressTable::read_back(entries.clone(), tables.egress.lengths().clone());
            prop_assert_eq!(&back, &tables.egress);
        }
    }

    #[test]
    fn a_length_is_listed_as_long_as_a_prefix_has_it() {
        let key = |ip: &str, bits| {
            let addr = Addr::from(ip.parse::<IpAddr>().unwrap());
            EgressKey {
                policy_set: SET,
                bits,
                addr: addr.prefix(bits),
            }
        };
        let mut table = EgressTable::default();
        for ip in ["10.0.0.1", "10.0.0.2", "fd00::1"] {
            table.insert(key(ip, 128), EgressEntry::default());
            table.insert(key(ip, 128), EgressEntry::default());
        }
        table.remove(&key("10.0.0.1", 128));
        let listed = |table: &EgressTable| table.lengths().get(&SET).copied();
        assert_eq!(listed(&table), Some(Lengths::new([128], [128])));
        table.remove(&key("10.0.0.2", 128));
        assert_eq!(listed(&table), Some(Lengths::new([], [128])));
        table.remove(&key("fd00::1", 128));
        assert_eq!(listed(&table), None);
    }
}
