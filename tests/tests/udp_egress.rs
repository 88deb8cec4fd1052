//! UDP to what is outside: the rules of egress hold for every datagram.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use nix::errno::Errno;
use testbed::agent::HttpRequest;
use testbed::agent::proto::Service;
use testbed::docs::{egress_rule, mesh_config, service};
use testbed::{Fault, Node, Pod, Sock, Weir, WeirOptions, eventually};

const LIMIT: Duration = Duration::from_secs(5);

/// A client in the mesh, and two machines outside it that answer datagrams on 53, 443 and 7000.
fn mesh(node: &Node) -> (Weir<'_>, Pod, [Pod; 2]) {
    mesh_with(node, |_| Vec::new())
}

/// The same with arguments for the daemon, which may name the first machine.
fn mesh_with(node: &Node, args: impl Fn(&Pod) -> Vec<String>) -> (Weir<'_>, Pod, [Pod; 2]) {
    let outside = ["near", "far"].map(|name| node.outside(name).unwrap());
    for pod in &outside {
        for port in [53, 443, 7000] {
            let name = pod.name().to_owned();
            let at = SocketAddr::from(([0; 16], port));
            pod.agent().serve(at, Service::Datagrams { name }).unwrap();
        }
    }
    let options = WeirOptions {
        args: args(&outside[0]),
        ..WeirOptions::default()
    };
    let weir = Weir::start_with(node, options).unwrap();
    let client = node.pod("client").unwrap();
    weir.enroll_found(&client, &["app=c"]);
    (weir, client, outside)
}

fn socket(client: &Pod, to: SocketAddr) -> Sock<'_> {
    if to.is_ipv4() {
        client.agent().udp4().unwrap()
    } else {
        client.agent().udp6().unwrap()
    }
}

fn ask(sock: &Sock<'_>, to: SocketAddr) -> Result<String, Fault> {
    sock.send_to(to, "x")?;
    let (said, from) = sock.recv_from()?;
    assert_eq!(from, to, "{said}");
    Ok(said)
}

/// By each call that can send a datagram.
fn is_denied(client: &Pod, to: SocketAddr) {
    let sock = socket(client, to);
    for fault in [
        sock.connect(to).unwrap_err(),
        sock.send_to(to, "x").unwrap_err(),
        sock.send_many(&[to, to], "x").unwrap_err(),
    ] {
        assert!(fault.is(Errno::EPERM), "{to}: {fault}");
    }
}

fn is_open(client: &Pod, to: SocketAddr) {
    let sock = socket(client, to);
    ask(&sock, to).unwrap_or_else(|fault| panic!("{to} is closed: {fault}"));
    sock.connect(to).unwrap();
    assert_eq!(sock.peer_addr().unwrap(), to);
    sock.send("x").unwrap();
    assert_eq!(sock.recv_from().unwrap().1, to);
}

fn mapped(addr: SocketAddr) -> SocketAddr {
    let std::net::IpAddr::V4(ip) = addr.ip() else {
        panic!("{addr} is none of IPv4");
    };
    SocketAddr::new(ip.to_ipv6_mapped().into(), addr.port())
}

fn denials(weir: &Weir<'_>, destination: &str, reason: &str) -> u64 {
    let labels = [("destination", destination), ("reason", reason)];
    weir.metrics().count("weir_denials_total", &labels)
}

/// Denied at once, with a log line, a metric and an explanation; a socket that
/// goes on trying does not fill the log.
#[test]
fn denied_by_default_and_told_why() {
    let node = Node::new().unwrap();
    let (weir, client, [near, _far]) = mesh(&node);
    for to in [near.at(7000), near.at6(7000), mapped(near.at(7000))] {
        is_denied(&client, to);
    }
    let destination = format!("{}/udp", near.at6(7000));
    let line = weir.await_log(&["\"denial\"", &destination]);
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["workload"], "default/client", "{line}");
    assert_eq!(line["reason"], "egress-default-deny", "{line}");
    let said = weir.json(&["explain", "client", &destination]);
    assert_eq!(said["verdict"], "deny", "{said}");
    assert_eq!(said["reason"], "egress-default-deny", "{said}");
    let before = denials(&weir, &destination, "egress-default-deny");
    let sock = client.agent().udp6().unwrap();
    for _ in 0..200 {
        sock.send_to(near.at6(7000), "x").unwrap_err();
    }
    eventually("the last of them is told", LIMIT, || {
        let told = denials(&weir, &destination, "egress-default-deny") - before;
        (1..20)
            .contains(&told)
            .then_some(())
            .ok_or_else(|| told.to_string())
    });
    let count = weir
        .metrics()
        .count("weir_kernel_udp_total", &[("outcome", "denied")]);
    assert_eq!(count, 3 * 3 + 200);
}

