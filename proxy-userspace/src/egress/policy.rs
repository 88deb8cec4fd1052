//! Egress rules, compiled into prefixes and port tables for the kernel.
//!
//! Owns the union: what a shorter prefix opens is open inside every longer one,
//! and of two ways to open one port the wider wins. Must never open what no
//! rule names.

use std::collections::BTreeMap;

use proxy_common::{Addr, EgressAction, Port, PortEntry, RuleId};

use crate::config::object::{EgressProtocol, EgressRule, EgressTarget};
use crate::snapshot::ids::PortTable;
use crate::tables::mask;

/// Bits of `::ffff:0:0/96`, in which every IPv4 address lies.
const V4_BITS: u32 = 96;

/// Prefix length in 128-bit terms, and the prefix.
pub type Prefix = (u32, Addr);

/// The prefixes that `rules` open, each with every port that is open there.
pub fn compile<'a>(
    rules: impl Iterator<Item = (RuleId, &'a EgressRule)>,
) -> BTreeMap<Prefix, PortTable> {
    let mut prefixes: BTreeMap<Prefix, PortTable> = BTreeMap::new();
    for (id, rule) in rules {
        for prefix in prefixes_of(&rule.target) {
            let table = prefixes.entry(prefix).or_default();
            for (port, protocol) in &rule.ports {
                let entry = PortEntry::new(action(&rule.target, *protocol), id);
                open(table, *port, entry);
            }
        }
    }
    // IPv4 lies within `::/0`, but a rule on IPv6 says nothing of it: an own
    // prefix, be it empty, keeps the look-up from going on to a shorter one.
    let (_, v4) = any_v4();
    let covers_v4 = |(bits, addr): &Prefix| *bits < V4_BITS && mask(v4, *bits) == *addr;
    if prefixes.keys().any(covers_v4) {
        prefixes.entry(any_v4()).or_default();
    }
    inherit(&mut prefixes);
    prefixes
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

/// Gives each prefix what the next shorter one of its family that covers it has:
/// by then that one holds what all shorter ones have, because they come first.
fn inherit(prefixes: &mut BTreeMap<Prefix, PortTable>) {
    let keys: Vec<Prefix> = prefixes.keys().copied().collect();
    for (bits, addr) in keys {
        let is_v4 = bits >= V4_BITS && addr.is_v4();
        let parent = (if is_v4 { V4_BITS } else { 0 }..bits)
            .rev()
            .find_map(|bits| prefixes.get(&(bits, mask(addr, bits))).cloned());
        if let (Some(parent), Some(table)) = (parent, prefixes.get_mut(&(bits, addr))) {
            for (port, entry) in parent {
                open(table, port, entry);
            }
        }
    }
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
    fn a_rule_on_ipv6_opens_no_ipv4() {
        let v6 = |text: &str, len| EgressTarget::Net(text.parse().unwrap(), len);
        let all = rule(v6("::", 0), &[(443, EgressProtocol::Tcp)]);
        let near = rule(v6("fd00::", 8), &[(80, EgressProtocol::Http)]);
        let v4 = rule(net(10, 0, 0, 0, 8), &[(25, EgressProtocol::Tcp)]);
        let rules = [(RuleId(1), &all), (RuleId(2), &near), (RuleId(3), &v4)];
        let prefixes = compile(rules.into_iter());
        let ports = |prefix: &Prefix| prefixes[prefix].keys().copied().collect::<Vec<_>>();
        let near = Addr::from("fd00::".parse::<Ipv6Addr>().unwrap());
        assert_eq!(ports(&ANY_V6), [Port(443)]);
        assert_eq!(ports(&(8, near)), [Port(80), Port(443)]);
        assert!(ports(&any_v4()).is_empty());
        let v4 = (96 + 8, Ipv4Addr::new(10, 0, 0, 0).into());
        assert_eq!(ports(&v4), [Port(25)]);
    }

    #[test]
    fn a_host_name_may_lead_to_either_family() {
        let host = EgressTarget::Host("a.example".into());
        let host = rule(host, &[(80, EgressProtocol::Http)]);
        let prefixes = compile([(RuleId(1), &host)].into_iter());
        let by_name = PortEntry::new(EgressAction::HttpByName, RuleId(1));
        for prefix in [ANY_V6, any_v4()] {
            assert_eq!(prefixes[&prefix][&Port(80)], by_name);
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
        let ports = vec((1_u16..4, any::<bool>()), 1..3);
        (some_target(), ports).prop_map(|(target, ports)| {
            let ports: Vec<_> = ports
                .into_iter()
                .map(|(port, tcp)| {
                    let by_address = matches!(target, EgressTarget::Net(..));
                    let protocol = if by_address && tcp {
                        EgressProtocol::Tcp
                    } else {
                        EgressProtocol::Http
                    };
                    (port, protocol)
                })
                .collect();
            rule(target, &ports)
        })
    }

    /// What the rules say, each asked for itself.
    fn union(rules: &[EgressRule], ip: IpAddr, port: Port) -> Option<EgressAction> {
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
            let of_port = rule.ports.iter().filter(|(open, _)| *open == port);
            of_port.map(|(_, protocol)| action(&rule.target, *protocol))
        });
        ways.min()
    }

    proptest! {
        #[test]
        fn one_look_up_says_what_all_rules_say(
            rules in vec(some_rule(), 0..8),
            asked in vec(((any::<bool>(), 0_u8..3, 0_u8..3, 0_u8..3), 1_u16..5), 1..20),
        ) {
            let policy_set = PolicySetId(1);
            let mut tables = TableSet::default();
            let numbered = (1..).map(RuleId).zip(&rules);
            let port_tables = (0..).map(PortTableId);
            for (port_table, ((bits, addr), ports)) in port_tables.zip(compile(numbered)) {
                let key = EgressKey { policy_set, addr };
                tables.egress.insert((32 + bits, key), EgressEntry { port_table });
                for (port, entry) in ports {
                    let key = PortKey { port_table, port, pad: 0 };
                    tables.egress_ports.insert(key, entry);
                }
            }
            for ((v4, b, c, d), port) in asked {
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
                        tables.egress_port(&PortKey { port_table, port, pad: 0 })
                    });
                let found = found.map(|entry| entry.action());
                prop_assert_eq!(found, union(&rules, ip, port), "{}:{}", ip, port.0);
            }
        }
    }
}
