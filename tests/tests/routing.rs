//! Routing: which endpoint gets a request, by rule, weight and turn.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use testbed::agent::proto::Service;
use testbed::agent::{HttpRequest, Load, LoadReport};
use testbed::docs::{route_rule, service};
use testbed::{Node, Pod, Weir, WeirOptions};

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

/// A client, and a service `web` of two endpoints, `v1` and `v2`. Its protocol is declared:
/// how soon a client must speak for it to be detected is not what is tested here.
fn mesh<'a>(node: &'a Node, args: &[&str]) -> (Weir<'a>, Pod, [Pod; 2]) {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    let weir = Weir::start_with(
        node,
        WeirOptions {
            args,
            ..WeirOptions::default()
        },
    )
    .unwrap();
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
        &["name: http, port: 80, targetPort: 8080"],
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

fn version(client: &Pod, request: HttpRequest) -> String {
    let reply = client.agent().http(vip(), request).unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.field("/version")
}

/// Any 100 requests in a row at 50/50 are 50±1, whatever the number of workers.
#[test]
fn half_and_half_is_exact_on_any_number_of_cores() {
    for workers in ["1", "2", "5"] {
        let node = Node::new().unwrap();
        let (weir, client, _pods) = mesh(&node, &["--workers", workers]);
        weir.apply(&route_rule("web", "web", &[("v1", 50), ("v2", 50)], ""));
        for connections in [1, 7, 16] {
            let report = load(&client, 100, connections);
            let v1 = report.version("v1");
            assert!(
                (49..=51).contains(&v1),
                "{workers} workers, {connections} connections: {v1}"
            );
        }
        weir.apply(&route_rule("web", "web", &[("v1", 1), ("v2", 99)], ""));
        assert_eq!(load(&client, 100, 8).version("v1"), 1);
    }
}

/// Without a rule every endpoint has its turn.
#[test]
fn without_a_rule_the_endpoints_take_turns() {
    let node = Node::new().unwrap();
    let (_weir, client, _pods) = mesh(&node, &[]);
    let report = load(&client, 100, 8);
    assert_eq!(
        report.pods,
        BTreeMap::from([("one".to_owned(), 50), ("two".to_owned(), 50)])
    );
}

/// When `weir apply` returns, the next request follows the new rule, on
/// connections that are open already too.
#[test]
fn a_rule_is_in_force_for_the_very_next_request() {
    let node = Node::new().unwrap();
    let (weir, client, _pods) = mesh(&node, &[]);
    client
        .agent()
        .start_load(Load {
            addr: vip(),
            request: HttpRequest::get("web", "/"),
            count: 0,
            connections: 4,
            pause_ms: 0,
            pointer: String::new(),
        })
        .unwrap();
    let other = client.new_agent().unwrap();
    for round in 0..10 {
        let wanted = if round % 2 == 0 { "v1" } else { "v2" };
        weir.apply(&route_rule("web", "web", &[(wanted, 100)], ""));
        for _ in 0..5 {
            let reply = other.http(vip(), HttpRequest::get("web", "/")).unwrap();
            assert_eq!(reply.field("/version"), wanted, "round {round}");
        }
    }
    let report = client.agent().stop_load().unwrap();
    assert_eq!(report.failed(), 0, "{report:?}");
}

/// A client of an undeclared port that is silent at first gets its server dialled
/// before it is known what it speaks. That takes no request's turn.
#[test]
fn who_speaks_late_takes_one_turn() {
    let node = Node::new().unwrap();
    let (weir, client, _pods) = mesh(&node, &[]);
    let ports = ["port: 80, targetPort: 8080"];
    weir.apply(&service("web", vip().ip(), "web", &ports));
    let said = || {
        let sock = client.agent().dial(vip()).unwrap();
        // Ten times as long as weir waits for the first word.
        std::thread::sleep(Duration::from_millis(100));
        sock.send("GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n")
            .unwrap();
        sock.recv_to_end().unwrap().0
    };
    let first = |rule: &str| {
        let answers: Vec<_> = (0..10).map(|_| said()).collect();
        let v1 = answers.iter().filter(|said| said.contains("\"v1\""));
        let v2 = answers.iter().filter(|said| said.contains("\"v2\""));
        assert_eq!((v1.count(), v2.count()), (5, 5), "{rule}: {answers:?}");
    };
    first("no rule");
    weir.apply(&route_rule("web", "web", &[("v1", 50), ("v2", 50)], ""));
    first("half and half");
}

