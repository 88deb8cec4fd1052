//! HTTP through the proxy: what is passed on, retried, drained, and recorded.

use std::net::SocketAddr;
use std::time::Duration;

use testbed::agent::proto::Service;
use testbed::agent::{HttpRequest, Load, LoadReport};
use testbed::docs::{route_rule, service};
use testbed::{Node, Pod, Weir, eventually};

fn vip() -> SocketAddr {
    "10.96.0.1:80".parse().unwrap()
}

fn serve(pod: &Pod, version: &str) {
    let what = Service::Http {
        pod: pod.name().to_owned(),
        version: version.to_owned(),
    };
    pod.agent().serve(pod.at(8080), what).unwrap();
}

/// A client, and a service `web` of two endpoints, `v1` and `v2`, its protocol to be detected.
fn mesh(node: &Node) -> (Weir<'_>, Pod, [Pod; 2]) {
    let weir = Weir::start(node).unwrap();
    let [client, one, two] = node.pods(["client", "one", "two"]).unwrap();
    for (pod, version) in [(&one, "v1"), (&two, "v2")] {
        serve(pod, version);
        weir.enroll(pod, &["app=web", &format!("version={version}")]);
    }
    weir.enroll(&client, &["app=shop", "tier=front"]);
    weir.apply(&service(
        "web",
        "10.96.0.1",
        "web",
        &["port: 80, targetPort: 8080"],
    ));
    (weir, client, [one, two])
}

fn load(client: &Pod, count: u64, connections: u64) -> LoadReport {
    let load = Load {
        addr: vip(),
        request: HttpRequest::get("web", "/"),
        count,
        connections,
        pause_ms: 0,
        pointer: String::new(),
    };
    let report = client.agent().load(load).unwrap();
    assert_eq!((report.sent, report.failed()), (count, 0), "{report:?}");
    report
}

/// Draining: nothing new for an endpoint that is not ready, and what is in flight ends.
#[test]
fn an_endpoint_that_is_not_ready_drains() {
    let node = Node::new().unwrap();
    let (weir, client, _pods) = mesh(&node);
    weir.apply(&route_rule("web", "web", &[("v2", 100)], ""));
    let slow = std::thread::scope(|scope| {
        let other = client.new_agent().unwrap();
        let slow = scope.spawn(move || {
            other
                .http(vip(), HttpRequest::get("web", "/delay/1500"))
                .unwrap()
        });
        std::thread::sleep(Duration::from_millis(400));
        weir.ok(&["delete", "routerule", "web"]);
        weir.ok(&[
            "patch",
            "workload",
            "two",
            "-p",
            r#"{"spec":{"ready":false}}"#,
        ]);
        assert_eq!(load(&client, 20, 2).version("v1"), 20);
        slow.join().unwrap()
    });
    assert_eq!(
        (slow.status, slow.field("/version")),
        (200, "v2".into()),
        "{slow:?}"
    );
    weir.ok(&[
        "patch",
        "workload",
        "one",
        "-p",
        r#"{"spec":{"ready":false}}"#,
    ]);
    let reply = client
        .agent()
        .http(vip(), HttpRequest::get("web", "/"))
        .unwrap();
    assert_eq!(reply.status, 503, "{reply:?}");
    assert_eq!(
        reply.headers["content-type"], "application/problem+json",
        "{reply:?}"
    );
}

/// A refused endpoint is passed over; when all are refused, the client is told so.
#[test]
fn a_dead_endpoint_is_retried_elsewhere() {
    let node = Node::new().unwrap();
    let (weir, client, pods) = mesh(&node);
    let dead = node.pod("dead").unwrap();
    weir.enroll(&dead, &["app=web", "version=v3"]);
    let report = load(&client, 60, 3);
    assert_eq!(report.pods.len(), 2, "{report:?}");
    assert!(weir.metrics().count("weir_request_retries_total", &[]) >= 20);
    // A POST too: nothing of it was sent.
    let post = HttpRequest::get("web", "/").with_body("POST", "order");
    for _ in 0..3 {
        assert_eq!(
            client
                .agent()
                .http(vip(), post.clone())
                .unwrap()
                .field("/body"),
            "order"
        );
    }
    drop(pods);
    for pod in ["one", "two"] {
        weir.ok(&["delete", "workload", pod]);
    }
    let reply = client
        .agent()
        .http(vip(), HttpRequest::get("web", "/"))
        .unwrap();
    assert!([502, 503].contains(&reply.status), "{reply:?}");
}

