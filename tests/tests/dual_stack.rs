//! Dual stack: both families in one service, one pod or one socket.

use std::net::SocketAddr;

use nix::errno::Errno;
use testbed::agent::proto::{Service, SockOption};
use testbed::agent::{HttpRequest, Load, LoadReport};
use testbed::docs::{route_rule, service};
use testbed::{Fault, Node, Pod, Weir};

const WEB: &str = "[fd00:96::2]:80";
const WEB4: &str = "10.96.0.2:80";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A client, and a service `web` of two endpoints, `v1` and `v2`, all with
/// addresses of both families.
fn mesh(node: &Node) -> (Weir<'_>, Pod, [Pod; 2]) {
    let weir = Weir::start(node).unwrap();
    let [client, one, two] = node.pods(["client", "one", "two"]).unwrap();
    for (pod, version) in [(&one, "v1"), (&two, "v2")] {
        let what = Service::Http {
            pod: pod.name().to_owned(),
            version: version.to_owned(),
        };
        pod.agent().serve(addr("[::]:8080"), what).unwrap();
        weir.enroll_found(pod, &["app=s", &format!("version={version}")]);
    }
    weir.enroll_found(&client, &["app=c"]);
    let ports = ["port: 80, targetPort: 8080"];
    weir.apply(&service("web", "10.96.0.2, 'fd00:96::2'", "s", &ports));
    (weir, client, [one, two])
}

fn whoami(pod: &Pod, at: SocketAddr) {
    let name = pod.name().to_owned();
    pod.agent().serve(at, Service::Whoami { name }).unwrap();
}

fn ask(client: &Pod, to: SocketAddr) -> Result<String, Fault> {
    let sock = client.agent().dial(to)?;
    sock.send("x\n")?;
    let (said, fault) = sock.recv_to_end()?;
    fault.map_or(Ok(said), Err)
}

/// A mapped destination is the IPv4 one; a socket for IPv6 alone has no way to it.
#[test]
fn mapped_destinations_are_ipv4() {
    let node = Node::new().unwrap();
    let (_weir, client, _servers) = mesh(&node);
    let mapped = addr("[::ffff:10.96.0.2]:80");
    let sock = client.agent().dial(mapped).unwrap();
    assert_eq!(sock.peer_addr().unwrap(), mapped);
    assert_eq!(sock.local_addr().unwrap().ip().to_canonical(), client.ip());
    sock.send("GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n")
        .unwrap();
    let (said, _) = sock.recv_to_end().unwrap();
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    let outside = client.agent().dial(addr("[::ffff:198.51.100.9]:80"));
    let fault = outside.err().expect("it is external");
    assert!(fault.is(Errno::EPERM), "{fault}");
    let sock = client.agent().tcp6().unwrap();
    sock.set(SockOption::OnlyV6).unwrap();
    let fault = sock.connect(mapped).unwrap_err();
    assert!(fault.is(Errno::ENETUNREACH), "{fault}");
    sock.connect(addr(WEB)).unwrap();
    assert_eq!(sock.peer_addr().unwrap(), addr(WEB));
}

fn load(client: &Pod, to: &str, count: u64) -> LoadReport {
    let load = Load {
        addr: addr(to),
        request: HttpRequest::get("web", "/"),
        count,
        connections: 4,
        pause_ms: 0,
        pointer: String::new(),
    };
    let report = client.agent().load(load).unwrap();
    assert_eq!((report.sent, report.failed()), (count, 0), "{report:?}");
    report
}

/// Weights are exact over IPv6, and both virtual addresses of a service share
/// one rotation.
#[test]
fn both_families_of_a_service_take_turns_together() {
    let node = Node::new().unwrap();
    let (weir, client, _servers) = mesh(&node);
    let mixed = || {
        let turns: Vec<_> = (0..10)
            .map(|n| load(&client, [WEB, WEB4][n % 2], 10))
            .collect();
        turns.iter().map(|report| report.version("v1")).sum::<u64>()
    };
    let v1 = mixed();
    assert!((49..=51).contains(&v1), "{v1} of 100 without a rule");
    weir.apply(&route_rule("web", "web", &[("v1", 50), ("v2", 50)], ""));
    let v1 = mixed();
    assert!((49..=51).contains(&v1), "{v1} of 100 by the rule");
    weir.apply(&route_rule("web", "web", &[("v1", 10), ("v2", 90)], ""));
    assert_eq!(load(&client, WEB, 100).version("v1"), 10);
    assert_eq!(mixed(), 10);
}

