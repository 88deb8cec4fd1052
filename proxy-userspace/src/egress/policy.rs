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
use proxy_common::{Addr, EgressAction, Port, PortEntry, RuleId, Transport};

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
    /// Whether a prefix of IPv6 covers `::ffff:0:0/96`. That one then stands
    /// there too, be it empty, and keeps the look-up from going on to a shorter
    /// one: IPv4 lies within `::/0`, but a rule on IPv6 says nothing of it.
    barrier: bool,
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
        let mut dirty = std::mem::take(&mut self.fresh);
        for RuleChange { before, after } in changes {
            if let Some((_, rule)) = before {
                dirty.extend(self.take_out(&rule));
            }
            if let Some(rule) = after {
                dirty.extend(self.put_in(&rule));
            }
        }
        let barrier = self.covers_v4();
        if barrier != self.barrier {
            self.barrier = barrier;
            let v4 = key_of(any_v4());
            if barrier {
                self.slot(v4);
            }
            dirty.insert(v4);
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

    /// Whether a rule on IPv6 speaks of a prefix in which IPv4 lies as bits.
    fn covers_v4(&self) -> bool {
        let (v4, _) = key_of(any_v4());
        self.lengths.range(..V4_BITS).any(|(bits, _)| {
            let slot = self.slots.get(&(v4 & network_bits(*bits), *bits));
            slot.is_some_and(|slot| !slot.rules.is_empty())
        })
    }

    /// Compiles one prefix, after those that cover it.
    fn compile(&mut self, key: Key) -> Option<PrefixChange> {
        let slot = self.slots.get(&key)?;
        let before = slot.table.clone();
        let prefix = prefix_of(key);
        let is_barrier = self.barrier && prefix == any_v4();
        if slot.rules.is_empty() && slot.opened.is_empty() && !is_barrier {
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
    (V4_BITS, mask(Addr::from_v4_word(0), V4_BITS))
}

/// `::/0`: every IPv6 address.
const ANY_V6: Prefix = (0, Addr::UNSPECIFIED);

/// Where a rule applies. A host name may resolve to any address.
fn prefixes_of(target: &EgressTarget) -> Vec<Prefix> {
    match target {
        EgressTarget::Host(_) | EgressTarget::Wildcard(_) => vec![any_v4(), ANY_V6],
        EgressTarget::Net(ip, len) => {
            let bits = u32::from(*len) + if ip.is_ipv4() { V4_BITS } else { 0 };
            vec![(bits, mask(Addr::from(*ip), bits))]
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
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proxy_common::{EgressEntry, EgressKey, PolicySetId, PortKey, PortTableId, Tables as _};

    use super::*;
    use crate::config::object::{EgressSource, ObjectName};
    use crate::tables::TableSet;

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
        apply(&mut all, Prefixes::new(&[]).update(new));
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
            steps in proptest::collection::vec((0..6_u32, 0..4_u8, 0..4_u8, 1..4_u16, 0..8_u8), 1..30)
        ) {
            let mut rules: BTreeMap<u32, NumberedRule> = BTreeMap::new();
            let (mut prefixes, mut all) = (Prefixes::new(&[]), BTreeMap::new());
            for (number, net_of, length, port, kind) in steps {
                let (family, gone) = (kind / 2, kind % 2);
                let length = [0, 8, 16, 32][usize::from(length)];
                let target = match family {
                    0 | 1 => EgressTarget::Net(
                        network(Ipv4Addr::new(10, net_of, 0, 1), length),
                        length,
                    ),
                    2 => {
                        let length = [0_u8, 1, 95, 128][usize::from(net_of)];
                        let ip = Addr::from(IpAddr::from([0_u16; 8]));
                        EgressTarget::Net(mask(ip, u32::from(length)).to_ip(), length)
                    }
                    _ => EgressTarget::Wildcard("example".into()),
                };
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

    fn tcp(port: u16) -> (Port, Transport) {
        (Port(port), Transport::Tcp)
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
            narrow[&tcp(443)],
            PortEntry::new(EgressAction::Direct, RuleId(1))
        );
        assert_eq!(
            narrow[&tcp(80)],
            PortEntry::new(EgressAction::Http, RuleId(2))
        );
        assert_eq!(
            narrow[&tcp(8080)],
            PortEntry::new(EgressAction::HttpByName, RuleId(3))
        );
        let wide = &prefixes[&(96 + 8, Ipv4Addr::new(10, 0, 0, 0).into())];
        assert!(
            !wide.contains_key(&tcp(80)),
            "a longer prefix opens nothing outside itself"
        );
    }

    #[test]
    fn of_two_ways_through_one_port_the_wider_wins() {
        let http = rule(net(10, 1, 2, 3, 32), &[(80, EgressProtocol::Http)]);
        let wide = rule(net(10, 0, 0, 0, 8), &[(80, EgressProtocol::Tcp)]);
        let prefixes = compile([(RuleId(1), &http), (RuleId(2), &wide)].into_iter());
        let exact = &prefixes[&(128, Ipv4Addr::new(10, 1, 2, 3).into())];
        assert_eq!(
            exact[&tcp(80)],
            PortEntry::new(EgressAction::Direct, RuleId(2))
        );
    }

    #[test]
    fn a_rule_on_ipv6_opens_no_ipv4() {
        let v6 = |text: &str, len| EgressTarget::Net(text.parse().unwrap(), len);
        let all = rule(v6("::", 0), &[(443, EgressProtocol::Tcp)]);
        let near = rule(v6("fd00::", 8), &[(80, EgressProtocol::Http)]);
        let v4 = rule(net(10, 0, 0, 0, 8), &[(25, EgressProtocol::Tcp)]);
        let rules = [(RuleId(1), &all), (RuleId(2), &near), (RuleId(3), &v4)];
        let prefixes = compile(rules.into_iter());
        let ports = |prefix: &Prefix| prefixes[prefix].keys().copied().collect::<Vec<_>>();
        let near = Addr::from("fd00::".parse::<Ipv6Addr>().unwrap());
        assert_eq!(ports(&ANY_V6), [tcp(443)]);
        assert_eq!(ports(&(8, near)), [tcp(80), tcp(443)]);
        assert!(ports(&any_v4()).is_empty());
        let v4 = (96 + 8, Ipv4Addr::new(10, 0, 0, 0).into());
        assert_eq!(ports(&v4), [tcp(25)]);
    }

    /// The resolvers are open to both transports, whatever the rules say around them.
    #[test]
    fn resolvers_are_open_beside_the_rules() {
        let resolver = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 53), 53));
        let mut prefixes = Prefixes::new(&[resolver]);
        let mut all = BTreeMap::new();
        apply(&mut all, prefixes.update([]));
        let exact = (128, Ipv4Addr::new(10, 0, 0, 53).into());
        let entry = PortEntry::new(EgressAction::Resolver, RuleId::NONE);
        let dns = [(tcp(53), entry), ((Port(53), Transport::Udp), entry)];
        assert_eq!(all, BTreeMap::from([(exact, PortTable::from(dns))]));
        let wide = rule(net(10, 0, 0, 0, 8), &[(25, EgressProtocol::Tcp)]);
        let wide = (RuleId(1), Arc::new(wide));
        let added = RuleChange {
            before: None,
            after: Some(wide.clone()),
        };
        apply(&mut all, prefixes.update([added]));
        assert_eq!(all[&exact].len(), 3, "{all:?}");
        let removed = RuleChange {
            before: Some(wide),
            after: None,
        };
        apply(&mut all, prefixes.update([removed]));
        assert_eq!(all, BTreeMap::from([(exact, PortTable::from(dns))]));
        apply(&mut all, prefixes.clear());
        assert!(all.is_empty(), "{all:?}");
    }

    #[test]
    fn a_host_name_may_lead_to_either_family() {
        let host = EgressTarget::Host("a.example".into());
        let host = rule(host, &[(80, EgressProtocol::Http)]);
        let prefixes = compile([(RuleId(1), &host)].into_iter());
        let by_name = PortEntry::new(EgressAction::HttpByName, RuleId(1));
        for prefix in [ANY_V6, any_v4()] {
            assert_eq!(prefixes[&prefix][&tcp(80)], by_name);
        }
        assert_eq!(prefixes.len(), 2);
    }

    #[test]
    fn the_whole_of_ipv4_is_one_prefix_of_ours() {
        let all = rule(net(0, 0, 0, 0, 0), &[(53, EgressProtocol::Tcp)]);
        let prefixes = compile([(RuleId(1), &all)].into_iter());
        assert_eq!(prefixes.keys().copied().collect::<Vec<_>>(), [any_v4()]);
    }

    /// Few values, so that prefixes nest and ports meet.
    fn some_target() -> impl Strategy<Value = EgressTarget> {
        prop_oneof![
            4 => (0_u8..2, 0_u8..2, 0_u8..2, prop_oneof![
                Just(0_u8), Just(8), Just(15), Just(16), Just(24), Just(31), Just(32)
            ])
                .prop_map(|(b, c, d, len)| net(10, b, c, d, len)),
            2 => (0_u16..2, 0_u16..2, prop_oneof![
                Just(0_u8), Just(1), Just(16), Just(31), Just(96), Just(127), Just(128)
            ])
                .prop_map(|(a, h, len)| {
                    let ip = IpAddr::from([a, 0, 0, 0, 0, 0, 0, h]);
                    EgressTarget::Net(mask(Addr::from(ip), len.into()).to_ip(), len)
                }),
            1 => Just(EgressTarget::Wildcard("example".into())),
        ]
    }

    fn some_rule() -> impl Strategy<Value = EgressRule> {
        let ports = vec((1_u16..4, 0..3), 1..3);
        (some_target(), ports).prop_map(|(target, ports)| {
            let ports: Vec<_> = ports
                .into_iter()
                .map(|(port, protocol)| {
                    let by_address = matches!(target, EgressTarget::Net(..));
                    let protocol = match protocol {
                        0 if by_address => EgressProtocol::Tcp,
                        1 if by_address => EgressProtocol::Udp,
                        _ => EgressProtocol::Http,
                    };
                    (port, protocol)
                })
                .collect();
            rule(target, &ports)
        })
    }

    /// What the rules say, each asked for itself.
    fn union(rules: &[EgressRule], ip: IpAddr, port: (Port, Transport)) -> Option<EgressAction> {
        let speaks = |rule: &&EgressRule| match &rule.target {
            EgressTarget::Net(net, len) => match (net, ip) {
                (IpAddr::V4(net), IpAddr::V4(ip)) => {
                    let kept = u32::MAX.checked_shl(32 - u32::from(*len)).unwrap_or(0);
                    u32::from(*net) & kept == u32::from(ip) & kept
                }
                (IpAddr::V6(net), IpAddr::V6(ip)) => {
                    let kept = u128::MAX.checked_shl(128 - u32::from(*len)).unwrap_or(0);
                    u128::from(*net) & kept == u128::from(ip) & kept
                }
                _ => false,
            },
            EgressTarget::Host(_) | EgressTarget::Wildcard(_) => true,
        };
        let ways = rules.iter().filter(speaks).flat_map(|rule| {
            let of_port = rule
                .ports
                .iter()
                .filter(|(open, protocol)| (*open, protocol.transport()) == port);
            of_port.map(|(_, protocol)| action(&rule.target, *protocol))
        });
        ways.min()
    }

    proptest! {
        #[test]
        fn one_look_up_says_what_all_rules_say(
            rules in vec(some_rule(), 0..8),
            asked in vec(((any::<bool>(), 0_u8..3, 0_u8..3, 0_u8..3), 1_u16..5, any::<bool>()), 1..20),
        ) {
            let policy_set = PolicySetId(1);
            let mut tables = TableSet::default();
            let numbered = (1..).map(RuleId).zip(&rules);
            let port_tables = (0..).map(PortTableId);
            for (port_table, ((bits, addr), ports)) in port_tables.zip(compile(numbered)) {
                let key = EgressKey { policy_set, addr };
                tables.egress.insert((32 + bits, key), EgressEntry { port_table });
                for ((port, transport), entry) in ports {
                    let key = PortKey::new(port_table, port, transport);
                    tables.egress_ports.insert(key, entry);
                }
            }
            for ((v4, b, c, d), port, is_udp) in asked {
                let transport = if is_udp { Transport::Udp } else { Transport::Tcp };
                let ip = if v4 {
                    IpAddr::from([10, b, c, d])
                } else {
                    IpAddr::from([b.into(), 0, 0, 0, 0, 0, c.into(), u16::from(d)])
                };
                let port = Port(port);
                let found = tables
                    .egress(&EgressKey { policy_set, addr: ip.into() })
                    .and_then(|entry| {
                        let port_table = entry.port_table;
                        tables.egress_port(&PortKey::new(port_table, port, transport))
                    });
                let found = found.map(|entry| entry.action());
                prop_assert_eq!(found, union(&rules, ip, (port, transport)), "{}:{}/{}", ip, port, transport);
            }
        }
    }
}
