//! Egress rules, compiled into prefixes and port tables for the kernel, by
//! difference: a changed rule costs its own prefix and those inside it.
//!
//! Owns the union: what a shorter prefix opens is open inside every longer one,
//! and of two ways to open one port the wider wins. Must never open what no
//! rule names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use proxy_common::{Addr, EgressAction, Port, PortEntry, RuleId};

use crate::config::object::{EgressProtocol, EgressRule, EgressTarget};
use crate::snapshot::ids::PortTable;
use crate::tables::mask;

/// Bits of `::ffff:0:0/96`, in which every IPv4 address lies.
const V4_BITS: u32 = 96;

/// Prefix length in 128-bit terms, and the prefix.
pub type Prefix = (u32, Addr);

/// A prefix as it sorts: one stands before all that it covers, and these
/// stand together.
type Key = (u128, u32);

/// A rule with its number.
pub type NumberedRule = (RuleId, Arc<EgressRule>);

/// What became of one rule.
#[derive(Clone, Debug)]
pub struct RuleChange {
    /// What it was; `None`: it is new.
    pub before: Option<NumberedRule>,
    /// What it is; `None`: it is gone.
    pub after: Option<NumberedRule>,
}

/// What became of one prefix.
#[derive(Clone, Debug)]
pub struct PrefixChange {
    /// Which.
    pub prefix: Prefix,
    /// The ports that were open behind it; `None`: it is new.
    pub before: Option<Arc<PortTable>>,
    /// Those that are; `None`: it is gone.
    pub after: Option<Arc<PortTable>>,
}

/// The rules on one prefix, and what they and all shorter prefixes open.
#[derive(Clone, Debug, Default)]
struct Slot {
    /// By name.
    rules: Vec<NumberedRule>,
    /// `None`: not compiled yet.
    table: Option<Arc<PortTable>>,
}

/// Every prefix that a set of rules speaks of. A copy shares what is the same.
#[derive(Clone, Debug, Default)]
pub struct Prefixes {
    slots: OrdMap<Key, Slot>,
    /// How many prefixes of each length there are.
    lengths: BTreeMap<u32, usize>,
}

impl Prefixes {
    /// Takes changes over and tells which prefixes they changed.
    pub fn update(&mut self, changes: impl IntoIterator<Item = RuleChange>) -> Vec<PrefixChange> {
        let mut dirty = BTreeSet::new();
        for RuleChange { before, after } in changes {
            if let Some((_, rule)) = before {
                dirty.insert(self.take_out(&rule));
            }
            if let Some(rule) = after {
                dirty.insert(self.put_in(rule));
            }
        }
        let mut changed = Vec::new();
        let mut done = None;
        for key in dirty {
            // Inside one that was dirty too, and was compiled with it.
            if done.is_some_and(|last| key.0 <= last) {
                continue;
            }
            let last = last_address(key);
            done = Some(last);
            let inside = self.slots.range(key..=(last, 128));
            // In this order whatever covers a prefix comes before it.
            let inside: Vec<Key> = inside.map(|(key, _)| *key).collect();
            changed.extend(inside.into_iter().filter_map(|key| self.compile(key)));
        }
        changed
    }

    /// Forgets all rules.
    pub fn clear(&mut self) -> Vec<PrefixChange> {
        let slots = std::mem::take(self).slots;
        let gone = slots.iter().map(|(key, slot)| PrefixChange {
            prefix: prefix_of(*key),
            before: slot.table.clone(),
            after: None,
        });
        gone.collect()
    }

    fn take_out(&mut self, rule: &EgressRule) -> Key {
        let key = key_of(prefix(&rule.target));
        if let Some(slot) = self.slots.get_mut(&key) {
            slot.rules.retain(|(_, other)| other.name != rule.name);
        }
        key
    }

    fn put_in(&mut self, rule: NumberedRule) -> Key {
        let key = key_of(prefix(&rule.1.target));
        if !self.slots.contains_key(&key) {
            self.slots.insert(key, Slot::default());
            *self.lengths.entry(key.1).or_default() += 1;
        }
        if let Some(slot) = self.slots.get_mut(&key) {
            let place = slot
                .rules
                .partition_point(|(_, other)| other.name < rule.1.name);
            slot.rules.insert(place, rule);
        }
        key
    }

