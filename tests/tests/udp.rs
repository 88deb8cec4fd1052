//! UDP to services: balanced by socket, in both families, and nobody can tell.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use nix::errno::Errno;
use testbed::agent::proto::Service;
use testbed::docs::{route_rule, service};
use testbed::{Agent, Fault, Node, Pod, Sock, Weir, eventually};

const VIP: &str = "10.96.0.1:53";
const VIP6: &str = "[fd00:96::1]:53";
const MAPPED: &str = "[::ffff:10.96.0.1]:53";
const OTHER: &str = "10.96.0.2:53";
const LIMIT: Duration = Duration::from_secs(5);

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn endpoint(weir: &Weir<'_>, pod: &Pod, version: &str) {
    let name = version.to_owned();
    let what = Service::Datagrams { name };
    pod.agent().serve(addr("[::]:5300"), what).unwrap();
    weir.enroll_found(pod, &["app=s", &format!("version={version}")]);
}

/// A client, and a service `s` of UDP on two endpoints that answer with `v1` and `v2`.
fn mesh(node: &Node) -> (Weir<'_>, Pod, [Pod; 2]) {
    let weir = Weir::start(node).unwrap();
    let [client, one, two] = node.pods(["client", "one", "two"]).unwrap();
    endpoint(&weir, &one, "v1");
    endpoint(&weir, &two, "v2");
    weir.enroll_found(&client, &["app=c"]);
    let ports = ["name: dns, protocol: UDP, port: 53, targetPort: 5300"];
    weir.apply(&service("s", "10.96.0.1, 'fd00:96::1'", "s", &ports));
    (weir, client, [one, two])
}

/// Who answers a datagram to `to`; the answer has to come from there.
fn ask(sock: &Sock<'_>, to: SocketAddr) -> Result<String, Fault> {
    sock.send_to(to, "x")?;
    let (said, from) = sock.recv_from()?;
    assert_eq!(from, to, "{said}");
    Ok(said.split(' ').next().unwrap().to_owned())
}

/// The same over the peer that the socket has.
fn ask_peer(sock: &Sock<'_>) -> Result<String, Fault> {
    sock.send("x")?;
    let (said, from) = sock.recv_from()?;
    assert_eq!(from, sock.peer_addr()?, "{said}");
    Ok(said.split(' ').next().unwrap().to_owned())
}

/// A socket of the family, as dual-stack runtimes open it.
fn socket(agent: &Agent, to: SocketAddr) -> Sock<'_> {
    if to.is_ipv4() {
        agent.udp4().unwrap()
    } else {
        agent.udp6().unwrap()
    }
}

fn outcome(weir: &Weir<'_>, name: &str) -> u64 {
    let labels = [("outcome", name)];
    weir.metrics().count("weir_kernel_udp_total", &labels)
}

fn patch_ready(weir: &Weir<'_>, pod: &Pod, ready: bool) {
    let patch = format!(r#"{{"spec":{{"ready":{ready}}}}}"#);
    weir.ok(&["patch", "workload", pod.name(), "-p", &patch]);
}

/// Waits for one of the service's endpoints to be this socket's peer.
fn connected_to<'a>(client: &'a Pod, to: SocketAddr, version: &str) -> Sock<'a> {
    for _ in 0..64 {
        let sock = socket(client.agent(), to);
        sock.connect(to).unwrap();
        if ask_peer(&sock).unwrap() == version {
            return sock;
        }
    }
    panic!("{version} is never drawn");
}

/// Connected or not, of either family, mapped addresses included: a socket stays
/// with one endpoint, and hears from the address that it sent to.
#[test]
fn a_socket_talks_with_one_endpoint() {
    let node = Node::new().unwrap();
    let (weir, client, [_one, _two]) = mesh(&node);
    for to in [VIP, VIP6, MAPPED].map(addr) {
        let sock = socket(client.agent(), to);
        sock.connect(to).unwrap();
        assert_eq!(sock.peer_addr().unwrap(), to);
        let first = ask_peer(&sock).unwrap();
        let plain = socket(client.agent(), to);
        let second = ask(&plain, to).unwrap();
        for _ in 0..10 {
            assert_eq!(ask_peer(&sock).unwrap(), first, "{to}");
            assert_eq!(ask(&plain, to).unwrap(), second, "{to}");
        }
        // The same address again, by the other way: the same endpoint.
        assert_eq!(ask(&sock, to).unwrap(), first, "{to}");
        plain.connect(to).unwrap();
        assert_eq!(ask_peer(&plain).unwrap(), second, "{to}");
        plain.unconnect().unwrap();
        assert!(plain.peer_addr().is_err());
        assert_eq!(ask(&plain, to).unwrap(), second, "{to}");
    }
    assert_eq!(outcome(&weir, "no_endpoint"), 0);
    assert_eq!(outcome(&weir, "denied"), 0);
}

