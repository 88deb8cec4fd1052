//! `decide`, step by step and against a second telling of its contract.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::{hash_map, hash_set, vec};
use proptest::prelude::*;
use proxy_common::{
    Addr, AddressEntry, AddressKey, AddressKind, Block, Decision, Destination, EgressAction,
    EgressDefault, EgressEntry, EgressKey, EndpointSlot, Listener, LocalKey, NetnsCookie,
    NetworkId, PolicySetId, Port, PortEntry, PortKey, PortTableId, Reason, Route, RouteKey, RuleId,
    ServiceAction, ServiceEntry, ServiceId, ServiceKey, Tables, Verdict, Workload, WorkloadId,
    decide,
};

const HERE: NetnsCookie = NetnsCookie(7);
const NETWORK: NetworkId = NetworkId(1);
const POLICY: PolicySetId = PolicySetId(3);
const LISTENER: Port = Port(40_000);

/// Tables without anything clever: exact addresses stand for prefixes.
#[derive(Clone, Debug, Default)]
struct Plain {
    local: HashSet<(NetnsCookie, Addr)>,
    addresses: HashMap<(NetworkId, Addr), bool>,
    services: HashMap<(NetworkId, Addr, Port), ServiceEntry>,
    routes: HashMap<RouteKey, Route>,
    egress: HashMap<(PolicySetId, Addr), PortTableId>,
    ports: HashMap<(PortTableId, Port), PortEntry>,
}

impl Tables for Plain {
    fn is_local(&self, key: &LocalKey) -> bool {
        self.local.contains(&(key.netns, key.addr))
    }

    fn address(&self, key: &AddressKey) -> Option<AddressEntry> {
        let kind = |service: &bool| {
            if *service {
                AddressKind::Service
            } else {
                AddressKind::Workload
            }
        };
        let service = self.addresses.get(&(key.network, key.addr))?;
        Some(AddressEntry::new(kind(service)))
    }

    fn service(&self, key: &ServiceKey) -> Option<ServiceEntry> {
        let key = (key.network, key.addr, key.port);
        self.services.get(&key).copied()
    }

    fn route(&self, key: &RouteKey) -> Option<Route> {
        self.routes.get(key).copied()
    }

    fn endpoint(&self, _: u32) -> Option<EndpointSlot> {
        unreachable!("to decide is not to choose")
    }

    fn egress(&self, key: &EgressKey) -> Option<EgressEntry> {
        let port_table = *self.egress.get(&(key.policy_set, key.addr))?;
        Some(EgressEntry { port_table })
    }

    fn egress_port(&self, key: &PortKey) -> Option<PortEntry> {
        self.ports.get(&(key.port_table, key.port)).copied()
    }
}

fn addr(last: u8) -> Addr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

fn addr6(last: u8) -> Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into()).into()
}

fn workload(default: EgressDefault) -> Workload {
    let mut workload = Workload {
        id: WorkloadId(1),
        network: NETWORK,
        policy_set: POLICY,
        egress_default: default as u8,
        listeners_len: 1,
        ..Workload::default()
    };
    workload.listeners[0] = Listener {
        addr: addr(1),
        port: LISTENER,
        ..Listener::default()
    };
    workload
}

fn ask(tables: &Plain, default: EgressDefault, addr: Addr, port: u16) -> Decision {
    let dst = Destination {
        addr,
        port: Port(port),
    };
    decide(tables, &workload(default), HERE, dst)
}

fn spoke(verdict: Verdict, reason: Reason) -> Decision {
    Decision::plain(verdict, reason)
}

/// One of everything: own address .1, service .2 with port 80, workload .3,
/// external .4 with a port for each action.
fn mesh() -> Plain {
    let mut tables = Plain::default();
    tables.local.insert((HERE, addr(1)));
    tables.addresses.insert((NETWORK, addr(2)), true);
    let key = (NETWORK, addr(2), Port(80));
    tables
        .services
        .insert(key, ServiceEntry::proxied(ServiceId(9)));
    tables.addresses.insert((NETWORK, addr(3)), false);
    tables.egress.insert((POLICY, addr(4)), PortTableId(5));
    for (port, action) in [
        (1, EgressAction::Direct),
        (2, EgressAction::Http),
        (3, EgressAction::HttpByName),
    ] {
        let entry = PortEntry::new(action, RuleId(u32::from(port)));
        tables.ports.insert((PortTableId(5), Port(port)), entry);
    }
    tables
}