    /// Compiles one prefix, after those that cover it.
    fn compile(&mut self, key: Key) -> Option<PrefixChange> {
        let slot = self.slots.get(&key)?;
        let before = slot.table.clone();
        let prefix = prefix_of(key);
        if slot.rules.is_empty() {
            self.forget(key);
            return Some(PrefixChange {
                prefix,
                before,
                after: None,
            });
        }
        let mut table = PortTable::new();
        for (id, rule) in &slot.rules {
            for (port, protocol) in &rule.ports {
                let action = action(&rule.target, *protocol);
                open(&mut table, *port, PortEntry::new(action, *id));
            }
        }
        if let Some(wider) = self.covering(key) {
            for (port, entry) in wider {
                open(&mut table, *port, *entry);
            }
        }
        if before.as_deref() == Some(&table) {
            return None;
        }
        let after = Some(Arc::new(table));
        if let Some(slot) = self.slots.get_mut(&key) {
            slot.table.clone_from(&after);
        }
        Some(PrefixChange {
            prefix,
            before,
            after,
        })
    }

    fn forget(&mut self, key: Key) {
        self.slots.remove(&key);
        if let Some(count) = self.lengths.get_mut(&key.1) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&key.1);
            }
        }
    }

    /// What the next shorter prefix that covers this one opens: by then that
    /// holds what all shorter ones do.
    fn covering(&self, (addr, bits): Key) -> Option<&PortTable> {
        let shorter = self.lengths.range(..bits).rev();
        let mut covering = shorter.filter_map(|(bits, _)| {
            let key = (addr & network_bits(*bits), *bits);
            self.slots.get(&key)?.table.as_deref()
        });
        covering.next()
    }
}

/// A mask of the first `bits`.
fn network_bits(bits: u32) -> u128 {
    u128::MAX.checked_shl(128 - bits).unwrap_or(0)
}

fn last_address((addr, bits): Key) -> u128 {
    addr | !network_bits(bits)
}

fn key_of((bits, addr): Prefix) -> Key {
    let number = addr.words().into_iter().fold(0, |number, word| {
        number << 32 | u128::from(u32::from_be(word))
    });
    (number, bits)
}

fn prefix_of((number, bits): Key) -> Prefix {
    (bits, Addr::from(std::net::Ipv6Addr::from_bits(number)))
}

/// Where a rule applies. A host name may resolve to any IPv4 address.
fn prefix(target: &EgressTarget) -> Prefix {
    let any_v4 = || (V4_BITS, mask(Addr::from_v4_word(0), V4_BITS));
    match target {
        EgressTarget::Host(_) | EgressTarget::Wildcard(_) => any_v4(),
        EgressTarget::Net(ip, len) => {
            let bits = u32::from(*len) + if ip.is_ipv4() { V4_BITS } else { 0 };
            (bits, mask(Addr::from(*ip), bits))
        }
    }
}

fn action(target: &EgressTarget, protocol: EgressProtocol) -> EgressAction {
    match (target, protocol) {
        (EgressTarget::Net(..), EgressProtocol::Tcp) => EgressAction::Direct,
        (EgressTarget::Net(..), EgressProtocol::Http) => EgressAction::Http,
        (EgressTarget::Host(_) | EgressTarget::Wildcard(_), _) => EgressAction::HttpByName,
    }
}

/// Adds one way through a port: `Direct` before `Http` before `HttpByName`, and of
/// equals the rule that was there first.
fn open(table: &mut PortTable, port: Port, entry: PortEntry) {
    table
        .entry(port)
        .and_modify(|old| {
            if entry.action() < old.action() {
                *old = entry;
            }
        })
        .or_insert(entry);
}