/// New sockets follow the weights, and a rule from the very next one on.
#[test]
fn sockets_are_spread_by_weight() {
    let node = Node::new().unwrap();
    let (weir, client, [_one, _two]) = mesh(&node);
    let spread = |count: u32| {
        let mut answers: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..count {
            let sock = client.agent().udp4().unwrap();
            *answers.entry(ask(&sock, addr(VIP)).unwrap()).or_default() += 1;
        }
        answers
    };
    weir.apply(&route_rule("s", "s", &[("v1", 100)], ""));
    assert_eq!(spread(20), BTreeMap::from([("v1".to_owned(), 20)]));
    weir.apply(&route_rule("s", "s", &[("v1", 20), ("v2", 80)], ""));
    let found = spread(400);
    // Six standard deviations around 80.
    assert!((32..=128).contains(&found["v1"]), "{found:?}");
    let said = weir.json(&["explain", "client", "10.96.0.1:53/udp"]);
    assert_eq!(said["verdict"], "balance", "{said}");
    assert_eq!(said["protocol"], "udp", "{said}");
    assert_eq!(said["endpoints"].as_array().unwrap().len(), 2, "{said}");
    let said = weir.json(&["explain", "client", "10.96.0.1:53"]);
    assert_eq!(said["reason"], "unknown-service-port", "{said}");
}

/// One unconnected socket and many destinations: each answer comes from the
/// address that it was asked at.
#[test]
fn one_socket_talks_with_many() {
    let node = Node::new().unwrap();
    let (weir, client, [one, _two]) = mesh(&node);
    let ports = ["name: dns, protocol: UDP, port: 53, targetPort: 5300"];
    weir.apply(&service("other", "10.96.0.2", "o", &ports));
    let third = node.pod("third").unwrap();
    let what = Service::Datagrams { name: "o".into() };
    third.agent().serve(third.at(5300), what).unwrap();
    weir.enroll(&third, &["app=o"]);
    let sock = client.agent().udp4().unwrap();
    let asked = [addr(VIP), addr(OTHER), third.at(5300)];
    for to in asked {
        ask(&sock, to).unwrap();
    }
    // The service's endpoint by its own address, and by the service's again.
    assert_eq!(ask(&sock, third.at(5300)).unwrap(), "o");
    assert_eq!(ask(&sock, addr(OTHER)).unwrap(), "o");
    let both = [addr(VIP), addr(OTHER)];
    assert_eq!(sock.send_many(&both, "many").unwrap(), 2);
    let mut heard = BTreeSet::new();
    for _ in both {
        let (said, from) = sock.recv_from().unwrap();
        assert!(said.ends_with("many"), "{said}");
        heard.insert(from);
    }
    assert_eq!(heard, BTreeSet::from(both));
    // The endpoint sees the pod, not the service.
    sock.send_to(one.at(5300), "who").unwrap();
    let (said, from) = sock.recv_from().unwrap();
    assert!(said.contains(&client.ip().to_string()), "{said}");
    // It may be the one that the socket knows by the service's address.
    assert!(from == one.at(5300), "{from}");
}

/// More services than a socket remembers: the one that was silent longest is
/// forgotten, and found again.
#[test]
fn a_socket_forgets_the_longest_silence() {
    let node = Node::new().unwrap();
    let (weir, client, [_one, _two]) = mesh(&node);
    let many: Vec<String> = (1..=20).map(|last| format!("10.96.1.{last}")).collect();
    let ports = ["name: dns, protocol: UDP, port: 53, targetPort: 5300"];
    for (index, ten) in many.chunks(10).enumerate() {
        weir.apply(&service(
            &format!("many{index}"),
            ten.join(", "),
            "s",
            &ports,
        ));
    }
    let sock = client.agent().udp4().unwrap();
    for _ in 0..2 {
        for ip in &many {
            ask(&sock, format!("{ip}:53").parse().unwrap()).unwrap();
        }
    }
    assert!(weir.metrics().count("weir_kernel_udp_forgotten_total", &[]) >= 4);
}

/// A change that keeps the endpoint keeps the socket with it; one that takes it
/// away moves the socket at its next datagram.
#[test]
fn a_socket_stays_as_long_as_its_endpoint_is_listed() {
    let node = Node::new().unwrap();
    let (weir, client, [one, two]) = mesh(&node);
    let sock = client.agent().udp4().unwrap();
    let first = ask(&sock, addr(VIP)).unwrap();
    let (own, other) = if first == "v1" {
        (&one, &two)
    } else {
        (&two, &one)
    };
    let third = node.pod("third").unwrap();
    endpoint(&weir, &third, "v3");
    for _ in 0..10 {
        assert_eq!(ask(&sock, addr(VIP)).unwrap(), first, "one more");
    }
    patch_ready(&weir, other, false);
    for _ in 0..10 {
        assert_eq!(ask(&sock, addr(VIP)).unwrap(), first, "another left");
    }
    patch_ready(&weir, own, false);
    assert_eq!(ask(&sock, addr(VIP)).unwrap(), "v3");
    patch_ready(&weir, own, true);
    assert_eq!(ask(&sock, addr(VIP)).unwrap(), "v3");
    patch_ready(&weir, own, false);
    patch_ready(&weir, &third, false);
    let fault = sock.send_to(addr(VIP), "x").unwrap_err();
    assert!(fault.is(Errno::ECONNREFUSED), "{fault}");
    let fault = client
        .agent()
        .udp4()
        .unwrap()
        .connect(addr(VIP))
        .unwrap_err();
    assert!(fault.is(Errno::ECONNREFUSED), "{fault}");
    assert_eq!(outcome(&weir, "no_endpoint"), 2);
    weir.await_log(&["no-endpoint", "default/client"]);
}

