//! Egress: everything external is denied, but for what a rule opens; and why is always said.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use testbed::agent::HttpRequest;
use testbed::agent::proto::Service;
use testbed::docs::{egress_rule, mesh_config, service};
use testbed::{Fault, Node, Pod, Weir, WeirOptions, patiently};

/// A client in the mesh, and two machines outside it, with a TCP server on 7000
/// and 7001 and an HTTP server on 80 and 81 each.
fn mesh(node: &Node, args: Vec<String>) -> (Weir<'_>, Pod, [Pod; 2]) {
    let options = WeirOptions {
        args,
        ..WeirOptions::default()
    };
    let weir = Weir::start_with(node, options).unwrap();
    let outside = ["near", "far"].map(|name| node.outside(name).unwrap());
    for pod in &outside {
        for port in [7000, 7001] {
            let name = pod.name().into();
            let what = Service::Whoami { name };
            pod.agent().serve(pod.at(port), what).unwrap();
        }
        for port in [80, 81] {
            let what = Service::Http {
                pod: pod.name().into(),
                version: "v1".into(),
            };
            pod.agent().serve(pod.at(port), what).unwrap();
        }
    }
    let client = node.pod("client").unwrap();
    weir.enroll(&client, &["app=c"]);
    (weir, client, outside)
}

fn ask_tcp(client: &Pod, addr: SocketAddr) -> Result<String, Fault> {
    let sock = client.agent().dial(addr)?;
    sock.send("x\n")?;
    let (said, fault) = sock.recv_to_end()?;
    fault.map_or(Ok(said), Err)
}

fn is_denied(client: &Pod, addr: SocketAddr) {
    let fault = client.agent().dial(addr).err();
    let fault = fault.unwrap_or_else(|| panic!("{addr} is open"));
    assert!(fault.is(Errno::EPERM), "{addr}: {fault}");
}

fn is_open(client: &Pod, addr: SocketAddr) {
    ask_tcp(client, addr).unwrap_or_else(|fault| panic!("{addr} is closed: {fault}"));
}

/// A denied connect fails at once, with a log line and a metric that say why.
#[test]
fn denied_by_default_and_told_why() {
    let node = Node::new().unwrap();
    let (weir, client, [near, _far]) = mesh(&node, Vec::new());
    let begun = Instant::now();
    is_denied(&client, near.at(7000));
    let limit = patiently(Duration::from_millis(500));
    assert!(begun.elapsed() < limit, "{:?}", begun.elapsed());
    // The node's own address and the metadata address are external as well.
    is_denied(&client, "10.244.1.1:7000".parse().unwrap());
    is_denied(&client, "169.254.169.254:80".parse().unwrap());
    let line = weir.await_log(&["\"denial\"", &near.at(7000).to_string()]);
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["workload"], "default/client", "{line}");
    assert_eq!(line["reason"], "egress-default-deny", "{line}");
    let destination = near.at(7000).to_string();
    let labels = [
        ("source", "default/client"),
        ("destination", destination.as_str()),
        ("reason", "egress-default-deny"),
    ];
    let metrics = weir.metrics();
    assert_eq!(
        metrics.count("weir_denials_total", &labels),
        1,
        "{}",
        metrics.show("weir_denials_total")
    );
    assert_eq!(
        metrics.count("weir_kernel_connects_total", &[("outcome", "denied")]),
        3
    );
    let said = weir.json(&["explain", "client", &destination]);
    assert_eq!(
        (&said["verdict"], &said["reason"]),
        (&"deny".into(), &"egress-default-deny".into()),
        "{said}"
    );
}

/// A `tcp` rule on an address: straight there, and closed again when it is deleted.
#[test]
fn a_tcp_rule_opens_one_port_of_one_address() {
    let node = Node::new().unwrap();
    let (weir, client, [near, far]) = mesh(&node, Vec::new());
    weir.apply(&egress_rule("near", near.ip(), &[(7000, "tcp")], ""));
    let said = ask_tcp(&client, near.at(7000)).unwrap();
    assert!(
        said.starts_with(&format!("near {}:", client.ip())),
        "{said}"
    );
    is_denied(&client, near.at(7001));
    is_denied(&client, far.at(7000));
    let metrics = weir.metrics();
    assert_eq!(
        metrics.count("weir_kernel_connects_total", &[("outcome", "direct")]),
        1
    );
    assert_eq!(
        metrics.count("weir_tcp_connections_total", &[]),
        0,
        "it did not pass the proxy"
    );
    weir.ok(&["delete", "egressrule", "near"]);
    is_denied(&client, near.at(7000));
}

/// What a shorter prefix opens holds inside a longer one too.
#[test]
fn rules_on_nested_prefixes_are_a_union() {
    let node = Node::new().unwrap();
    let (weir, client, [near, far]) = mesh(&node, Vec::new());
    weir.apply(&egress_rule("net", "198.51.100.0/24", &[(7000, "tcp")], ""));
    weir.apply(&egress_rule("near", near.ip(), &[(7001, "tcp")], ""));
    for addr in [near.at(7000), near.at(7001), far.at(7000)] {
        is_open(&client, addr);
    }
    is_denied(&client, far.at(7001));
    weir.ok(&["delete", "egressrule", "near"]);
    is_open(&client, near.at(7000));
    is_denied(&client, near.at(7001));
}