/// A `udp` rule on an address or a network opens UDP, and nothing of TCP; it is
/// in force for the very next datagram of a socket that is open, and so is its end.
#[test]
fn a_rule_opens_what_it_names() {
    let node = Node::new().unwrap();
    let (weir, client, [near, far]) = mesh(&node);
    let sock = client.agent().udp4().unwrap();
    sock.send_to(near.at(7000), "x").unwrap_err();
    weir.apply(&egress_rule("near", near.ip(), &[(7000, "udp")], ""));
    ask(&sock, near.at(7000)).unwrap();
    is_open(&client, near.at(7000));
    is_open(&client, mapped(near.at(7000)));
    for closed in [near.at(53), far.at(7000), near.at6(7000)] {
        is_denied(&client, closed);
    }
    let tcp = client.agent().dial(near.at(7000)).err().unwrap();
    assert!(tcp.is(Errno::EPERM), "{tcp}");
    let said = weir.json(&["explain", "client", &format!("{}/udp", near.at(7000))]);
    assert_eq!(said["verdict"], "direct", "{said}");
    assert_eq!(said["rule"], "default/near", "{said}");
    weir.ok(&["delete", "egressrule", "near"]);
    let fault = sock.send_to(near.at(7000), "x").unwrap_err();
    assert!(fault.is(Errno::EPERM), "{fault}");
    weir.apply(&egress_rule("v6", "::/0", &[(7000, "udp")], ""));
    is_open(&client, near.at6(7000));
    is_denied(&client, near.at(7000));
}

/// `allow` and `audit` let it pass; `audit` tells of it.
#[test]
fn what_is_not_denied_passes() {
    let node = Node::new().unwrap();
    let (weir, client, [near, far]) = mesh(&node);
    weir.apply(&mesh_config("egress: allow"));
    is_open(&client, near.at(7000));
    weir.apply(&mesh_config("egress: audit"));
    is_open(&client, far.at(7000));
    is_open(&client, far.at6(7000));
    let destination = format!("{}/udp", far.at(7000));
    let labels = [("destination", destination.as_str())];
    eventually("it is told", LIMIT, || {
        let audited = weir.metrics().count("weir_egress_audited_total", &labels);
        (audited > 0)
            .then_some(())
            .ok_or_else(|| audited.to_string())
    });
}

/// The resolvers that weir asks are open on their port, over both transports.
#[test]
fn the_resolvers_are_open() {
    for (at, other) in [
        (
            Pod::at as fn(&Pod, u16) -> SocketAddr,
            Pod::at6 as fn(&Pod, u16) -> SocketAddr,
        ),
        (Pod::at6, Pod::at),
    ] {
        let node = Node::new().unwrap();
        let args = |near: &Pod| vec!["--resolver".into(), at(near, 53).ip().to_string()];
        let (weir, client, [pod, far]) = mesh_with(&node, args);
        let near = at(&pod, 53);
        let what = Service::Whoami { name: "tcp".into() };
        pod.agent().serve(near, what).unwrap();
        is_open(&client, near);
        drop(client.agent().dial(near).unwrap());
        for closed in [at(&pod, 7000), at(&far, 53), other(&pod, 53)] {
            is_denied(&client, closed);
        }
        let said = weir.json(&["explain", "client", &format!("{near}/udp")]);
        assert_eq!(said["reason"], "resolver", "{said}");
    }
}

