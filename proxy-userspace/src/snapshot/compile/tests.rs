//! Snapshots made one from another are what they would be if made from nothing.

use std::net::IpAddr;

use proptest::prelude::*;
use proxy_common::{Acceleration, Port};

use super::*;
use crate::config::Object;
use crate::config::object::{
    AppProtocol, Labels, LocalPod, Route, RouteRule, Service, ServicePort, SourceMatch,
};

fn name(kind: &str, number: u8) -> ObjectName {
    ObjectName::new("default", &format!("{kind}{number}"))
}

fn labels(pairs: &[(&str, u8)]) -> Labels {
    let pair = |(key, value): &(&str, u8)| ((*key).to_owned(), value.to_string());
    pairs.iter().map(pair).collect()
}

fn v4(c: u8, d: u8) -> IpAddr {
    IpAddr::from([10, 0, c, d])
}

fn v6(c: u8, d: u8) -> IpAddr {
    IpAddr::from([0xfd00, 0, 0, 0, 0, 0, u16::from(c), u16::from(d)])
}

fn families(which: u8, c: u8, d: u8) -> Vec<IpAddr> {
    match which {
        0 => vec![v4(c, d)],
        1 => vec![v6(c, d)],
        _ => vec![v4(c, d), v6(c, d)],
    }
}

fn service(number: u8, a: u8, b: u8) -> Object {
    let protocol = if b == 0 {
        AppProtocol::Http
    } else {
        AppProtocol::Tcp
    };
    let port = |port| ServicePort {
        name: None,
        port: Port(port),
        target_port: Port(8000 + port),
        protocol,
    };
    Object::Service(Arc::new(Service {
        name: name("s", number),
        labels: Labels::new(),
        cluster_ips: families(a, 1, number),
        network: String::new(),
        ports: if b == 2 {
            vec![port(1), port(2)]
        } else {
            vec![port(1)]
        },
        selector: labels(&[("app", number)]),
    }))
}

fn workload(number: u8, a: u8, b: u8) -> Object {
    Object::Workload(Arc::new(Workload {
        name: name("w", number),
        labels: labels(&[("app", a % 2), ("version", b)]),
        addresses: families(a, 2, number),
        ready: (a, b) != (1, 1),
        network: String::new(),
        node: None,
        local: (number < 2).then(|| LocalPod {
            netns: "/".into(),
            cgroup: "/".into(),
            enrolled: true,
        }),
        accelerate: None,
    }))
}

fn rule(number: u8, a: u8, b: u8) -> Object {
    let share = |version, weight| Route {
        labels: labels(&[("version", version)]),
        weight,
    };
    Object::RouteRule(Arc::new(RouteRule {
        name: name("r", number),
        labels: Labels::new(),
        destination: name("s", a % 2),
        precedence: i32::from(number),
        source: (b > 0).then(|| SourceMatch {
            service: (b == 2).then(|| name("s", 1)),
            labels: if b == 1 {
                labels(&[("version", a)])
            } else {
                Labels::new()
            },
        }),
        request: Vec::new(),
        routes: vec![share(0, 25), share(b, 75)],
    }))
}

fn compiled(
    compiler: &mut Compiler,
    objects: &Objects,
    present: &OrdMap<Block, usize>,
    former: &Snapshot,
) -> Snapshot {
    let input = Input {
        objects,
        generation: 1,
        revision: 1,
        present,
    };
    let mut snapshot = compiler.compile(input, former).unwrap();
    let pods: Pods = objects
        .index()
        .inventory
        .local()
        .iter()
        .map(|(name, workload)| (name.clone(), Arc::new(Pod::hollow(workload))))
        .collect();
    compiler.place(&pods, former, &mut snapshot).unwrap();
    snapshot
}

proptest! {
    #[test]
    fn step_by_step_comes_to_the_same_as_at_once(
        steps in proptest::collection::vec(
            proptest::collection::vec((0..3_u8, 0..4_u8, 0..3_u8, 0..3_u8, 0..4_u8), 1..4),
            1..25,
        ),
    ) {
        let mut compiler = Compiler::new(65_536, Vec::new(), Acceleration::Off);
        let (mut objects, mut former) = (Objects::default(), Snapshot::default());
        for step in steps {
            for (kind, number, a, b, gone) in step {
                let object = match kind {
                    0 => service(number % 2, a, b),
                    1 => workload(number, a, b),
                    _ => rule(number % 2, a, b),
                };
                if gone == 0 {
                    objects.remove(object.kind(), object.name());
                } else {
                    objects.upsert(object);
                }
            }
            let present = former.tables.named.clone();
            let next = compiled(&mut compiler, &objects, &present, &former);
            let fresh = compiled(&mut compiler, &objects, &next.tables.named, &Snapshot::default());
            prop_assert_eq!(&next.tables, &fresh.tables);
            for block in next.tables.named.keys() {
                prop_assert!(next.tables.blocks.contains_key(block));
            }
            prop_assert_eq!(next.tables.blocks.len(), next.tables.named.len());
            let numbers = |snapshot: &Snapshot| {
                let mut ids: Vec<_> = snapshot.services.keys().copied().collect();
                ids.sort();
                let mut rules: Vec<_> = snapshot.route_rules.keys().copied().collect();
                rules.sort();
                (ids, rules)
            };
            prop_assert_eq!(numbers(&next), numbers(&fresh));
            former = next;
        }
    }
}

/// Whoever gives an address up may come before or after who takes it, or be of
/// the other kind.
#[test]
fn an_address_that_changes_hands_is_its_new_owners() {
    let at = |object: Object, address: IpAddr| match object {
        Object::Service(service) => {
            let cluster_ips = vec![address];
            let service = Service::clone(&service);
            Object::Service(Arc::new(Service {
                cluster_ips,
                ..service
            }))
        }
        Object::Workload(workload) => {
            let addresses = vec![address];
            let workload = Workload::clone(&workload);
            Object::Workload(Arc::new(Workload {
                addresses,
                ..workload
            }))
        }
        other => other,
    };
    let everybody = || {
        [
            service(0, 0, 0),
            workload(1, 0, 0),
            workload(2, 0, 0),
            service(1, 0, 0),
        ]
    };
    let mut compiler = Compiler::new(65_536, Vec::new(), Acceleration::Off);
    let (mut objects, mut former) = (Objects::default(), Snapshot::default());
    for turn in 0..5 {
        for (place, object) in (turn..).zip(everybody()) {
            objects.upsert(at(object, v4(3, place % 4)));
        }
        let present = former.tables.named.clone();
        let next = compiled(&mut compiler, &objects, &present, &former);
        let fresh = compiled(
            &mut compiler,
            &objects,
            &next.tables.named,
            &Snapshot::default(),
        );
        assert_eq!(next.tables, fresh.tables);
        assert!(!objects.index().inventory.has_shared_addresses());
        former = next;
    }
}