/// Precedence first, then the match on path, method, header and source.
#[test]
fn rules_match_on_path_method_headers_and_source() {
    let node = Node::new().unwrap();
    let (weir, client, _pods) = mesh(&node, &[]);
    let other = node.pod("other").unwrap();
    weir.enroll(&other, &["app=back"]);
    weir.apply(&service("shop", "10.96.0.7", "shop", &["port: 80"]));
    let headers =
        |what: &str| format!("  precedence: 10\n  match: {{request: {{headers: {{{what}}}}}}}\n");
    weir.apply(&route_rule(
        "base",
        "web",
        &[("v1", 100)],
        "  precedence: 1\n",
    ));
    let get = HttpRequest::get;
    let cases = [
        (
            "uri: {prefix: /api/}",
            get("web", "/api/x"),
            get("web", "/apix"),
        ),
        (
            "uri: {exact: /only}",
            get("web", "/only"),
            get("web", "/only/this"),
        ),
        (
            "uri: {regex: '/v[0-9]+/.*'}",
            get("web", "/v12/x"),
            get("web", "/v/x"),
        ),
        (
            "method: {exact: PUT}",
            get("web", "/").with_body("PUT", "x"),
            get("web", "/"),
        ),
        (
            "x-user: {exact: jason}",
            get("web", "/").header("X-User", "jason"),
            get("web", "/").header("x-user", "x"),
        ),
        (
            "cookie: {regex: '^(.*?;)?(user=jason)(;.*)?$'}",
            get("web", "/").header("cookie", "a=b;user=jason"),
            get("web", "/"),
        ),
    ];
    for (what, hit, miss) in cases {
        weir.apply(&route_rule(
            "special",
            "web",
            &[("v2", 100)],
            &headers(what),
        ));
        assert_eq!(version(&client, hit), "v2", "{what}");
        assert_eq!(version(&client, miss), "v1", "{what}");
    }
    for source in ["source: {name: shop}", "source: {labels: {tier: front}}"] {
        let rest = format!("  precedence: 10\n  match: {{{source}}}\n");
        weir.apply(&route_rule("special", "web", &[("v2", 100)], &rest));
        assert_eq!(version(&client, get("web", "/")), "v2", "{source}");
        assert_eq!(version(&other, get("web", "/")), "v1", "{source}");
    }
}

/// The dialled address chooses the service, never the Host header.
#[test]
fn the_host_header_chooses_no_service() {
    let node = Node::new().unwrap();
    let (weir, client, [one, _two]) = mesh(&node, &[]);
    weir.apply(&service(
        "one",
        "10.96.0.2",
        "one",
        &["port: 80, targetPort: 8080"],
    ));
    weir.enroll(&one, &["app=one", "version=v1"]);
    let asked = HttpRequest::get("one", "/");
    let at_web = client.agent().http(vip(), asked.clone()).unwrap();
    let at_one = client
        .agent()
        .http("10.96.0.2:80".parse().unwrap(), asked)
        .unwrap();
    assert_eq!(
        (at_web.field("/pod"), at_one.field("/pod")),
        ("two".into(), "one".into())
    );
    assert_eq!(at_one.field("/headers/host"), "one");
}

/// A share for which nobody is there is answered with 503; it is not given to others.
#[test]
fn a_share_without_endpoint_gets_503_and_its_reason() {
    let node = Node::new().unwrap();
    let (weir, client, _pods) = mesh(&node, &[]);
    let output = weir.try_apply(&route_rule("web", "web", &[("v1", 75), ("v9", 25)], ""));
    assert_eq!(output.status, 0, "{output:?}");
    let warning = "RouteRule default/web: spec.route[1].labels: no ready endpoint";
    assert!(output.stderr.contains(warning), "{output:?}");
    let report = client
        .agent()
        .load(Load {
            addr: vip(),
            request: HttpRequest::get("web", "/"),
            count: 100,
            connections: 4,
            pause_ms: 0,
            pointer: String::new(),
        })
        .unwrap();
    assert_eq!(
        (report.version("v1"), report.statuses.get(&503)),
        (75, Some(&25)),
        "{report:?}"
    );
    assert!(report.failures[0].contains("no-endpoint"), "{report:?}");
    let unanswered = weir
        .metrics()
        .count("weir_requests_total", &[("code", "503")]);
    assert_eq!(unanswered, 25);
}
