//! Egress rules, compiled into prefixes and port tables for the kernel, by
//! difference: a changed rule costs its own prefix and those inside it.
//!
//! Owns the union: what a shorter prefix opens is open inside every longer one,
//! and of two ways to open one port the wider wins. Must never open what no
//! rule names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use imbl::OrdMap;
use proxy_common::{Addr, EgressAction, Port, PortEntry, RuleId, Transport, V4_BITS};

use crate::config::object::{EgressProtocol, EgressRule, EgressTarget};
use crate::snapshot::ids::PortTable;

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
    /// What the daemon's settings open here.
    opened: PortTable,
    /// `None`: not compiled yet.
    table: Option<Arc<PortTable>>,
}

/// Every prefix that a set of rules speaks of. A copy shares what is the same.
#[derive(Clone, Debug, Default)]
pub struct Prefixes {
    slots: OrdMap<Key, Slot>,
    /// How many prefixes of each length there are.
    lengths: BTreeMap<u32, usize>,
    /// Slots that were never compiled.
    fresh: BTreeSet<Key>,
}

impl Prefixes {
    /// Without rules: the resolvers alone are open, on their port.
    pub fn new(resolvers: &[SocketAddr]) -> Self {
        let mut prefixes = Self::default();
        for resolver in resolvers {
            let key = key_of((128, Addr::from(resolver.ip())));
            let entry = PortEntry::new(EgressAction::Resolver, RuleId::NONE);
            let slot = prefixes.slot(key);
            for transport in [Transport::Tcp, Transport::Udp] {
                slot.opened
                    .insert((Port(resolver.port()), transport), entry);
            }
            prefixes.fresh.insert(key);
        }
        prefixes
    }

    /// Takes changes over and tells which prefixes they changed.
    pub fn update(&mut self, changes: impl IntoIterator<Item = RuleChange>) -> Vec<PrefixChange> {
        let mut dirty: Vec<Key> = std::mem::take(&mut self.fresh).into_iter().collect();
        for RuleChange { before, after } in changes {
            if let Some((_, rule)) = before {
                dirty.extend(self.take_out(&rule));
            }
            if let Some(rule) = after {
                dirty.extend(self.put_in(&rule));
            }
        }
        dirty.sort_unstable();
        let mut changed = Vec::new();
        let mut done = None;
        for key in dirty {
            // It again, or inside one that was dirty too: compiled with that.
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

    fn take_out(&mut self, rule: &EgressRule) -> Vec<Key> {
        let keys: Vec<Key> = prefixes_of(&rule.target).into_iter().map(key_of).collect();
        for key in &keys {
            if let Some(slot) = self.slots.get_mut(key) {
                slot.rules.retain(|(_, other)| other.name != rule.name);
            }
        }
        keys
    }

    fn put_in(&mut self, rule: &NumberedRule) -> Vec<Key> {
        let prefixes = prefixes_of(&rule.1.target);
        let keys: Vec<Key> = prefixes.into_iter().map(key_of).collect();
        for key in &keys {
            let slot = self.slot(*key);
            let place = slot
                .rules
                .partition_point(|(_, other)| other.name < rule.1.name);
            slot.rules.insert(place, rule.clone());
        }
        keys
    }

    /// The slot of a prefix, made if it is not there.
    fn slot(&mut self, key: Key) -> &mut Slot {
        if !self.slots.contains_key(&key) {
            *self.lengths.entry(key.1).or_default() += 1;
        }
        self.slots.entry(key).or_default()
    }

    /// Compiles one prefix, after those that cover it.
    fn compile(&mut self, key: Key) -> Option<PrefixChange> {
        let slot = self.slots.get(&key)?;
        let before = slot.table.clone();
        let prefix = prefix_of(key);
        if slot.rules.is_empty() && slot.opened.is_empty() {
            self.forget(key);
            return Some(PrefixChange {
                prefix,
                before,
                after: None,
            });
        }
        let mut table = slot.opened.clone();
        for (id, rule) in &slot.rules {
            for (port, protocol) in &rule.ports {
                let action = action(&rule.target, *protocol);
                let key = (*port, protocol.transport());
                open(&mut table, key, PortEntry::new(action, *id));
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

    /// What the next shorter prefix of its family that covers this one opens: by
    /// then that holds what all shorter ones do.
    fn covering(&self, (addr, bits): Key) -> Option<&PortTable> {
        let is_v4 = bits >= V4_BITS && prefix_of((addr, bits)).1.is_v4();
        let widest = if is_v4 { V4_BITS } else { 0 };
        let shorter = self.lengths.range(widest..bits).rev();
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

/// `::ffff:0:0/96`: every IPv4 address.
fn any_v4() -> Prefix {
    (V4_BITS, Addr::from_v4_word(0))
}

/// `::/0`: every IPv6 address.
const ANY_V6: Prefix = (0, Addr::UNSPECIFIED);

/// Where a rule applies. A host name may resolve to any address.
fn prefixes_of(target: &EgressTarget) -> Vec<Prefix> {
    match target {
        EgressTarget::Host(_) | EgressTarget::Wildcard(_) => vec![any_v4(), ANY_V6],
        EgressTarget::Net(ip, len) => {
            let bits = u32::from(*len) + if ip.is_ipv4() { V4_BITS } else { 0 };
            vec![(bits, Addr::from(*ip).prefix(bits))]
        }
    }
}

fn action(target: &EgressTarget, protocol: EgressProtocol) -> EgressAction {
    match (target, protocol) {
        (EgressTarget::Net(..), EgressProtocol::Tcp | EgressProtocol::Udp) => EgressAction::Direct,
        (EgressTarget::Net(..), EgressProtocol::Http) => EgressAction::Http,
        (EgressTarget::Host(_) | EgressTarget::Wildcard(_), _) => EgressAction::HttpByName,
    }
}

/// Adds one way through a port: the wider before the narrower, and of
/// equals the rule that was there first.
fn open(table: &mut PortTable, port: (Port, Transport), entry: PortEntry) {
    table
        .entry(port)
        .and_modify(|old| {
            if entry.action() < old.action() {
                *old = entry;
            }
        })
        .or_insert(entry);
}

#[cfg(test)]
mod tests;
