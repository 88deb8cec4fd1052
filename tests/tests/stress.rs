//! A hundred thousand short connections in each verdict leave nothing behind:
//! no pending flow, no descriptor.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use aya::maps::{HashMap, Map, MapData};
use proxy_common::{Flow, FlowKey};
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
            server.at(8080),
            Service::Whoami {
                name: "server".into(),
            },
        )
        .unwrap();
    weir.apply(&service(
        "web",
        proxied().ip(),
        "web",
        &[
            "port: 80, targetPort: 8080",
            "port: 81, targetPort: 8080, appProtocol: tcp",
        ],
    ));
    weir.enroll(&client, &["app=client"]);
    weir.enroll(&server, &["app=web"]);
    (weir, client, server)
}

/// Entries of `FLOWS`, read from its pin.
fn pending_flows(node: &Node) -> usize {
    let pin = node.bpffs().join("weir/maps/FLOWS");
    let map = Map::HashMap(MapData::from_pin(pin).unwrap());
    let flows: HashMap<_, FlowKey, Flow> = HashMap::try_from(map).unwrap();
    flows.keys().count()
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
    testbed::eventually("nothing is left", SETTLE, || {
        let left = (pending_flows(&node), descriptors(&weir));
        (left == (0, before))
            .then_some(())
            .ok_or_else(|| format!("flows and descriptors: {left:?}, not (0, {before})"))
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
