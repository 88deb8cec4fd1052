//! Bad input and too much of it: each gets its answer, none a hang, and nobody else suffers.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use testbed::agent::HttpRequest;
use testbed::agent::proto::Service;
use testbed::docs::{mesh_config, service};
use testbed::{Node, Pod, Weir, eventually, patiently};

fn vip() -> SocketAddr {
    "10.96.0.1:80".parse().unwrap()
}

/// A client and a service whose port is declared `http`.
fn mesh(node: &Node) -> (Weir<'_>, Pod, Pod) {
    let weir = Weir::start(node).unwrap();
    let [client, server] = node.pods(["client", "server"]).unwrap();
    let what = Service::Http {
        pod: "server".into(),
        version: "v1".into(),
    };
    server.agent().serve(server.at(8080), what).unwrap();
    weir.enroll(&server, &["app=web"]);
    weir.enroll(&client, &["app=c"]);
    weir.apply(&service(
        "web",
        "10.96.0.1",
        "web",
        &["name: http, port: 80, targetPort: 8080"],
    ));
    (weir, client, server)
}

/// Sends `bytes` and reads what comes until the end, which has to come.
fn exchange(client: &Pod, bytes: &str) -> String {
    let sock = client.agent().dial(vip()).unwrap();
    // An answer may come, and the connection end, before everything is sent.
    let sent = sock.send(bytes);
    let (said, fault) = sock.recv_to_end().unwrap();
    let timed_out = fault.as_ref().is_some_and(|fault| fault.is(Errno::EAGAIN));
    assert!(!timed_out, "no end after {bytes:.60?}: {said:?}, {sent:?}");
    said
}

fn status(said: &str) -> &str {
    said.strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .unwrap_or("none")
}

/// What is no HTTP on an HTTP port: 400, and the end.
#[test]
fn broken_http_gets_400_and_the_end() {
    let node = Node::new().unwrap();
    let (weir, client, _server) = mesh(&node);
    let broken = [
        "BLAH\r\n\r\n",
        "GET /\x01 HTTP/1.1\r\nHost: web\r\n\r\n",
        "GET / HTTP/1.1\r\nHost web\r\n\r\n",
        "GET / HTTP/1.1\r\nHo st: web\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\u{7f}\r\n\r\n",
    ];
    for bytes in broken {
        assert_eq!(status(&exchange(&client, bytes)), "400", "{bytes:?}");
    }
    let metrics = weir.metrics();
    let reason = [("reason", "bad-request")];
    let counted = metrics.count("weir_rejected_connections_total", &reason);
    let said = metrics.show("weir_rejected_connections_total");
    assert_eq!(counted, broken.len() as u64, "{said}");
}

/// Framing that two parties could read in two ways is refused, and the endpoint never sees it.
#[test]
fn ambiguous_framing_is_refused() {
    let node = Node::new().unwrap();
    let (weir, client, _server) = mesh(&node);
    let head = "POST /ambiguous HTTP/1.1\r\nHost: web\r\n";
    let ambiguous = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "Content-Length: 5, 6\r\n\r\nhello!",
        "Content-Length: +5\r\n\r\nhello",
        "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    ];
    for rest in ambiguous {
        let said = exchange(&client, &format!("{head}{rest}"));
        assert!(
            ["400", "501"].contains(&status(&said)),
            "{rest:?}: {said:?}"
        );
    }
    // Bad chunks show only after the head was passed on: no answer with 200 may come of it.
    let bad = [
        "zz\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcdef\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\n",
    ];
    for rest in bad {
        let said = exchange(
            &client,
            &format!("{head}Transfer-Encoding: chunked\r\n\r\n{rest}"),
        );
        assert_ne!(status(&said), "200", "{rest:?}: {said:?}");
    }
    assert_eq!(
        weir.metrics()
            .count("weir_requests_total", &[("code", "200")]),
        0
    );
    // The way is clear for the next one.
    assert_eq!(
        client
            .agent()
            .http(vip(), HttpRequest::get("web", "/"))
            .unwrap()
            .status,
        200
    );
}

