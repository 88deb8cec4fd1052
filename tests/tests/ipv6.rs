//! IPv6: what holds for IPv4 holds for IPv6.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::errno::Errno;
use testbed::agent::HttpRequest;
use testbed::agent::proto::{Dial, Service, SockOption};
use testbed::docs::{egress_rule, service};
use testbed::{Fault, Network, Node, Pod, Weir, WeirOptions, eventually};

const BYTES: &str = "[fd00:96::1]:80";
const WEB: &str = "[fd00:96::2]:80";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn whoami(pod: &Pod, at: SocketAddr) {
    let name = pod.name().to_owned();
    pod.agent().serve(at, Service::Whoami { name }).unwrap();
}

fn http(pod: &Pod, at: SocketAddr, version: &str) {
    let what = Service::Http {
        pod: pod.name().to_owned(),
        version: version.to_owned(),
    };
    pod.agent().serve(at, what).unwrap();
}

/// A client, and two servers behind a service of bytes (Whoami on 8000) and one
/// whose protocol is detected (HTTP on 8080).
fn mesh(node: &Node) -> (Weir<'_>, Pod, [Pod; 2]) {
    mesh_with(node, Vec::new())
}

fn mesh_with(node: &Node, args: Vec<String>) -> (Weir<'_>, Pod, [Pod; 2]) {
    let options = WeirOptions {
        args,
        ..WeirOptions::default()
    };
    let weir = Weir::start_with(node, options).unwrap();
    let [client, one, two] = node.pods(["client", "one", "two"]).unwrap();
    for (pod, version) in [(&one, "v1"), (&two, "v2")] {
        whoami(pod, pod.at6(8000));
        http(pod, addr("[::]:8080"), version);
        weir.enroll_found(pod, &["app=s", &format!("version={version}")]);
    }
    weir.enroll_found(&client, &["app=c"]);
    let bytes = ["port: 80, targetPort: 8000"];
    let web = ["port: 80, targetPort: 8080"];
    weir.apply(&service("bytes", "'fd00:96::1'", "s", &bytes));
    weir.apply(&service("web", "'fd00:96::2'", "s", &web));
    (weir, client, [one, two])
}

fn ask(client: &Pod, to: SocketAddr) -> Result<String, Fault> {
    let sock = client.agent().dial(to)?;
    sock.send("x\n")?;
    let (said, fault) = sock.recv_to_end()?;
    fault.map_or(Ok(said), Err)
}

fn is_denied(client: &Pod, to: SocketAddr) {
    let denied = client.agent().dial(to).err();
    let fault = denied.unwrap_or_else(|| panic!("{to} is open"));
    assert!(fault.is(Errno::EPERM), "{to}: {fault}");
}

/// weir's listener on this address of a pod.
fn listener(weir: &Weir<'_>, ip: IpAddr) -> SocketAddr {
    let status = weir.json(&["status"]);
    let listeners = status["dataplane"]["listeners"].as_array().unwrap();
    let mut addresses = listeners
        .iter()
        .map(|listener| addr(listener["address"].as_str().unwrap()));
    let found = addresses.find(|address| address.ip() == ip);
    found.unwrap_or_else(|| panic!("no listener on {ip}: {status}"))
}

