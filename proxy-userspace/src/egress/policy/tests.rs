//! The union of egress rules, by hand and against a model of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;
use proxy_common::{EgressEntry, EgressKey, PolicySetId, PortKey, PortTableId, Tables as _};

use super::*;
use crate::config::object::{EgressSource, ObjectName};
use crate::tables::TableSet;

fn network(addr: Ipv4Addr, length: u8) -> IpAddr {
    Addr::from(addr).prefix(V4_BITS + u32::from(length)).to_ip()
}

/// What these rules open, all of them new.
fn compile<'a>(
    rules: impl Iterator<Item = (RuleId, &'a EgressRule)>,
) -> BTreeMap<Prefix, PortTable> {
    let new = rules.map(|(id, rule)| {
        let mut rule = rule.clone();
        rule.name = ObjectName::new("default", &format!("r{}", id.0));
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
                    EgressTarget::Net(ip.prefix(u32::from(length)).to_ip(), length)
                }
                _ => EgressTarget::Wildcard("example".into()),
            };
            let protocol = if port == 1 { EgressProtocol::Http } else { EgressProtocol::Tcp };
            let mut new = rule(target, &[(port, protocol)]);
            new.name = ObjectName::new("default", &format!("r{number}"));
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
        name: ObjectName::new("default", "r"),
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
    assert!(!prefixes.contains_key(&any_v4()));
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
                EgressTarget::Net(Addr::from(ip).prefix(len.into()).to_ip(), len)
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
            let key = EgressKey { policy_set, bits, addr };
            tables.egress.insert(key, EgressEntry { port_table });
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
            let found = tables.egress(policy_set, &ip.into())
                .and_then(|entry| {
                    let port_table = entry.port_table;
                    tables.egress_port(&PortKey::new(port_table, port, transport))
                });
            let found = found.map(|entry| entry.action());
            prop_assert_eq!(found, union(&rules, ip, (port, transport)), "{}:{}/{}", ip, port, transport);
        }
    }
}