/// Where only a rule on a host name opens a port for TCP, UDP is refused with
/// that reason: HTTP/3 would go around the look at the name. Over TCP it is served,
/// whichever family the client tries.
#[test]
fn quic_falls_back_to_tcp() {
    const DNS: u16 = 5353;
    let node = Node::new().unwrap();
    let args = |near: &Pod| vec!["--resolver".into(), near.at(DNS).to_string()];
    let (weir, client, [near, _far]) = mesh_with(&node, args);
    let name = "api.example.test".to_owned();
    let records = BTreeMap::from([(name.clone(), vec![near.ip(), near.ip6()])]);
    let what = Service::Dns { records };
    near.agent().serve(near.at(DNS), what).unwrap();
    let (pod, version) = ("near".to_owned(), "v1".to_owned());
    let all = SocketAddr::new("::".parse().unwrap(), 443);
    let what = Service::Http { pod, version };
    near.agent().serve(all, what).unwrap();
    weir.apply(&egress_rule(
        "api",
        "api.example.test",
        &[(443, "http")],
        "",
    ));
    for to in [near.at(443), near.at6(443)] {
        is_denied(&client, to);
        for (host, status) in [(name.as_str(), 200), ("evil.test", 403)] {
            let request = HttpRequest::get(host, "/");
            let reply = client.agent().http(to, request).unwrap();
            assert_eq!(reply.status, status, "{to}: {reply:?}");
        }
    }
    let destination = format!("{}/udp", near.at(443));
    let said = weir.json(&["explain", "client", &destination]);
    assert_eq!(said["reason"], "egress-name-over-udp", "{said}");
    assert_eq!(said["rule"], "default/api", "{said}");
    eventually("it is told", LIMIT, || {
        let told = denials(&weir, &destination, "egress-name-over-udp");
        (told > 0).then_some(()).ok_or_else(|| told.to_string())
    });
    // A service's address has the ports that it declares, and no others.
    weir.apply(&service("web", "10.96.0.1", "w", &["name: tls, port: 443"]));
    is_denied(&client, "10.96.0.1:443".parse().unwrap());
    weir.apply(&egress_rule("near", near.ip(), &[(443, "udp")], ""));
    is_open(&client, near.at(443));
}

/// A namespace that a pod makes for itself is none that weir knows: closed.
#[test]
fn a_namespace_made_inside_a_pod_is_denied() {
    let node = Node::new().unwrap();
    let (weir, client, [near, _far]) = mesh(&node);
    weir.apply(&mesh_config("egress: allow"));
    let agent = client.new_agent().unwrap();
    agent.unshare_net().unwrap();
    let (four, six) = (agent.udp4().unwrap(), agent.udp6().unwrap());
    for fault in [
        four.connect(near.at(53)).unwrap_err(),
        four.send_to(near.at(53), "x").unwrap_err(),
        six.connect(near.at6(53)).unwrap_err(),
        six.send_to(near.at6(53), "x").unwrap_err(),
        six.send_to(mapped(near.at(53)), "x").unwrap_err(),
    ] {
        assert!(fault.is(Errno::EPERM), "{fault}");
    }
    weir.await_log(&["denial", "unknown-netns"]);
}

/// What comes into a pod is no business of weir's, and neither is the answer;
/// but what the pod began is none, however long the other side goes on.
#[test]
fn who_writes_first_is_answered() {
    let node = Node::new().unwrap();
    let (weir, client, [near, far]) = mesh(&node);
    let name = "pod".to_owned();
    let at = client.at(5300);
    client
        .agent()
        .serve(at, Service::Datagrams { name })
        .unwrap();
    let caller = near.agent().udp4().unwrap();
    for _ in 0..3 {
        assert!(ask(&caller, at).unwrap().starts_with("pod "));
    }
    // Only whom it heard from, and only from the port that was written to.
    let other = client.agent().udp4().unwrap();
    let caller = SocketAddr::new(near.ip(), caller.local_addr().unwrap().port());
    for to in [caller, far.at(7000)] {
        let fault = other.send_to(to, "x").unwrap_err();
        assert!(fault.is(Errno::EPERM), "{to}: {fault}");
    }
    weir.apply(&egress_rule("near", near.ip(), &[(7000, "udp")], ""));
    let sock = client.agent().udp4().unwrap();
    sock.send_to(near.at(7000), "one").unwrap();
    sock.send_to(near.at(7000), "two").unwrap();
    weir.ok(&["delete", "egressrule", "near"]);
    for _ in 0..2 {
        assert_eq!(sock.recv_from().unwrap().1, near.at(7000));
    }
    let fault = sock.send_to(near.at(7000), "x").unwrap_err();
    assert!(fault.is(Errno::EPERM), "{fault}");
}