/// The application sees its own address and the one that it dialled, the
/// endpoint the pod's address; for bytes and for HTTP.
#[test]
fn a_service_is_reached_and_addresses_look_as_without_weir() {
    let node = Node::new().unwrap();
    let (weir, client, _servers) = mesh(&node);
    let sock = client.agent().dial(addr(BYTES)).unwrap();
    assert_eq!(sock.local_addr().unwrap().ip(), client.ip6());
    assert_eq!(sock.peer_addr().unwrap(), addr(BYTES));
    sock.send("hi\n").unwrap();
    let (said, fault) = sock.recv_to_end().unwrap();
    let from_client = format!(" [{}]:", client.ip6());
    assert!(
        said.contains(&from_client) && fault.is_none(),
        "{said} {fault:?}"
    );
    // A socket that chose its source, its family and its device keeps all of them.
    let sock = client.agent().tcp6().unwrap();
    sock.set(SockOption::OnlyV6).unwrap();
    sock.set(SockOption::BindToDevice("eth0".into())).unwrap();
    sock.bind(client.at6(23_456)).unwrap();
    sock.connect(addr(BYTES)).unwrap();
    assert_eq!(sock.local_addr().unwrap(), client.at6(23_456));
    sock.send("hi\n").unwrap();
    assert!(sock.recv_to_end().unwrap().0.contains(&from_client));
    let reply = client
        .agent()
        .http(addr(WEB), HttpRequest::get("web", "/x"));
    let reply = reply.unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");
    weir.await_log(&["\"request\"", "/x", "]:8080\""]);
    // A port that no service declares is none.
    is_denied(&client, addr("[fd00:96::1]:81"));
    weir.await_log(&["\"denial\"", "[fd00:96::1]:81", "unknown-service-port"]);
    assert_eq!(weir.metrics().count("weir_flow_misses_total", &[]), 0);
}

/// Capture is verified over each family, and what is asked names both.
#[test]
fn status_and_explain_speak_ipv6() {
    let node = Node::new().unwrap();
    let (weir, client, _servers) = mesh(&node);
    eventually("captured", Duration::from_secs(10), || {
        let workloads = weir.json(&["workloads"]).to_string();
        let came = workloads.matches("over IPv4 and IPv6").count();
        if came == 3 { Ok(()) } else { Err(workloads) }
    });
    assert!(listener(&weir, client.ip6()).port() != 0);
    let told = weir.json(&["explain", "client", BYTES]);
    assert_eq!(told["verdict"], "proxy", "{told}");
    assert_eq!(told["service"], "default/bytes", "{told}");
    let endpoints = told["endpoints"].to_string();
    assert!(endpoints.contains("\"[fd00:10:244:1::"), "{told}");
    let told = weir.json(&["explain", "client", "fd00:96::2"]);
    assert_eq!(told["destination"], WEB, "{told}");
    assert!(weir.ok(&["workloads"]).contains(&client.ip6().to_string()));
}

/// Five pods with one and the same address, in networks of their own, dial the
/// same two addresses from the same source ports at once.
#[test]
fn original_destinations_are_exact_for_1000_connects_from_equal_addresses() {
    const VIPS: [(&str, &str, u16); 2] = [("a", "fd00:96::a", 8001), ("b", "fd00:96::b", 8002)];
    let node = Node::new().unwrap();
    let weir = Weir::start(&node).unwrap();
    let nets: Vec<(String, Network)> = (1..=5)
        .map(|n| format!("net{n}"))
        .map(|name| (name.clone(), node.isolated_network(&name).unwrap()))
        .collect();
    let mut pods = Vec::new();
    for (name, net) in &nets {
        let client = node.pod_on(net, &format!("{name}-client"), 2).unwrap();
        let server = node.pod_on(net, &format!("{name}-server"), 3).unwrap();
        for (pod, app) in [(&client, "client"), (&server, "server")] {
            weir.apply(&format!(
                "apiVersion: weir.dev/v1\nkind: Workload\nmetadata: {{name: {}, labels: {{app: {app}}}}}\n\
                 spec: {{addresses: ['{}'], network: {name}, netns: {}, cgroup: {}}}\n",
                pod.name(),
                pod.ip6(),
                pod.netns().path().display(),
                pod.cgroup().display(),
            ));
        }
        for (what, vip, port) in VIPS {
            let name_of = format!("{name}/{what}");
            let what_serves = Service::Whoami { name: name_of };
            server.agent().serve(server.at6(port), what_serves).unwrap();
            weir.apply(&format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}-{what}}}\nspec:\n  \
                 network: {name}\n  clusterIPs: ['{vip}']\n  selector: {{app: server}}\n  \
                 ports: [{{port: 80, targetPort: {port}}}]\n"
            ));
        }
        pods.push((client, server));
    }
    let dial = |n: u16| Dial {
        to: addr(&format!("[{}]:80", VIPS[usize::from(n % 2)].1)),
        from_port: Some(20_000 + n),
        send: format!("hello-{n}\n"),
    };
    let dials: Vec<Dial> = (0..200).map(dial).collect();
    std::thread::scope(|scope| {
        for ((name, _), (client, _)) in nets.iter().zip(&pods) {
            let dials = &dials;
            scope.spawn(move || {
                let replies = client.agent().storm(dials.clone()).unwrap();
                for (n, (dial, reply)) in dials.iter().zip(&replies).enumerate() {
                    let said = reply.answer.as_ref();
                    let said = said.unwrap_or_else(|fault| panic!("{n}: {fault}"));
                    let what = VIPS[n % 2].0;
                    assert_eq!(reply.local.unwrap(), client.at6(dial.from_port.unwrap()));
                    let begins = format!("{name}/{what} [{}]:", client.ip6());
                    assert!(said.starts_with(&begins), "{n}: {said}");
                    assert!(said.ends_with(&format!(" hello-{n}")), "{n}: {said}");
                }
            });
        }
    });
    eventually("all are counted", Duration::from_secs(5), || {
        match weir.metrics().count("weir_tcp_connections_total", &[]) {
            1000 => Ok(()),
            fewer => Err(format!("{fewer} are")),
        }
    });
    assert_eq!(weir.metrics().count("weir_flow_misses_total", &[]), 0);
    for workload in weir.json(&["workloads"])["items"].as_array().unwrap() {
        assert_eq!(workload["pendingFlows"], 0, "{workload}");
    }
}