#[test]
fn what_stays_in_the_pod_is_direct_but_for_the_listener() {
    let tables = mesh();
    let ask = |addr, port| ask(&tables, EgressDefault::Deny, addr, port);
    let v6 = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
    for inside in [
        v6("127.0.0.1"),
        v6("127.9.9.9"),
        v6("0.0.0.0"),
        v6("::1"),
        v6("::"),
    ] {
        assert_eq!(ask(inside, 80), spoke(Verdict::Direct, Reason::Loopback));
        assert_eq!(
            ask(inside, LISTENER.0),
            spoke(Verdict::Deny, Reason::Listener)
        );
    }
    assert_eq!(ask(addr(1), 80), spoke(Verdict::Direct, Reason::OwnAddress));
    assert_eq!(
        ask(addr(1), LISTENER.0),
        spoke(Verdict::Deny, Reason::Listener)
    );
    assert_eq!(
        ask(addr(9), LISTENER.0),
        spoke(Verdict::Deny, Reason::EgressDenied),
        "a port is a listener's only inside the pod"
    );
}

#[test]
fn a_service_is_its_address_and_its_ports() {
    let tables = mesh();
    for default in [
        EgressDefault::Deny,
        EgressDefault::Allow,
        EgressDefault::Audit,
    ] {
        let proxied = Decision {
            service: ServiceId(9),
            ..spoke(Verdict::Proxy, Reason::Service)
        };
        assert_eq!(ask(&tables, default, addr(2), 80), proxied);
        assert_eq!(
            ask(&tables, default, addr(2), 81),
            spoke(Verdict::Deny, Reason::UnknownServicePort)
        );
        assert_eq!(
            ask(&tables, default, addr(3), 80),
            spoke(Verdict::Direct, Reason::Workload)
        );
    }
}

#[test]
fn a_balanced_port_goes_where_its_route_says() {
    let mut tables = mesh();
    let route = |offset, rule| Route {
        block: Block {
            offset,
            len: 1,
            ..Block::EMPTY
        },
        rule: RuleId(rule),
    };
    let of_all = ServiceEntry::balanced(ServiceId(9), route(5, 6));
    let by_source = ServiceEntry::balanced_by_source(ServiceId(8));
    for (addr, entry) in [
        (addr(2), of_all),
        (addr(4), by_source),
        (addr6(4), by_source),
    ] {
        tables.addresses.insert((NETWORK, addr), true);
        tables.services.insert((NETWORK, addr, Port(5432)), entry);
    }
    let key = RouteKey {
        service: ServiceId(8),
        workload: WorkloadId(1),
        v6: 0,
    };
    tables.routes.insert(key, route(7, 8));
    let decided = |addr| {
        let decision = ask(&tables, EgressDefault::Deny, addr, 5432);
        assert_eq!(
            (decision.verdict, decision.reason),
            (Verdict::Balance, Reason::Service)
        );
        (decision.service.0, decision.rule.0, decision.block.offset)
    };
    assert_eq!(decided(addr(2)), (9, 6, 5));
    assert_eq!(decided(addr(4)), (8, 8, 7));
    // The other family has a table of its own; without one, nobody is there.
    let nowhere = (8, RuleId::NONE.0, Block::EMPTY.offset);
    assert_eq!(decided(addr6(4)), nowhere);
}