/// Whether `ip` is covered by the rule's address or CIDR.
pub fn covers(target: &EgressTarget, ip: IpAddr) -> bool {
    let (bits, addr) = prefix(target);
    matches!(target, EgressTarget::Net(..)) && mask(Addr::from(ip), bits) == addr
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::config::object::{EgressSource, ObjectName};

    fn network(addr: Ipv4Addr, length: u8) -> IpAddr {
        mask(Addr::from(addr), V4_BITS + u32::from(length)).to_ip()
    }

    /// What these rules open, all of them new.
    fn compile<'a>(
        rules: impl Iterator<Item = (RuleId, &'a EgressRule)>,
    ) -> BTreeMap<Prefix, PortTable> {
        let new = rules.map(|(id, rule)| {
            let mut rule = rule.clone();
            rule.name.name = format!("r{}", id.0);
            RuleChange {
                before: None,
                after: Some((id, Arc::new(rule))),
            }
        });
        let mut all = BTreeMap::new();
        apply(&mut all, Prefixes::default().update(new));
        all
    }

    fn apply(all: &mut BTreeMap<Prefix, PortTable>, changes: Vec<PrefixChange>) {
        for PrefixChange {
            prefix,
            before,
            after,
        } in changes
        {
            let was = match &after {
                Some(table) => all.insert(prefix, PortTable::clone(table)),
                None => all.remove(&prefix),
            };
            assert_eq!(was.as_ref(), before.as_deref(), "{prefix:?}");
        }
    }

    proptest::proptest! {
        /// Whatever came before: what holds is what the rules say by themselves.
        #[test]
        fn changes_one_by_one_come_to_the_same(
            steps in proptest::collection::vec((0..6_u32, 0..4_u8, 0..4_u8, 1..4_u16, 0..2_u8), 1..30)
        ) {
            let mut rules: BTreeMap<u32, NumberedRule> = BTreeMap::new();
            let (mut prefixes, mut all) = (Prefixes::default(), BTreeMap::new());
            for (number, net_of, length, port, gone) in steps {
                let length = [0, 8, 16, 32][usize::from(length)];
                let target = EgressTarget::Net(
                    network(Ipv4Addr::new(10, net_of, 0, 1), length),
                    length,
                );
                let protocol = if port == 1 { EgressProtocol::Http } else { EgressProtocol::Tcp };
                let mut new = rule(target, &[(port, protocol)]);
                new.name.name = format!("r{number}");
                let after = (gone == 0).then(|| (RuleId(number), Arc::new(new)));
                let before = match &after {
                    Some(after) => rules.insert(number, after.clone()),
                    None => rules.remove(&number),
                };
                apply(&mut all, prefixes.update([RuleChange { before, after }]));
                let fresh = compile(rules.values().map(|(id, rule)| (*id, &**rule)));
                proptest::prop_assert_eq!(&all, &fresh);
            }
            apply(&mut all, prefixes.clear());
            proptest::prop_assert!(all.is_empty());
        }
    }

    fn rule(target: EgressTarget, ports: &[(u16, EgressProtocol)]) -> EgressRule {
        EgressRule {
            name: ObjectName {
                namespace: "default".into(),
                name: "r".into(),
            },
            labels: BTreeMap::new(),
            target,
            ports: ports
                .iter()
                .map(|(port, protocol)| (Port(*port), *protocol))
                .collect(),
            source: EgressSource::default(),
        }
    }

    fn net(a: u8, b: u8, c: u8, d: u8, len: u8) -> EgressTarget {
        EgressTarget::Net(Ipv4Addr::new(a, b, c, d).into(), len)
    }

    #[test]
    fn a_longer_prefix_keeps_what_the_shorter_one_opens() {
        let wide = rule(net(10, 0, 0, 0, 8), &[(443, EgressProtocol::Tcp)]);
        let narrow = rule(net(10, 1, 0, 0, 16), &[(80, EgressProtocol::Http)]);
        let host = rule(
            EgressTarget::Host("a.example".into()),
            &[(8080, EgressProtocol::Http)],
        );
        let rules = [(RuleId(1), &wide), (RuleId(2), &narrow), (RuleId(3), &host)];
        let prefixes = compile(rules.into_iter());
        let narrow = &prefixes[&(96 + 16, Ipv4Addr::new(10, 1, 0, 0).into())];
        assert_eq!(
            narrow[&Port(443)],
            PortEntry::new(EgressAction::Direct, RuleId(1))
        );
        assert_eq!(
            narrow[&Port(80)],
            PortEntry::new(EgressAction::Http, RuleId(2))
        );
        assert_eq!(
            narrow[&Port(8080)],
            PortEntry::new(EgressAction::HttpByName, RuleId(3))
        );
        let wide = &prefixes[&(96 + 8, Ipv4Addr::new(10, 0, 0, 0).into())];
        assert!(
            !wide.contains_key(&Port(80)),
            "a longer prefix opens nothing outside itself"
        );
    }

    #[test]
    fn of_two_ways_through_one_port_the_wider_wins() {
        let http = rule(net(10, 1, 2, 3, 32), &[(80, EgressProtocol::Http)]);
        let tcp = rule(net(10, 0, 0, 0, 8), &[(80, EgressProtocol::Tcp)]);
        let prefixes = compile([(RuleId(1), &http), (RuleId(2), &tcp)].into_iter());
        let exact = &prefixes[&(128, Ipv4Addr::new(10, 1, 2, 3).into())];
        assert_eq!(
            exact[&Port(80)],
            PortEntry::new(EgressAction::Direct, RuleId(2))
        );
    }

    #[test]
    fn the_whole_of_ipv4_is_one_prefix_of_ours() {
        let all = rule(net(0, 0, 0, 0, 0), &[(53, EgressProtocol::Tcp)]);
        let prefixes = compile([(RuleId(1), &all)].into_iter());
        assert_eq!(
            prefixes.keys().copied().collect::<Vec<_>>(),
            [prefix(&EgressTarget::Host("x".into()))]
        );
    }
}
