//! `decide` against a second telling of its contract, on random tables.

mod world;

use std::collections::HashMap;
use std::net::Ipv4Addr;

use proptest::collection::{hash_map, hash_set, vec};
use proptest::prelude::*;
use proxy_common::{
    Addr, Destination, EgressAction, EgressDefault, NetworkId, PolicySetId, Port, PortEntry,
    PortKey, PortTableId, Reason, Route, RuleId, ServiceAction, ServiceEntry, ServiceId,
    ServiceKey, Transport, Verdict, Workload, decide,
};
use world::{HERE, LISTENER, Plain, addr, addr6, workload};

/// The contract once more, told from its end: what lets a connect pass at all,
/// where the workload's one listener is of IPv4.
fn may_pass(
    tables: &Plain,
    workload: &Workload,
    transport: Transport,
    dst: Destination,
) -> Option<Verdict> {
    by_tables(tables, workload, transport, dst)
        .filter(|verdict| *verdict != Verdict::Proxy || dst.addr.is_v4())
}

fn by_tables(
    tables: &Plain,
    workload: &Workload,
    transport: Transport,
    dst: Destination,
) -> Option<Verdict> {
    let is_udp = transport == Transport::Udp;
    let (addr, port) = (dst.addr, dst.port);
    let inside =
        addr.is_loopback() || addr.is_unspecified() || tables.local.contains(&(HERE, addr));
    if inside {
        return (port != LISTENER || is_udp).then_some(Verdict::Direct);
    }
    match tables.addresses.get(&(workload.network, addr)) {
        Some(false) => return Some(Verdict::Direct),
        Some(true) => {
            let key = ServiceKey::new(workload.network, dst, transport);
            let entry = tables.services.get(&key)?;
            return Some(match entry.action() {
                ServiceAction::Proxy if !is_udp => Verdict::Proxy,
                // Nothing proxies datagrams: such an entry balances over nobody.
                _ => Verdict::Balance,
            });
        }
        None => {}
    }
    let entry = tables
        .egress
        .get(&(workload.policy_set, addr))
        .and_then(|table| tables.ports.get(&PortKey::new(*table, port, transport)));
    let lenient = workload.egress_default() != EgressDefault::Deny;
    match entry.map(PortEntry::action) {
        Some(EgressAction::Direct | EgressAction::Resolver) => Some(Verdict::Direct),
        Some(EgressAction::Http) if !is_udp => Some(Verdict::Proxy),
        Some(EgressAction::HttpByName) if !lenient && !is_udp => Some(Verdict::Proxy),
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

fn some_transport() -> impl Strategy<Value = Transport> {
    prop_oneof![Just(Transport::Tcp), Just(Transport::Udp)]
}

fn some_network() -> impl Strategy<Value = NetworkId> {
    (1_u32..3).prop_map(NetworkId)
}

fn some_entry() -> impl Strategy<Value = PortEntry> {
    let action = prop_oneof![
        Just(EgressAction::Direct),
        Just(EgressAction::Resolver),
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
            (some_network(), some_addr(), some_port(), some_transport()).prop_map(
                |(network, addr, port, transport)| {
                    ServiceKey::new(network, Destination { addr, port }, transport)
                }
            ),
            some_service(),
            0..12,
        ),
        egress in hash_map(
            ((2_u32..4).prop_map(PolicySetId), some_addr()),
            (0_u32..3).prop_map(PortTableId),
            0..8,
        ),
        ports in hash_map(
            ((0_u32..3), some_port(), some_transport()).prop_map(|(table, port, transport)| {
                PortKey::new(PortTableId(table), port, transport)
            }),
            some_entry(),
            0..12,
        ),
    ) -> Plain {
        let routes = HashMap::new();
        // No table ever holds a port whose address is not a service's.
        let of_services = services.keys().map(|key| ((key.network, key.addr), true));
        let addresses = addresses.into_iter().chain(of_services).collect();
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
        asked in vec((some_addr(), some_port(), some_transport()), 1..20),
    ) {
        let workload = Workload {
            own: tables.local.iter().map(|(_, addr)| *addr).collect(),
            ..workload(default)
        };
        for (addr, port, transport) in asked {
            let dst = Destination { addr, port };
            let decision = decide(&tables, &workload, HERE, transport, dst);
            let expected = may_pass(&tables, &workload, transport, dst).unwrap_or(Verdict::Deny);
            prop_assert_eq!(decision.verdict, expected, "{:?} gives {:?}", dst, decision);
            // Whoever reads a decision relies on these.
            prop_assert_eq!(
                decision.service != ServiceId::NONE,
                decision.reason == Reason::Service
            );
            let by_rule = [Reason::EgressRule, Reason::EgressByName, Reason::NameOverUdp];
            if by_rule.contains(&decision.reason) {
                prop_assert_ne!(decision.rule, RuleId::NONE);
            }
        }
    }
}