#[test]
fn without_a_listener_of_the_family_what_needs_the_proxy_is_denied() {
    let mut tables = mesh();
    tables.addresses.insert((NETWORK, addr6(2)), true);
    let key = (NETWORK, addr6(2), Port(80));
    tables
        .services
        .insert(key, ServiceEntry::proxied(ServiceId(9)));
    tables.addresses.insert((NETWORK, addr6(3)), false);
    let ask6 = |addr| ask(&tables, EgressDefault::Deny, addr, 80);
    let cut_off = spoke(Verdict::Deny, Reason::NoListener);
    assert_eq!(ask6(addr6(2)), cut_off);
    let direct = spoke(Verdict::Direct, Reason::Workload);
    assert_eq!(
        ask6(addr6(3)),
        direct,
        "what needs no proxy needs no listener"
    );
    let dst = Destination {
        addr: addr6(2),
        port: Port(80),
    };
    let mut both = workload(EgressDefault::Deny);
    both.listeners[1] = Listener {
        addr: addr6(1),
        port: Port(40_001),
        ..Listener::default()
    };
    assert_eq!(decide(&tables, &both, HERE, dst).verdict, Verdict::Proxy);
    let none = Workload {
        listeners_len: 0,
        ..Workload::default()
    };
    let down = Workload {
        network: NETWORK,
        ..none
    };
    let decision = decide(&tables, &down, HERE, dst);
    assert_eq!(
        decision.verdict,
        Verdict::Proxy,
        "the proxy is down: another matter"
    );
}

#[test]
fn another_network_or_namespace_is_another_world() {
    let tables = mesh();
    let dst = Destination {
        addr: addr(2),
        port: Port(80),
    };
    let elsewhere = Workload {
        network: NetworkId(2),
        ..workload(EgressDefault::Deny)
    };
    let denied = spoke(Verdict::Deny, Reason::EgressDenied);
    assert_eq!(decide(&tables, &elsewhere, HERE, dst), denied);
    let own = Destination {
        addr: addr(1),
        ..dst
    };
    let from_elsewhere = decide(&tables, &workload(EgressDefault::Deny), NetnsCookie(8), own);
    assert_eq!(from_elsewhere, denied);
}

#[test]
fn external_is_what_the_rules_and_then_the_default_say() {
    let tables = mesh();
    let by_rule = |verdict, reason, rule| Decision {
        rule: RuleId(rule),
        ..spoke(verdict, reason)
    };
    for (default, unnamed, by_name) in [
        (
            EgressDefault::Deny,
            spoke(Verdict::Deny, Reason::EgressDenied),
            by_rule(Verdict::Proxy, Reason::EgressByName, 3),
        ),
        (
            EgressDefault::Allow,
            spoke(Verdict::Direct, Reason::EgressAllowed),
            by_rule(Verdict::Direct, Reason::EgressAllowed, 3),
        ),
        (
            EgressDefault::Audit,
            spoke(Verdict::Direct, Reason::EgressAudited),
            by_rule(Verdict::Direct, Reason::EgressAudited, 3),
        ),
    ] {
        let ask = |addr, port| ask(&tables, default, addr, port);
        let opened = by_rule(Verdict::Direct, Reason::EgressRule, 1);
        assert_eq!(ask(addr(4), 1), opened);
        let as_http = by_rule(Verdict::Proxy, Reason::EgressRule, 2);
        assert_eq!(ask(addr(4), 2), as_http);
        assert_eq!(ask(addr(4), 3), by_name);
        assert_eq!(ask(addr(4), 4), unnamed, "a port that no rule opens");
        assert_eq!(ask(addr(5), 1), unnamed, "an address that no rule covers");
    }
}

#[test]
fn unknown_bytes_in_a_table_close() {
    let broken = Workload {
        egress_default: 77,
        ..workload(EgressDefault::Allow)
    };
    let dst = Destination {
        addr: addr(9),
        port: Port(1),
    };
    assert_eq!(
        decide(&mesh(), &broken, HERE, dst),
        spoke(Verdict::Deny, Reason::EgressDenied)
    );
}

/// The contract once more, told from its end: what lets a connect pass at all,
/// where the workload's one listener is of IPv4.
fn may_pass(tables: &Plain, workload: &Workload, dst: Destination) -> Option<Verdict> {
    by_tables(tables, workload, dst)
        .filter(|verdict| *verdict == Verdict::Direct || dst.addr.is_v4())
}