/// An `http` rule on an address: through the proxy, to the dialled address, and HTTP alone.
#[test]
fn an_http_rule_lets_http_alone_pass() {
    let node = Node::new().unwrap();
    let (weir, client, [near, _far]) = mesh(&node, Vec::new());
    weir.apply(&egress_rule(
        "near",
        near.ip(),
        &[(80, "http"), (7000, "http")],
        "",
    ));
    let reply = client
        .agent()
        .http(near.at(80), HttpRequest::get("whoever", "/x"))
        .unwrap();
    assert_eq!(
        (
            reply.status,
            reply.field("/pod"),
            reply.field("/headers/host")
        ),
        (200, "near".into(), "whoever".into())
    );
    let ends = [
        ("source", "default/client"),
        ("destination", "default/near"),
        ("destination_kind", "external"),
    ];
    assert_eq!(
        weir.metrics().count("weir_requests_total", &ends),
        1,
        "{}",
        weir.metrics().show("weir_requests_total")
    );
    let fault = ask_tcp(&client, near.at(7000)).unwrap_err();
    assert!(fault.is(Errno::ECONNRESET), "{fault}");
}

/// A rule holds for the workloads of its source, and of its own namespace.
#[test]
fn a_rule_holds_for_its_source_alone() {
    let node = Node::new().unwrap();
    let (weir, client, [near, far]) = mesh(&node, Vec::new());
    let other = node.pod("other").unwrap();
    weir.enroll(&other, &["app=o"]);
    weir.apply(&egress_rule(
        "near",
        near.ip(),
        &[(7000, "tcp")],
        "  source: {labels: {app: c}}\n",
    ));
    is_open(&client, near.at(7000));
    is_denied(&other, near.at(7000));
    let elsewhere = egress_rule("far", far.ip(), &[(7000, "tcp")], "");
    weir.apply(&elsewhere.replace("{name: far}", "{name: far, namespace: prod}"));
    is_denied(&client, far.at(7000));
}

/// `egress: audit` lets through and reports; `allow` lets through.
#[test]
fn audit_reports_and_allow_allows() {
    let node = Node::new().unwrap();
    let (weir, client, [near, _far]) = mesh(&node, Vec::new());
    weir.apply(&mesh_config("egress: audit"));
    is_open(&client, near.at(7000));
    let line = weir.await_log(&["\"audit\"", &near.at(7000).to_string()]);
    assert!(line.contains("egress-audit"), "{line}");
    assert_eq!(
        weir.metrics()
            .count("weir_egress_audited_total", &[("source", "default/client")]),
        1
    );
    weir.apply(&mesh_config("egress: allow"));
    is_open(&client, near.at(7000));
    assert_eq!(weir.metrics().count("weir_egress_audited_total", &[]), 1);
    assert_eq!(weir.metrics().count("weir_denials_total", &[]), 0);
    weir.apply(&mesh_config("egress: deny"));
    is_denied(&client, near.at(7000));
}

/// A virtual address has the ports that its service declares, and no other.
#[test]
fn a_port_that_no_service_declares_is_denied() {
    let node = Node::new().unwrap();
    let (weir, client, _outside) = mesh(&node, Vec::new());
    weir.apply(&service("s", "10.96.0.1", "s", &["port: 80"]));
    weir.apply(&mesh_config("egress: allow"));
    is_denied(&client, "10.96.0.1:81".parse().unwrap());
    weir.await_log(&["\"denial\"", "10.96.0.1:81", "unknown-service-port"]);
}

/// Another workload's address is reached straight, whatever the egress default.
#[test]
fn a_workloads_address_is_direct() {
    let node = Node::new().unwrap();
    let (weir, client, _outside) = mesh(&node, Vec::new());
    let server = node.pod("server").unwrap();
    server
        .agent()
        .serve(
            server.at(7000),
            Service::Whoami {
                name: "server".into(),
            },
        )
        .unwrap();
    is_denied(&client, server.at(7000));
    weir.enroll(&server, &[]);
    assert!(
        ask_tcp(&client, server.at(7000))
            .unwrap()
            .starts_with(&format!("server {}:", client.ip()))
    );
    weir.ok(&["delete", "workload", "server"]);
    is_denied(&client, server.at(7000));
}