/// Whoever is connected to an endpoint that is no more learns it from the
/// socket; nobody else is disturbed.
#[test]
fn connected_sockets_are_woken_when_their_endpoint_dies() {
    let node = Node::new().unwrap();
    let (weir, client, [one, two]) = mesh(&node);
    let status = weir.ok(&["status"]);
    assert!(status.contains("dead endpoints are woken"), "{status}");
    let all = [VIP, VIP6, MAPPED].map(addr);
    let to_one = all.map(|to| (connected_to(&client, to, "v1"), to));
    let to_two = all.map(|to| connected_to(&client, to, "v2"));
    let straight = client.agent().udp4().unwrap();
    straight.connect(one.at(5300)).unwrap();
    assert_eq!(ask_peer(&straight).unwrap(), "v1");
    weir.ok(&["delete", "workload", "one"]);
    for (sock, to) in &to_one {
        let fault = sock.recv(1).unwrap_err();
        assert!(fault.is(Errno::ECONNABORTED), "{to}: {fault}");
    }
    for sock in &to_two {
        assert_eq!(ask_peer(sock).unwrap(), "v2");
    }
    assert_eq!(
        ask_peer(&straight).unwrap(),
        "v1",
        "weir did not send it there"
    );
    // The sockets are as good as new.
    for (sock, to) in &to_one {
        sock.connect(*to).unwrap();
        assert_eq!(ask_peer(sock).unwrap(), "v2");
    }
    // Not ready: what is under way gets its time.
    patch_ready(&weir, &two, false);
    for sock in &to_two {
        assert_eq!(ask_peer(sock).unwrap(), "v2");
    }
    for sock in &to_two {
        let fault = sock.recv(1).unwrap_err();
        assert!(fault.is(Errno::ECONNABORTED), "{fault}");
    }
    patch_ready(&weir, &two, true);
    let last = all.map(|to| connected_to(&client, to, "v2"));
    weir.ok(&["delete", "service", "s"]);
    for sock in last {
        let fault = sock.recv(1).unwrap_err();
        assert!(fault.is(Errno::ECONNABORTED), "{fault}");
    }
}

/// A daemon that comes back wakes those whose endpoint died while it was away,
/// and balance goes on without it.
#[test]
fn balance_needs_no_daemon() {
    let node = Node::new().unwrap();
    let (mut weir, client, [_one, _two]) = mesh(&node);
    let before = connected_to(&client, addr(VIP), "v1");
    weir.kill9().unwrap();
    assert_eq!(ask_peer(&before).unwrap(), "v1");
    for to in [VIP, VIP6, MAPPED].map(addr) {
        let sock = socket(client.agent(), to);
        ask(&sock, to).unwrap();
        let sock = socket(client.agent(), to);
        sock.connect(to).unwrap();
        ask_peer(&sock).unwrap();
    }
    let fault = client.agent().udp4().unwrap();
    let fault = fault.send_to(addr("198.51.100.9:53"), "x").unwrap_err();
    assert!(fault.is(Errno::EPERM), "{fault}");
    weir.launch().unwrap();
    assert_eq!(ask_peer(&before).unwrap(), "v1");
    weir.ok(&["delete", "workload", "one"]);
    let fault = before.recv(1).unwrap_err();
    assert!(fault.is(Errno::ECONNABORTED), "{fault}");
}

/// Who is not enrolled is not balanced, not counted, and pays with one look-up.
#[test]
fn others_are_untouched() {
    let node = Node::new().unwrap();
    let (weir, client, [one, _two]) = mesh(&node);
    let stranger = node.pod("stranger").unwrap();
    let sock = stranger.agent().udp4().unwrap();
    assert_eq!(ask(&sock, one.at(5300)).unwrap(), "v1");
    sock.set(testbed::agent::proto::SockOption::Timeout(300))
        .unwrap();
    assert!(
        ask(&sock, addr(VIP)).is_err(),
        "nobody rewrites its datagrams"
    );
    // The endpoint's own answer to somebody outside the mesh.
    for (name, count) in [("direct", 1), ("balanced", 0), ("denied", 0)] {
        assert_eq!(outcome(&weir, name), count, "{name}");
    }
    let sock = client.agent().udp4().unwrap();
    ask(&sock, addr(VIP)).unwrap();
    eventually("it is counted", LIMIT, || {
        let balanced = outcome(&weir, "balanced");
        (balanced == 1)
            .then_some(())
            .ok_or_else(|| balanced.to_string())
    });
}