/// Egress by address and CIDR; what opens one family opens nothing of the other.
#[test]
fn egress_is_governed_as_over_ipv4() {
    let node = Node::new().unwrap();
    let (weir, client, _servers) = mesh(&node);
    let [near, far] = ["near", "far"].map(|name| node.outside(name).unwrap());
    for pod in [&near, &far] {
        whoami(pod, pod.at6(7000));
        whoami(pod, pod.at(7000));
        http(pod, pod.at6(80), "v1");
    }
    is_denied(&client, near.at6(7000));
    let denied = near.at6(7000).to_string();
    weir.await_log(&["\"denial\"", &denied, "egress-default-deny"]);
    // The node's own address and a link-local one are external as well.
    is_denied(&client, addr("[fd00:10:244:1::1]:7000"));
    is_denied(&client, addr("[fe80::1]:80"));
    weir.apply(&egress_rule("all", "::/0", &[(7000, "tcp")], ""));
    weir.apply(&egress_rule("near", near.ip6(), &[(80, "http")], ""));
    for pod in [&near, &far] {
        let said = ask(&client, pod.at6(7000)).unwrap();
        let begins = format!("{} [{}]:", pod.name(), client.ip6());
        assert!(said.starts_with(&begins), "{said}");
        is_denied(&client, pod.at(7000));
    }
    is_denied(&client, far.at6(80));
    let get = HttpRequest::get("near", "/through");
    let reply = client.agent().http(near.at6(80), get).unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");
    weir.await_log(&["\"request\"", "/through", "default/near"]);
    // It must be HTTP, also over IPv6.
    let sock = client.agent().dial(near.at6(80)).unwrap();
    sock.send("\x16\x03\x01\x00\x05hello").unwrap();
    assert!(!sock.recv_to_end().unwrap().0.contains("200"));
    let told = weir.json(&["explain", "client", &far.at6(7000).to_string()]);
    assert_eq!(told["rule"], "default/all", "{told}");
}