/// Headers without end: 431.
#[test]
fn a_header_bomb_gets_431() {
    let node = Node::new().unwrap();
    let (_weir, client, _server) = mesh(&node);
    let long = format!(
        "GET / HTTP/1.1\r\nHost: web\r\nX-Bomb: {}\r\n\r\n",
        "x".repeat(1 << 20)
    );
    assert_eq!(status(&exchange(&client, &long)), "431");
    let many: Vec<String> = (0..20_000).map(|n| format!("X-Bomb-{n}: x\r\n")).collect();
    let many = many.concat();
    assert_eq!(
        status(&exchange(
            &client,
            &format!("GET / HTTP/1.1\r\nHost: web\r\n{many}\r\n")
        )),
        "431"
    );
    assert_eq!(
        client
            .agent()
            .http(vip(), HttpRequest::get("web", "/"))
            .unwrap()
            .status,
        200
    );
}

/// A head that never ends is ended, also on a kept-alive connection.
#[test]
fn a_slow_header_times_out() {
    let node = Node::new().unwrap();
    let (weir, client, _server) = mesh(&node);
    weir.apply(&mesh_config("headerTimeout: 1s"));
    let begun = Instant::now();
    let said = exchange(&client, "GET / HTTP/1.1\r\nHost: w");
    assert!(["408", "none"].contains(&status(&said)), "{said:?}");
    assert!(
        begun.elapsed() > Duration::from_millis(800),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        begun.elapsed() < patiently(Duration::from_secs(5)),
        "{:?}",
        begun.elapsed()
    );
    let said = exchange(
        &client,
        "GET /first HTTP/1.1\r\nHost: web\r\n\r\nGET /second HT",
    );
    assert_eq!(status(&said), "200", "{said:?}");
    assert!(!said.contains("/second"), "{said:?}");
}

/// On a port whose protocol is to be detected, half a request line and silence is no hang either.
#[test]
fn a_half_request_on_a_detected_port_ends() {
    let node = Node::new().unwrap();
    let (weir, client, _server) = mesh(&node);
    weir.apply(&mesh_config("headerTimeout: 1s"));
    weir.apply(&service(
        "web",
        "10.96.0.1",
        "web",
        &["port: 80, targetPort: 8080"],
    ));
    let begun = Instant::now();
    exchange(&client, "GET / HTT");
    assert!(
        begun.elapsed() < patiently(Duration::from_secs(9)),
        "{:?}",
        begun.elapsed()
    );
}

/// A pod that opens connections without end meets its own limit; others do not notice.
#[test]
fn connections_without_end_meet_the_pods_own_limit() {
    let node = Node::new().unwrap();
    let (weir, client, _server) = mesh(&node);
    let modest = node.pod("modest").unwrap();
    weir.enroll(&modest, &[]);
    let mut limited = false;
    for _ in 0..18 {
        client.agent().flood(vip(), 1000).unwrap();
        let metrics = weir.metrics();
        limited = metrics.count("weir_rejected_connections_total", &[("reason", "limit")]) > 0;
        if limited {
            break;
        }
    }
    assert!(
        limited,
        "{}",
        weir.metrics().show("weir_rejected_connections_total")
    );
    for _ in 0..20 {
        let begun = Instant::now();
        assert_eq!(
            modest
                .agent()
                .http(vip(), HttpRequest::get("web", "/"))
                .unwrap()
                .status,
            200
        );
        assert!(
            begun.elapsed() < patiently(Duration::from_secs(1)),
            "{:?}",
            begun.elapsed()
        );
    }
    client.agent().close_flood().unwrap();
    eventually(
        "the pod is served again",
        Duration::from_secs(10),
        || match client.agent().http(vip(), HttpRequest::get("web", "/")) {
            Ok(reply) if reply.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        },
    );
}