/// A mesh whose rules open `api.example.test` and `*.wild.test`, and who resolves them.
fn by_name(node: &Node) -> (Pod, Weir<'_>, Pod, [Pod; 2]) {
    let dns = node.outside("dns").unwrap();
    let resolver = dns.at(53);
    let (weir, client, [near, far]) = mesh(node, vec!["--resolver".into(), resolver.to_string()]);
    let records = BTreeMap::from([
        ("api.example.test".to_owned(), vec![near.ip()]),
        ("a.wild.test".to_owned(), vec![near.ip(), far.ip()]),
        ("wild.test".to_owned(), vec![near.ip()]),
        ("evil.test".to_owned(), vec![near.ip()]),
    ]);
    dns.agent()
        .serve(resolver, Service::Dns { records })
        .unwrap();
    weir.apply(&egress_rule("api", "api.example.test", &[(80, "http")], ""));
    weir.apply(&egress_rule("wild", "*.wild.test", &[(80, "http")], ""));
    (dns, weir, client, [near, far])
}

/// A rule on a host name opens it where the name, as weir resolves it, leads to
/// the dialled address; nothing else.
#[test]
fn a_host_rule_checks_the_name_and_the_address() {
    let node = Node::new().unwrap();
    let (_dns, weir, client, [near, far]) = by_name(&node);
    let ask = |addr, host| {
        client
            .agent()
            .http(addr, HttpRequest::get(host, "/"))
            .unwrap()
    };
    for (pod, host) in [
        (&near, "api.example.test"),
        (&near, "API.Example.test:80"),
        (&near, "a.wild.test"),
        (&far, "a.wild.test"),
    ] {
        let reply = ask(pod.at(80), host);
        assert_eq!(
            (reply.status, reply.field("/pod")),
            (200, pod.name().into()),
            "{host}: {reply:?}"
        );
    }
    // Not that name's address; no rule; the wildcard wants a label more; no such name.
    for (pod, host) in [
        (&far, "api.example.test"),
        (&near, "evil.test"),
        (&near, "wild.test"),
        (&near, "b.wild.test"),
    ] {
        let reply = ask(pod.at(80), host);
        assert_eq!(reply.status, 403, "{host}: {reply:?}");
        assert_eq!(reply.headers["content-type"], "application/problem+json");
        assert!(
            reply.body.contains(host),
            "the reason names the host: {reply:?}"
        );
    }
    weir.await_log(&["\"denial\"", "egress-host-denied", &near.at(80).to_string()]);
    weir.await_log(&["\"denial\"", "egress-address-denied", "default/api"]);
    weir.await_log(&["\"request\"", "evil.test", "403"]);
    assert_eq!(
        weir.metrics()
            .count("weir_denials_total", &[("source", "default/client")]),
        4
    );
    // A port without such a rule is decided in the kernel.
    is_denied(&client, near.at(81));
    // What is no HTTP gets no further.
    let sock = client.agent().dial(near.at(80)).unwrap();
    sock.send("\x16\x03\x01\x00\x05hello").unwrap();
    let (said, _) = sock.recv_to_end().unwrap();
    assert!(!said.contains("200"), "{said}");
}

/// The host is that of the target, whatever the header says; and over UDP there is none.
#[test]
fn the_name_that_counts_is_the_one_that_is_asked() {
    let node = Node::new().unwrap();
    let (_dns, weir, client, [near, _far]) = by_name(&node);
    for (target, status) in [("http://evil.test/", "403"), ("/", "200")] {
        let sock = client.agent().dial(near.at(80)).unwrap();
        let end = "Host: api.example.test\r\nConnection: close\r\n\r\n";
        sock.send(format!("GET {target} HTTP/1.1\r\n{end}"))
            .unwrap();
        let (said, _) = sock.recv_to_end().unwrap();
        assert!(
            said.starts_with(&format!("HTTP/1.1 {status} ")),
            "{target}: {said}"
        );
    }
    for (asked, verdict, reason) in [
        ("api.example.test:80", "proxy", "egress-by-name"),
        ("api.example.test:80/udp", "deny", "egress-name-over-udp"),
    ] {
        let said = weir.json(&["explain", "client", asked]);
        assert_eq!(said["verdict"], verdict, "{said}");
        assert_eq!(said["reason"], reason, "{said}");
        assert_eq!(said["destination"], asked, "{said}");
    }
}

/// What cannot be enforced yet, or contradicts itself, is refused on apply.
#[test]
fn rules_that_cannot_be_kept_are_refused() {
    let node = Node::new().unwrap();
    let (weir, _client, [near, _far]) = mesh(&node, Vec::new());
    for (document, word) in [
        (
            egress_rule("x", "api.example.test", &[(443, "https")], ""),
            "https",
        ),
        (
            egress_rule("x", "api.example.test", &[(443, "tls")], ""),
            "tls",
        ),
        (
            egress_rule("x", near.ip(), &[(80, "tcp"), (80, "http")], ""),
            "80",
        ),
        (
            egress_rule("x", "198.51.100.0/33", &[(80, "tcp")], ""),
            "198.51.100.0/33",
        ),
        (
            egress_rule("x", "a.*.test", &[(80, "http")], ""),
            "a.*.test",
        ),
    ] {
        let output = weir.try_apply(&document);
        assert_ne!(output.status, 0, "{document}");
        assert!(output.stderr.contains(word), "{document}\n{output:?}");
    }
    assert_eq!(
        weir.json(&["get", "egressrule"])["items"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
}