fn by_tables(tables: &Plain, workload: &Workload, dst: Destination) -> Option<Verdict> {
    let (addr, port) = (dst.addr, dst.port);
    let inside =
        addr.is_loopback() || addr.is_unspecified() || tables.local.contains(&(HERE, addr));
    if inside {
        return (port != LISTENER).then_some(Verdict::Direct);
    }
    match tables.addresses.get(&(workload.network, addr)) {
        Some(false) => return Some(Verdict::Direct),
        Some(true) => {
            let entry = tables.services.get(&(workload.network, addr, port))?;
            return Some(match entry.action() {
                ServiceAction::Proxy => Verdict::Proxy,
                ServiceAction::Balance | ServiceAction::BalanceBySource => Verdict::Balance,
            });
        }
        None => {}
    }
    let entry = tables
        .egress
        .get(&(workload.policy_set, addr))
        .and_then(|table| tables.ports.get(&(*table, port)));
    let lenient = workload.egress_default() != EgressDefault::Deny;
    match entry.map(PortEntry::action) {
        Some(EgressAction::Direct) => Some(Verdict::Direct),
        Some(EgressAction::Http) => Some(Verdict::Proxy),
        Some(EgressAction::HttpByName) if !lenient => Some(Verdict::Proxy),
        _ => lenient.then_some(Verdict::Direct),
    }
}

/// Few values, so that what is asked is often what is there.
fn some_addr() -> impl Strategy<Value = Addr> {
    prop_oneof![
        6 => (0_u8..6).prop_map(addr),
        2 => (0_u8..6).prop_map(addr6),
        1 => Just(Ipv4Addr::LOCALHOST.into()),
        1 => Just(Addr::UNSPECIFIED),
    ]
}

fn some_port() -> impl Strategy<Value = Port> {
    prop_oneof![4 => (1_u16..4).prop_map(Port), 1 => Just(LISTENER)]
}

fn some_network() -> impl Strategy<Value = NetworkId> {
    (1_u32..3).prop_map(NetworkId)
}

fn some_entry() -> impl Strategy<Value = PortEntry> {
    let action = prop_oneof![
        Just(EgressAction::Direct),
        Just(EgressAction::Http),
        Just(EgressAction::HttpByName)
    ];
    (action, 1_u32..9).prop_map(|(action, rule)| PortEntry::new(action, RuleId(rule)))
}

fn some_service() -> impl Strategy<Value = ServiceEntry> {
    (1_u32..9, 0..3).prop_map(|(service, action)| match action {
        0 => ServiceEntry::proxied(ServiceId(service)),
        1 => ServiceEntry::balanced(ServiceId(service), Route::EMPTY),
        _ => ServiceEntry::balanced_by_source(ServiceId(service)),
    })
}

prop_compose! {
    fn some_tables()(
        local in hash_set((Just(HERE), some_addr()), 0..3),
        addresses in hash_map((some_network(), some_addr()), any::<bool>(), 0..6),
        services in hash_map(
            (some_network(), some_addr(), some_port()),
            some_service(),
            0..8,
        ),
        egress in hash_map(
            ((2_u32..4).prop_map(PolicySetId), some_addr()),
            (0_u32..3).prop_map(PortTableId),
            0..8,
        ),
        ports in hash_map(((0_u32..3).prop_map(PortTableId), some_port()), some_entry(), 0..8),
    ) -> Plain {
        let routes = HashMap::new();
        Plain { local, addresses, services, routes, egress, ports }
    }
}

proptest! {
    #[test]
    fn it_is_what_the_contract_says(
        tables in some_tables(),
        default in prop_oneof![
            Just(EgressDefault::Deny),
            Just(EgressDefault::Allow),
            Just(EgressDefault::Audit)
        ],
        asked in vec((some_addr(), some_port()), 1..20),
    ) {
        let workload = workload(default);
        for (addr, port) in asked {
            let dst = Destination { addr, port };
            let decision = decide(&tables, &workload, HERE, dst);
            let expected = may_pass(&tables, &workload, dst).unwrap_or(Verdict::Deny);
            prop_assert_eq!(decision.verdict, expected, "{:?} gives {:?}", dst, decision);
            // Whoever reads a decision relies on these.
            prop_assert_eq!(
                decision.service != ServiceId::NONE,
                decision.reason == Reason::Service
            );
            if matches!(decision.reason, Reason::EgressRule | Reason::EgressByName) {
                prop_assert_ne!(decision.rule, RuleId::NONE);
            }
        }
    }
}