/// Where no endpoint has an address of the dialled family, those of the other
/// serve, from the pod's address of theirs.
#[test]
fn endpoints_of_the_other_family_serve_where_there_are_no_others() {
    let node = Node::new().unwrap();
    let (weir, client, _servers) = mesh(&node);
    let old = node.pod("old").unwrap();
    whoami(&old, old.at(8000));
    weir.enroll(&old, &["app=old"]);
    let ports = ["port: 80, targetPort: 8000"];
    weir.apply(&service("old", "'fd00:96::9', 10.96.0.9", "old", &ports));
    for to in ["[fd00:96::9]:80", "10.96.0.9:80"] {
        let said = ask(&client, addr(to)).unwrap();
        let begins = format!("old {}:", client.ip());
        assert!(said.starts_with(&begins), "{to}: {said}");
    }
    // With one that has an address of each family, that is all that is used over IPv6.
    let new = node.pod("new").unwrap();
    whoami(&new, new.at6(8000));
    whoami(&new, new.at(8000));
    weir.enroll_found(&new, &["app=old"]);
    for _ in 0..4 {
        let said = ask(&client, addr("[fd00:96::9]:80")).unwrap();
        assert!(
            said.starts_with(&format!("new [{}]:", client.ip6())),
            "{said}"
        );
    }
}

/// A balanced connect keeps its family: each has a table of its own, also where
/// a rule tells sources apart.
#[test]
fn a_balanced_connect_keeps_its_family() {
    let node = Node::new().unwrap();
    let (weir, client, servers) = mesh(&node);
    for server in &servers {
        whoami(server, server.at(8000));
        whoami(server, server.at6(8000));
    }
    let ports = ["name: tcp, port: 81, targetPort: 8000"];
    weir.apply(&service("db", "10.96.0.3, 'fd00:96::3'", "s", &ports));
    let dials = [
        ("10.96.0.3:81", client.ip()),
        ("[fd00:96::3]:81", client.ip6()),
    ];
    for (to, source) in dials {
        let told = weir.json(&["explain", "client", to]);
        assert_eq!(told["verdict"], "balance", "{told}");
        let sock = client.agent().dial(addr(to)).unwrap();
        assert_eq!(sock.peer_addr().unwrap(), addr(to));
        sock.send("x\n").unwrap();
        let (said, fault) = sock.recv_to_end().unwrap();
        let seen = SocketAddr::new(source, 0).to_string();
        let seen = seen.trim_end_matches('0');
        assert!(said.contains(seen) && fault.is_none(), "{said} {fault:?}");
    }
    let rest = "  match: {source: {labels: {app: c}}}\n";
    weir.apply(&route_rule("db", "db", &[("v2", 100)], rest));
    for (to, _) in dials {
        for _ in 0..8 {
            let said = ask(&client, addr(to)).unwrap();
            assert!(said.starts_with("two "), "{to}: {said}");
        }
    }
    // Without an endpoint of the family nobody is there; the proxy could change it.
    let old = node.pod("old").unwrap();
    whoami(&old, old.at(8000));
    weir.enroll(&old, &["app=old"]);
    weir.apply(&service("old", "10.96.0.4, 'fd00:96::4'", "old", &ports));
    assert!(ask(&client, addr("10.96.0.4:81")).is_ok());
    let fault = client.agent().dial(addr("[fd00:96::4]:81")).err().unwrap();
    assert!(fault.is(Errno::ECONNREFUSED), "{fault}");
    let told = weir.json(&["explain", "client", "[fd00:96::4]:81"]);
    assert_eq!(told["endpoints"].as_array().unwrap().len(), 0, "{told}");
    assert!(
        told["notes"].to_string().contains("of the dialled family"),
        "{told}"
    );
}

/// A pod without a global IPv6 address gets what the kernel says to such a host,
/// and the denial is told; with one that is still being probed, enrolment waits.
#[test]
fn a_pod_without_an_address_of_the_family_is_told_so() {
    let node = Node::new().unwrap();
    let (weir, _client, _servers) = mesh(&node);
    let single = node.pod("single").unwrap();
    let del = format!("addr del {}/64 dev eth0", single.ip6());
    single.netns().ip([del]).unwrap();
    weir.enroll(&single, &[]);
    let fault = single
        .agent()
        .dial(addr(WEB))
        .err()
        .expect("it has no IPv6");
    assert!(fault.is(Errno::ENETUNREACH), "{fault}");
    weir.await_log(&["\"denial\"", "no-listener", WEB]);
    let told = weir.json(&["explain", "single", WEB]);
    assert_eq!(
        (&told["verdict"], &told["reason"]),
        (&"deny".into(), &"no-listener".into())
    );
    let get = HttpRequest::get("web", "/");
    assert_eq!(single.agent().http(addr(WEB4), get).unwrap().status, 200);
    // A second address, with duplicate address detection this time.
    let add = format!("addr add {}/64 dev eth0", single.ip6());
    single.netns().ip([add]).unwrap();
    weir.enroll_found(&single, &[]);
    let get = HttpRequest::get("web", "/");
    assert_eq!(single.agent().http(addr(WEB), get).unwrap().status, 200);
}
