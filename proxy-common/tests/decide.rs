//! `decide`, step by step.

mod world;

use std::net::IpAddr;

use proxy_common::{
    Addr, Block, Decision, Destination, EgressAction, EgressDefault, Listener, NetnsCookie,
    NetworkId, Port, PortEntry, PortKey, PortTableId, Reason, Route, RouteKey, RuleId,
    ServiceEntry, ServiceId, ServiceKey, Transport, Verdict, Workload, WorkloadId, decide,
};
use world::{HERE, LISTENER, NETWORK, POLICY, Plain, addr, addr6, workload};

fn ask(tables: &Plain, default: EgressDefault, addr: Addr, port: u16) -> Decision {
    let dst = Destination {
        addr,
        port: Port(port),
    };
    decide(tables, &workload(default), HERE, Transport::Tcp, dst)
}

fn key(addr: Addr, port: u16) -> ServiceKey {
    let port = Port(port);
    ServiceKey::new(NETWORK, Destination { addr, port }, Transport::Tcp)
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
    let key = key(addr(2), 80);
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
        let key = PortKey::new(PortTableId(5), Port(port), Transport::Tcp);
        tables.ports.insert(key, entry);
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
        tables.services.insert(key(addr, 5432), entry);
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
    let key = key(addr6(2), 80);
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
    assert_eq!(
        decide(&tables, &both, HERE, Transport::Tcp, dst).verdict,
        Verdict::Proxy
    );
    let none = Workload {
        listeners_len: 0,
        ..Workload::default()
    };
    let down = Workload {
        network: NETWORK,
        ..none
    };
    let decision = decide(&tables, &down, HERE, Transport::Tcp, dst);
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
    assert_eq!(
        decide(&tables, &elsewhere, HERE, Transport::Tcp, dst),
        denied
    );
    let own = Destination {
        addr: addr(1),
        ..dst
    };
    let from_elsewhere = decide(
        &tables,
        &workload(EgressDefault::Deny),
        NetnsCookie(8),
        Transport::Tcp,
        own,
    );
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
        decide(&mesh(), &broken, HERE, Transport::Tcp, dst),
        spoke(Verdict::Deny, Reason::EgressDenied)
    );
}

/// What differs for UDP: its own ports, nothing proxied, names that cannot be checked.
#[test]
fn datagrams_have_ports_of_their_own() {
    let mut tables = mesh();
    let udp = |tables: &Plain, default, addr, port| {
        let port = Port(port);
        let dst = Destination { addr, port };
        decide(tables, &workload(default), HERE, Transport::Udp, dst)
    };
    let deny = EgressDefault::Deny;
    let own = udp(&tables, deny, addr(1), LISTENER.0);
    assert_eq!(own, spoke(Verdict::Direct, Reason::OwnAddress));
    let unknown = spoke(Verdict::Deny, Reason::UnknownServicePort);
    assert_eq!(udp(&tables, deny, addr(2), 80), unknown);
    let at = |addr, port| {
        let dst = Destination {
            addr,
            port: Port(port),
        };
        ServiceKey::new(NETWORK, dst, Transport::Udp)
    };
    let proxied = ServiceEntry::proxied(ServiceId(7));
    tables.services.insert(at(addr(2), 80), proxied);
    let decision = udp(&tables, deny, addr(2), 80);
    assert_eq!(decision.verdict, Verdict::Balance, "over nobody");
    assert_eq!(decision.block, Block::EMPTY);
    // What TCP rules open is closed to UDP; a rule on a name says why.
    for (port, reason, rule) in [
        (1, Reason::EgressDenied, RuleId::NONE),
        (2, Reason::EgressDenied, RuleId::NONE),
        (3, Reason::NameOverUdp, RuleId(3)),
    ] {
        let decision = udp(&tables, deny, addr(4), port);
        assert_eq!(
            (decision.verdict, decision.reason, decision.rule),
            (Verdict::Deny, reason, rule)
        );
        let decision = udp(&tables, EgressDefault::Audit, addr(4), port);
        assert_eq!(decision.reason, Reason::EgressAudited, "{port}");
    }
    for (port, action, reason) in [
        (3, EgressAction::Direct, Reason::EgressRule),
        (53, EgressAction::Resolver, Reason::Resolver),
    ] {
        let key = PortKey::new(PortTableId(5), Port(port), Transport::Udp);
        tables.ports.insert(key, PortEntry::new(action, RuleId(9)));
        let decision = udp(&tables, deny, addr(4), port);
        assert_eq!(
            (decision.verdict, decision.reason),
            (Verdict::Direct, reason)
        );
    }
}