/// A rule on a host name holds for the addresses of its AAAA records too.
#[test]
fn a_host_rule_checks_aaaa_records() {
    let node = Node::new().unwrap();
    let dns = node.outside("dns").unwrap();
    let args = vec!["--resolver".into(), dns.at(53).to_string()];
    let (weir, client, _servers) = mesh_with(&node, args);
    let [near, far] = ["near", "far"].map(|name| node.outside(name).unwrap());
    for pod in [&near, &far] {
        http(pod, addr("[::]:80"), "v1");
    }
    let name = "api.example.test".to_owned();
    let records = BTreeMap::from([(name, vec![near.ip(), near.ip6()])]);
    let what = Service::Dns { records };
    dns.agent().serve(dns.at(53), what).unwrap();
    weir.apply(&egress_rule("api", "api.example.test", &[(80, "http")], ""));
    let status = |to, host| {
        let reply = client.agent().http(to, HttpRequest::get(host, "/"));
        reply.unwrap().status
    };
    assert_eq!(status(near.at6(80), "api.example.test"), 200);
    assert_eq!(status(near.at(80), "api.example.test"), 200);
    assert_eq!(status(far.at6(80), "api.example.test"), 403);
    assert_eq!(status(near.at6(80), "other.example.test"), 403);
    let denied = far.at6(80).to_string();
    weir.await_log(&["\"denial\"", "egress-address-denied", &denied]);
    is_denied(&client, near.at6(81));
}

/// Nobody binds, joins, dials or, from outside, reaches the listener; what is
/// the pod's own is left alone.
#[test]
fn the_listener_is_weirs_alone_and_loopback_is_the_pods() {
    let node = Node::new().unwrap();
    let (weir, client, _servers) = mesh(&node);
    let at = listener(&weir, client.ip6());
    let any = SocketAddr::new(addr("[::]:0").ip(), at.port());
    for to in [at, any] {
        let sock = client.agent().tcp6().unwrap();
        sock.set(SockOption::ReusePort).unwrap();
        let fault = sock.bind(to).unwrap_err();
        assert!(fault.is(Errno::EPERM), "bind {to}: {fault}");
    }
    let looped = SocketAddr::new(addr("[::1]:0").ip(), at.port());
    for to in [at, any, looped] {
        is_denied(&client, to);
    }
    for to in ["[::]:7000", "[::1]:7001"] {
        whoami(&client, addr(to));
    }
    for to in [
        addr("[::1]:7001"),
        addr("[::1]:7000"),
        addr("[::]:7000"),
        client.at6(7000),
    ] {
        assert!(ask(&client, to).unwrap().starts_with("client "), "{to}");
    }
    // From another pod there is no answer; from inside, without a flow, a reset.
    let free = node.pod("free").unwrap();
    assert!(ask(&free, client.at6(7000)).unwrap().starts_with("client "));
    let sock = free.agent().tcp6().unwrap();
    sock.set(SockOption::Timeout(1000)).unwrap();
    let fault = sock
        .connect(at)
        .expect_err("another pod reaches the listener");
    assert!(
        fault.is(Errno::EINPROGRESS) || fault.is(Errno::ECONNREFUSED),
        "{fault}"
    );
    let intruder = node.intruder(&client).unwrap();
    let ended = intruder.dial(at).and_then(|sock| {
        sock.send("GET / HTTP/1.1\r\nHost: s\r\n\r\n")?;
        sock.recv_to_end()
    });
    let fault = match ended {
        Ok((said, fault)) => {
            assert_eq!(said, "");
            fault.expect("the connection is reset")
        }
        Err(fault) => fault,
    };
    assert!(
        fault.is(Errno::ECONNRESET) || fault.is(Errno::EPIPE),
        "{fault}"
    );
    let reason = [("reason", "no-flow")];
    let turned_away = weir
        .metrics()
        .count("weir_rejected_connections_total", &reason);
    assert_eq!(turned_away, 1);
}

/// Killed: denied stays denied, and what needs the proxy is refused at once.
#[test]
fn policy_outlives_the_daemon() {
    let node = Node::new().unwrap();
    let (mut weir, client, [one, _two]) = mesh(&node);
    ask(&client, addr(BYTES)).unwrap();
    weir.kill9().unwrap();
    let fault = client
        .agent()
        .dial(addr(BYTES))
        .err()
        .expect("the proxy is dead");
    assert!(fault.is(Errno::ECONNREFUSED), "{fault}");
    is_denied(&client, addr("[fd00:198:51:100::9]:80"));
    assert!(ask(&client, one.at6(8000)).unwrap().starts_with("one "));
    weir.launch().unwrap();
    ask(&client, addr(BYTES)).unwrap();
}
