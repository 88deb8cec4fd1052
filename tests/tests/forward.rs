//! Forwarding: whose connections go upstream, what is repeated, and what of HTTP/1.1 is kept.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use testbed::agent::HttpRequest;
use testbed::agent::proto::Service;
use testbed::docs::{egress_rule, service};
use testbed::{Node, Pod, Weir};

fn vip() -> SocketAddr {
    "10.96.0.1:80".parse().unwrap()
}

fn serve(pod: &Pod, port: u16) {
    let what = Service::Http {
        pod: pod.name().to_owned(),
        version: "v1".to_owned(),
    };
    pod.agent().serve(pod.at(port), what).unwrap();
}

/// A client, and a service `web` whose protocol is to be detected.
fn mesh(node: &Node) -> (Weir<'_>, Pod, Pod) {
    // One worker: upstream connections are kept per worker.
    let options = testbed::WeirOptions {
        args: vec!["--workers".to_owned(), "1".to_owned()],
        ..testbed::WeirOptions::default()
    };
    let weir = Weir::start_with(node, options).unwrap();
    let [client, web] = node.pods(["client", "web"]).unwrap();
    serve(&web, 8080);
    weir.enroll(&web, &["app=web"]);
    weir.enroll(&client, &[]);
    let port = "port: 80, targetPort: 8080";
    weir.apply(&service("web", "10.96.0.1", "web", &[port]));
    (weir, client, web)
}

/// Upstream connections are kept and used again, but never for another workload.
#[test]
fn upstream_connections_are_kept_but_never_shared() {
    let node = Node::new().unwrap();
    let (weir, client, _web) = mesh(&node);
    let other = node.pod("other").unwrap();
    weir.enroll(&other, &[]);
    let mut of_client = BTreeSet::new();
    let mut of_other = BTreeSet::new();
    for _ in 0..10 {
        for (pod, peers) in [(&client, &mut of_client), (&other, &mut of_other)] {
            let reply = pod
                .agent()
                .http(vip(), HttpRequest::get("web", "/"))
                .unwrap();
            let peer: SocketAddr = reply.field("/peer").parse().unwrap();
            assert_eq!(peer.ip(), pod.ip(), "the endpoint sees the pod's address");
            peers.insert(peer);
        }
    }
    assert_eq!(
        (of_client.len(), of_other.len()),
        (1, 1),
        "{of_client:?} {of_other:?}"
    );
}

/// A POST that an endpoint has got is never sent to another one.
#[test]
fn a_request_that_was_sent_is_not_repeated() {
    let node = Node::new().unwrap();
    let (weir, client, _web) = mesh(&node);
    let bad = node.pod("bad").unwrap();
    let listener = bad.agent().listen(bad.at(8080), 16).unwrap();
    weir.enroll(&bad, &["app=web"]);
    let statuses = std::thread::scope(|scope| {
        let broken = scope.spawn(|| {
            let (sock, _) = listener.accept().unwrap();
            let got = sock.recv(1000).unwrap();
            sock.abort().unwrap();
            String::from_utf8(got).unwrap()
        });
        let order = || HttpRequest::get("web", "/order").with_body("POST", "once");
        let mut statuses: Vec<u16> = (0..2)
            .map(|_| client.agent().http(vip(), order()).unwrap().status)
            .collect();
        statuses.sort_unstable();
        assert!(broken.join().unwrap().starts_with("POST /order"));
        statuses
    });
    assert_eq!(statuses[0], 200);
    assert!([502, 503].contains(&statuses[1]), "{statuses:?}");
    let metrics = weir.metrics();
    assert_eq!(metrics.count("weir_request_retries_total", &[]), 0);
    assert_eq!(metrics.count("weir_requests_total", &[]), 2);
}

/// HEAD has no body, and `Expect: 100-continue` gets its interim answer.
#[test]
fn head_and_expect_work() {
    let node = Node::new().unwrap();
    let (_weir, client, _web) = mesh(&node);
    let sock = client.agent().dial(vip()).unwrap();
    sock.send("HEAD /bytes/5000 HTTP/1.1\r\nHost: web\r\n\r\n")
        .unwrap();
    let said = String::from_utf8(sock.recv(10_000).unwrap()).unwrap();
    assert!(
        said.starts_with("HTTP/1.1 200 ") && said.ends_with("\r\n\r\n"),
        "{said:?}"
    );
    assert!(
        said.to_lowercase().contains("content-length: 5000"),
        "{said:?}"
    );
    sock.send(
        "POST /wait HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n",
    )
    .unwrap();
    let said = String::from_utf8(sock.recv(1000).unwrap()).unwrap();
    assert!(said.starts_with("HTTP/1.1 100 "), "{said:?}");
    sock.send("body").unwrap();
    let said = String::from_utf8(sock.recv(10_000).unwrap()).unwrap();
    assert!(
        said.starts_with("HTTP/1.1 200 ") && said.contains("\"body\":\"body\""),
        "{said:?}"
    );
}

/// An HTTP/1.0 client gets its answer and the end of the connection.
#[test]
fn http_1_0_is_served() {
    let node = Node::new().unwrap();
    let (_weir, client, _web) = mesh(&node);
    let sock = client.agent().dial(vip()).unwrap();
    sock.send("GET /old HTTP/1.0\r\n\r\n").unwrap();
    let (said, fault) = sock.recv_to_end().unwrap();
    assert!(fault.is_none(), "{fault:?}");
    assert!(
        said.starts_with("HTTP/1.") && said.contains(" 200 ") && said.contains("/old"),
        "{said:?}"
    );
}

/// A client that goes away in the middle of a body ends the request upstream,
/// and the way is clear for the next.
#[test]
fn a_client_that_breaks_off_harms_nobody() {
    let node = Node::new().unwrap();
    let (_weir, client, _web) = mesh(&node);
    for _ in 0..5 {
        let sock = client.agent().dial(vip()).unwrap();
        sock.send("POST /half HTTP/1.1\r\nHost: web\r\nContent-Length: 100\r\n\r\nhalf")
            .unwrap();
        sock.abort().unwrap();
        let sock = client.agent().dial(vip()).unwrap();
        sock.send("GET /bytes/3000000 HTTP/1.1\r\nHost: web\r\n\r\n")
            .unwrap();
        assert!(!sock.recv(1000).unwrap().is_empty());
        sock.abort().unwrap();
    }
    let reply = client
        .agent()
        .http(vip(), HttpRequest::get("web", "/next"))
        .unwrap();
    assert_eq!(
        (reply.status, reply.field("/uri")),
        (200, "/next".to_owned()),
        "{reply:?}"
    );
}

/// Each request to the outside follows the rules in force when it is made, on a
/// connection that is kept alive too.
#[test]
fn a_deleted_egress_rule_ends_kept_connections() {
    let node = Node::new().unwrap();
    let (weir, client, _web) = mesh(&node);
    let outside = node.outside("outside").unwrap();
    serve(&outside, 80);
    weir.apply(&egress_rule("outside", outside.ip(), &[(80, "http")], ""));
    let sock = client.agent().dial(outside.at(80)).unwrap();
    let ask = || {
        sock.send("GET / HTTP/1.1\r\nHost: outside\r\n\r\n")
            .unwrap();
        String::from_utf8(sock.recv(10_000).unwrap()).unwrap()
    };
    assert!(ask().starts_with("HTTP/1.1 200 "));
    weir.ok(&["delete", "egressrule", "outside"]);
    let said = ask();
    assert!(
        said.starts_with("HTTP/1.1 403 ") || said.is_empty(),
        "{said:?}"
    );
}