/// Bodies, long and short, both ways; several requests on one connection.
#[test]
fn bodies_pass_unchanged() {
    let node = Node::new().unwrap();
    let (_weir, client, _pods) = mesh(&node);
    let long: Vec<String> = (0..200_000).map(|n| format!("{n:x}")).collect();
    let long = long.concat();
    let requests = vec![
        HttpRequest::get("web", "/first").with_body("POST", &long),
        HttpRequest::get("web", "/bytes/3000000"),
        HttpRequest::get("web", "/status/404"),
        HttpRequest::get("web", "/last").with_body("PUT", "short"),
    ];
    let replies = client.agent().http_all(vip(), requests).unwrap();
    assert_eq!(replies[0].field("/body"), long);
    assert_eq!(replies[1].body.len(), 3_000_000);
    assert_eq!(
        (replies[2].status, replies[2].field("/uri")),
        (404, "/status/404".into())
    );
    assert_eq!(
        (replies[3].field("/method"), replies[3].field("/body")),
        ("PUT".into(), "short".into())
    );
    // By hand: chunks, and two requests in one segment.
    let sock = client.agent().dial(vip()).unwrap();
    sock.send(
        "POST /chunks HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n\
         GET /second HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n",
    )
    .unwrap();
    let (said, fault) = sock.recv_to_end().unwrap();
    assert!(fault.is_none(), "{fault:?}");
    let (first, second) = (
        said.find("\"body\":\"abcde\""),
        said.find("\"uri\":\"/second\""),
    );
    assert!(first.is_some() && first < second, "{said}");
}

/// Request id and trace context are passed on, and begun where they are missing.
#[test]
fn requests_carry_an_id_and_a_trace() {
    let node = Node::new().unwrap();
    let (_weir, client, _pods) = mesh(&node);
    let ask = |request| client.agent().http(vip(), request).unwrap();
    let begun = ask(HttpRequest::get("web", "/"));
    assert!(
        !begun.field("/headers/x-request-id").is_empty(),
        "{begun:?}"
    );
    let parent = begun.field("/headers/traceparent");
    assert!(
        parent.starts_with("00-") && parent.len() == 55,
        "{parent:?}"
    );
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let passed = ask(HttpRequest::get("web", "/")
        .header("x-request-id", "mine")
        .header("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01"))
        .header("tracestate", "vendor=1"));
    assert_eq!(passed.field("/headers/x-request-id"), "mine");
    assert!(
        passed.field("/headers/traceparent").contains(trace),
        "{passed:?}"
    );
    assert_eq!(passed.field("/headers/tracestate"), "vendor=1");
    let b3 = ask(HttpRequest::get("web", "/")
        .header("x-b3-traceid", trace)
        .header("x-b3-spanid", "00f067aa0ba902b7"));
    assert_eq!(b3.field("/headers/x-b3-traceid"), trace);
}

/// What was sent is what the metrics, the log and the graph say.
#[test]
fn requests_are_counted_logged_and_drawn() {
    let node = Node::new().unwrap();
    let (weir, client, _pods) = mesh(&node);
    load(&client, 40, 4);
    let reply = client
        .agent()
        .http(vip(), HttpRequest::get("web", "/status/404"))
        .unwrap();
    assert_eq!(reply.status, 404);
    let line = weir.await_log(&["\"request\"", "/status/404"]);
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["workload"], "default/client", "{line}");
    assert_eq!(
        (&line["destination"], &line["code"]),
        (&"default/web".into(), &404.into()),
        "{line}"
    );
    assert!(
        line["duration_ms"].is_number() && line["endpoint"].is_string(),
        "{line}"
    );
    let metrics = weir.metrics();
    let ends = [("source", "default/client"), ("destination", "default/web")];
    let with = |more: &[(&'static str, &'static str)]| -> u64 {
        metrics.count("weir_requests_total", &[&ends[..], more].concat())
    };
    assert_eq!(
        (
            with(&[]),
            with(&[("code", "200")]),
            with(&[("code", "404")])
        ),
        (41, 40, 1)
    );
    assert_eq!(with(&[("version", "v1")]) + with(&[("version", "v2")]), 41);
    assert_eq!(
        metrics.count("weir_request_duration_seconds_count", &ends),
        41
    );
    let graph: serde_json::Value =
        serde_json::from_str(&weir.ok(&["graph", "-o", "json"])).unwrap();
    assert!(
        graph.to_string().contains("default/client") && graph.to_string().contains("default/web"),
        "{graph}"
    );
    eventually(
        "connections are counted to their end",
        Duration::from_secs(3),
        || {
            let metrics = weir.metrics();
            let (opened, closed) = (
                metrics.count("weir_connections_opened_total", &ends),
                metrics.count("weir_connections_closed_total", &ends),
            );
            if opened == 5 && closed == 5 {
                Ok(())
            } else {
                Err(format!("{opened} opened, {closed} closed"))
            }
        },
    );
}
