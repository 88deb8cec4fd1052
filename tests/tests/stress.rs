//! A hundred thousand short connections in each verdict leave nothing behind:
//! no pending flow, no note, no descriptor.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use aya::maps::{Array, HashMap, Map, MapData};
use proxy_common::{Flow, FlowKey, Note, WorkloadId};
use testbed::agent::proto::Service;
use testbed::docs::service;
use testbed::{Node, Pod, Weir};

const CONNECTIONS: u64 = 100_000;
const SETTLE: Duration = Duration::from_secs(10);
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// A service port that is the proxy's.
fn proxied() -> SocketAddr {
    SocketAddr::from(([10, 96, 0, 1], 80))
}

/// The same over IPv6.
fn proxied6() -> SocketAddr {
    SocketAddr::from(([0xfd00, 0x96, 0, 0, 0, 0, 0, 1], 80))
}

/// One that the kernel balances.
fn balanced() -> SocketAddr {
    SocketAddr::from(([10, 96, 0, 1], 81))
}

fn mesh(node: &Node) -> (Weir<'_>, Pod, Pod) {
    let weir = Weir::start(node).unwrap();
    let client = node.pod("client").unwrap();
    let server = node.pod("server").unwrap();
    server
        .agent()
        .serve(
            SocketAddr::from(([0; 16], 8080)),
            Service::Whoami {
                name: "server".into(),
            },
        )
        .unwrap();
    weir.apply(&service(
        "web",
        format!("{}, '{}'", proxied().ip(), proxied6().ip()),
        "web",
        &[
            "port: 80, targetPort: 8080",
            "port: 81, targetPort: 8080, appProtocol: tcp",
        ],
    ));
    weir.enroll_found(&client, &["app=client"]);
    weir.enroll_found(&server, &["app=web"]);
    (weir, client, server)
}

/// What is pending: entries of `FLOWS`, and what is counted of them for each
/// workload and for the node; and entries of `NOTES`. All are read from their pins.
fn pending(node: &Node) -> (usize, Vec<u64>, u64, usize) {
    let map = |name| {
        let pin = node.bpffs().join("weir/maps").join(name);
        MapData::from_pin(pin).unwrap()
    };
    let flows: HashMap<_, FlowKey, Flow> = Map::HashMap(map("FLOWS")).try_into().unwrap();
    let own: HashMap<_, WorkloadId, u64> = Map::HashMap(map("PENDING")).try_into().unwrap();
    let total: Array<_, u64> = Map::Array(map("PENDING_TOTAL")).try_into().unwrap();
    let own = own.iter().map(|entry| entry.unwrap().1).collect();
    let notes: HashMap<_, u64, [u8; size_of::<Note>()]> =
        Map::HashMap(map("NOTES")).try_into().unwrap();
    let total = total.get(&0, 0).unwrap();
    (flows.keys().count(), own, total, notes.keys().count())
}

fn descriptors(weir: &Weir<'_>) -> usize {
    let id = weir.id().expect("weir runs");
    fs::read_dir(format!("/proc/{id}/fd")).unwrap().count()
}

/// As few as it has when it looks after nothing: a canary has some for a moment.
fn idle_descriptors(weir: &Weir<'_>) -> usize {
    let looks = (0..20).map(|_| {
        sleep(LOOK_PAUSE);
        descriptors(weir)
    });
    looks.min().expect("it is looked at")
}

fn hammered(client: &Pod, addr: SocketAddr, outcome: &str) {
    let outcomes = client.agent().hammer(addr, CONNECTIONS).unwrap();
    let expected = BTreeMap::from([(outcome.to_owned(), CONNECTIONS)]);
    assert_eq!(outcomes, expected, "{addr}");
}

#[test]
fn short_connections_leave_nothing_behind() {
    let node = Node::new().unwrap();
    let (weir, client, server) = mesh(&node);
    let outside = node.outside("outside").unwrap();
    let before = idle_descriptors(&weir);
    hammered(&client, outside.at(7000), "EPERM");
    hammered(&client, server.at(8080), "OK");
    hammered(&client, balanced(), "OK");
    hammered(&client, proxied(), "OK");
    hammered(&client, proxied6(), "OK");
    testbed::eventually("nothing is left", SETTLE, || {
        let (pending, descriptors) = (pending(&node), descriptors(&weir));
        (pending == (0, vec![0; 2], 0, 0) && descriptors == before)
            .then_some(())
            .ok_or_else(|| format!("pending {pending:?}, descriptors {descriptors} of {before}"))
    });
    let metrics = weir.metrics();
    assert_eq!(metrics.count("weir_flow_misses_total", &[]), 0);
    let connects = |outcome| metrics.count("weir_kernel_connects_total", &[("outcome", outcome)]);
    assert_eq!(connects("denied"), CONNECTIONS);
    assert_eq!(connects("direct"), CONNECTIONS);
    assert_eq!(connects("balanced"), CONNECTIONS);
    // Each end of a balanced one was told of, and none twice.
    assert_eq!(metrics.count("weir_kernel_endings_lost_total", &[]), 0);
    assert_eq!(
        metrics.count("weir_tcp_rtt_seconds_count", &[]),
        CONNECTIONS
    );
    weir.finish().unwrap();
}
