//! Sockets that outlive their pod's enrolment: what was noted on them then is
//! neither told nor acted on when they dial again.

use std::net::SocketAddr;
use std::time::Duration;

use aya::maps::{HashMap, Map, MapData};
use proxy_common::{Flow, FlowKey};
use testbed::agent::proto::Service;
use testbed::docs::service;
use testbed::{Agent, Node, Pod, Sock, Weir, eventually};

/// Ports of the service: what the kernel balances, what the proxy gets, and UDP.
const BALANCED: u16 = 80;
const PROXIED: u16 = 81;
const DATAGRAMS: u16 = 53;
const VIPS: [&str; 3] = ["10.96.0.1", "fd00:96::1", "::ffff:10.96.0.1"];
const LIMIT: Duration = Duration::from_secs(5);

fn vip(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// `pod` under the family of `like`, a mapped address included.
fn beside(pod: &Pod, like: SocketAddr, port: u16) -> SocketAddr {
    match (like.is_ipv4(), like.ip().to_canonical().is_ipv4()) {
        (true, _) => pod.at(port),
        (false, false) => pod.at6(port),
        (false, true) => format!("[::ffff:{}]:{port}", pod.ip()).parse().unwrap(),
    }
}

/// A client, an endpoint of the service and a server that no service knows.
fn mesh(node: &Node) -> (Weir<'_>, [Pod; 3]) {
    let weir = Weir::start(node).unwrap();
    let [client, endpoint, other] = node.pods(["client", "endpoint", "other"]).unwrap();
    for (pod, name) in [(&endpoint, "endpoint"), (&other, "other")] {
        let agent = pod.agent();
        let name = name.to_owned();
        let what = Service::Whoami { name: name.clone() };
        agent.serve("[::]:8000".parse().unwrap(), what).unwrap();
        let what = Service::Datagrams { name };
        agent.serve("[::]:5300".parse().unwrap(), what).unwrap();
    }
    weir.enroll_found(&endpoint, &["app=s"]);
    weir.apply(&service(
        "s",
        "10.96.0.1, 'fd00:96::1'",
        "s",
        &[
            "name: b, port: 80, targetPort: 8000, appProtocol: tcp",
            "name: p, port: 81, targetPort: 8000",
            "name: d, port: 53, targetPort: 5300, protocol: UDP",
        ],
    ));
    (weir, [client, endpoint, other])
}

fn tcp(agent: &Agent, to: SocketAddr) -> Sock<'_> {
    if to.is_ipv4() {
        agent.tcp4().unwrap()
    } else {
        agent.tcp6().unwrap()
    }
}

fn udp(agent: &Agent, to: SocketAddr) -> Sock<'_> {
    if to.is_ipv4() {
        agent.udp4().unwrap()
    } else {
        agent.udp6().unwrap()
    }
}

/// Entries of `FLOWS`, read from its pin.
fn pending_flows(node: &Node) -> usize {
    let pin = node.bpffs().join("weir/maps/FLOWS");
    let map = Map::HashMap(MapData::from_pin(pin).unwrap());
    let flows: HashMap<_, FlowKey, Flow> = HashMap::try_from(map).unwrap();
    flows.keys().count()
}

/// A line there and one back, and who says it.
fn talk(sock: &Sock<'_>) -> String {
    sock.send("x\n").unwrap();
    let (said, fault) = sock.recv_to_end().unwrap();
    assert!(fault.is_none(), "{fault:?}");
    said.split(' ').next().unwrap().to_owned()
}

/// A TCP socket that dials again, balanced or proxied before, of any family: its
/// name is that of its new peer, even of the very endpoint that it had; no flow
/// waits for anybody, and no end is told.
#[test]
fn a_socket_that_dials_again_is_not_weirs_any_more() {
    let node = Node::new().unwrap();
    let (weir, [client, endpoint, other]) = mesh(&node);
    for port in [BALANCED, PROXIED] {
        weir.enroll_found(&client, &["app=c"]);
        let mut socks = Vec::new();
        for to in VIPS.map(|ip| vip(ip, port)) {
            for again in [&other, &endpoint] {
                let sock = tcp(client.agent(), to);
                sock.connect(to).unwrap();
                assert_eq!(sock.peer_addr().unwrap(), to);
                assert_eq!(talk(&sock), "endpoint", "{to}");
                socks.push((sock, beside(again, to, 8000), again.name()));
            }
        }
        // One that is connected while the pod leaves still names what it dialled.
        let stays = client.agent().dial(vip(VIPS[0], BALANCED)).unwrap();
        weir.ok(&["unenroll", "client"]);
        assert_eq!(stays.peer_addr().unwrap(), vip(VIPS[0], BALANCED));
        for (sock, again, _) in &socks {
            sock.unconnect().unwrap();
            sock.connect(*again).unwrap();
            assert_eq!(sock.peer_addr().unwrap(), *again);
        }
        assert_eq!(pending_flows(&node), 0);
        for (sock, again, name) in &socks {
            assert_eq!(talk(sock), *name, "{again}");
            sock.unconnect().unwrap();
        }
    }
    // Six of each port while enrolled, and the two that stayed; what was dialled
    // later would have been told by now too.
    eventually("the ends are told", LIMIT, || {
        let ended = weir.metrics().count("weir_tcp_connections_total", &[]);
        (ended >= 14).then_some(()).ok_or_else(|| ended.to_string())
    });
    std::thread::sleep(Duration::from_millis(200));
    let ended = weir.metrics().count("weir_tcp_connections_total", &[]);
    assert_eq!(ended, 14);
}

/// A UDP socket needs no `AF_UNSPEC` to dial again.
#[test]
fn a_udp_socket_names_its_new_peer() {
    let node = Node::new().unwrap();
    let (weir, [client, _endpoint, other]) = mesh(&node);
    weir.enroll_found(&client, &["app=c"]);
    let socks = VIPS.map(|ip| {
        let to = vip(ip, DATAGRAMS);
        let sock = udp(client.agent(), to);
        sock.connect(to).unwrap();
        assert_eq!(sock.peer_addr().unwrap(), to);
        (sock, to)
    });
    weir.ok(&["unenroll", "client"]);
    for (sock, to) in &socks {
        assert_eq!(sock.peer_addr().unwrap(), *to, "it has not dialled yet");
        let again = beside(&other, *to, 5300);
        sock.connect(again).unwrap();
        assert_eq!(sock.peer_addr().unwrap(), again);
        sock.send("x").unwrap();
        let (said, from) = sock.recv_from().unwrap();
        assert!(said.starts_with("other "), "{said}");
        assert_eq!(from, again);
    }
    // Enrolled once more, and the endpoint that they had dies: they have another.
    weir.enroll_found(&other, &[]);
    weir.enroll_found(&client, &["app=c"]);
    weir.ok(&["delete", "workload", "endpoint"]);
    std::thread::sleep(Duration::from_millis(500));
    for (sock, to) in &socks {
        sock.send("x").unwrap();
        let (said, _) = sock.recv_from().unwrap();
        assert!(said.starts_with("other "), "{to}: {said}");
    }
}
