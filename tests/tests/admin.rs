//! What weir says about itself is true: explain, status, workloads, tap.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use nix::errno::Errno;
use serde_json::Value;
use testbed::agent::HttpRequest;
use testbed::agent::proto::Service;
use testbed::docs::{egress_rule, route_rule, service};
use testbed::{Node, Pod, Weir, eventually};

fn vip() -> SocketAddr {
    "10.96.0.1:80".parse().unwrap()
}

/// A client, a service `web` in two versions, and a machine outside.
fn mesh(node: &Node) -> (Weir<'_>, Pod, [Pod; 2], Pod) {
    let weir = Weir::start(node).unwrap();
    let [client, one, two] = node.pods(["client", "one", "two"]).unwrap();
    let outside = node.outside("outside").unwrap();
    for (pod, version, port) in [(&one, "v1", 8080), (&two, "v2", 8080), (&outside, "", 80)] {
        let what = Service::Http {
            pod: pod.name().into(),
            version: version.into(),
        };
        pod.agent().serve(pod.at(port), what).unwrap();
    }
    weir.enroll(&one, &["app=web", "version=v1"]);
    weir.enroll(&two, &["app=web", "version=v2"]);
    weir.enroll(&client, &["app=c"]);
    let port = "port: 80, targetPort: 8080";
    weir.apply(&service("web", "10.96.0.1", "web", &[port]));
    (weir, client, [one, two], outside)
}

/// `weir explain` says what then happens.
#[test]
fn explain_says_what_happens() {
    let node = Node::new().unwrap();
    let (weir, client, [one, _two], outside) = mesh(&node);
    weir.apply(&route_rule("web", "web", &[("v1", 25), ("v2", 75)], ""));
    weir.apply(&egress_rule(
        "open",
        outside.ip(),
        &[(80, "http"), (81, "tcp")],
        "",
    ));
    let cases = [
        (vip(), "proxy", "service"),
        (
            "10.96.0.1:81".parse().unwrap(),
            "deny",
            "unknown-service-port",
        ),
        (one.at(8080), "direct", "workload-address"),
        (outside.at(80), "proxy", "egress-rule"),
        (outside.at(81), "direct", "egress-rule"),
        (outside.at(82), "deny", "egress-default-deny"),
        (client.at(1234), "direct", "own-address"),
        ("127.0.0.1:1234".parse().unwrap(), "direct", "loopback"),
    ];
    for (addr, verdict, reason) in cases {
        let said = weir.json(&["explain", "client", &addr.to_string()]);
        assert_eq!(
            (&said["verdict"], &said["reason"]),
            (&verdict.into(), &reason.into()),
            "{addr}: {said}"
        );
        let denied = client
            .agent()
            .dial(addr)
            .is_err_and(|fault| fault.is(Errno::EPERM));
        assert_eq!(denied, verdict == "deny", "{addr}");
    }
    let said = weir.json(&["explain", "client", "web:80"]);
    assert_eq!(said["routeRule"], "default/web", "{said}");
    let shares: Vec<(&Value, f64)> = said["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|endpoint| (&endpoint["workload"], endpoint["share"].as_f64().unwrap()))
        .collect();
    assert_eq!(
        shares,
        [(&"default/one".into(), 25.0), (&"default/two".into(), 75.0)],
        "{said}"
    );
    let said = weir.json(&["explain", "client", &outside.at(80).to_string()]);
    assert_eq!(said["rule"], "default/open", "{said}");
    let output = weir.cli(&["explain", "nobody", "web:80"]).unwrap();
    assert_eq!(output.status, 1, "{output:?}");
}

/// Every enrolled workload is verified by a canary, and one whose capture does not work says so.
#[test]
fn workloads_are_captured_and_verified() {
    let node = Node::new().unwrap();
    let (weir, client, _pods, _outside) = mesh(&node);
    let captured = |name: &str| -> bool {
        let said = weir.json(&["workloads"]);
        let mut items = said["items"].as_array().unwrap().iter();
        items.any(|item| item["name"] == name && item["captured"] == true)
    };
    for name in ["client", "one", "two"] {
        eventually("a canary", Duration::from_secs(5), || {
            captured(name).then_some(()).ok_or_else(|| name.to_owned())
        });
    }
    weir.ok(&["unenroll", "client"]);
    assert!(!captured("client") && captured("one"));
    assert!(
        client
            .agent()
            .http(vip(), HttpRequest::get("web", "/"))
            .is_err()
    );
}

/// One that the hooks do not reach is told of, and why: whatever it dials goes its way.
#[test]
fn a_pod_outside_of_the_hooks_is_not_captured() {
    let node = Node::new().unwrap();
    let (weir, _client, _pods, outside) = mesh(&node);
    weir.enroll(&outside, &[]);
    let told = || {
        let said = weir.json(&["workloads"]);
        let mut items = said["items"].as_array().unwrap().iter();
        let found = items.find(|item| item["name"] == "outside").unwrap();
        let why = found["why"].as_str().unwrap().to_owned();
        (found["captured"] == true, why)
    };
    let why = eventually("the canary is back", Duration::from_secs(10), || {
        let (captured, why) = told();
        assert!(!captured, "{why}");
        let is_back = why != "not verified yet";
        is_back.then_some(why).ok_or("it is not".to_owned())
    });
    let [cgroup, root] = [outside.cgroup(), node.pods_cgroup()].map(|path| path.display());
    for part in [
        "the connect of a canary to 192.0.0.8:",
        &format!("hooks do not run in {cgroup}: a pod's cgroup must be below {root}"),
        "--cgroup",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
    let table = weir.ok(&["workloads"]);
    let line = table.lines().find(|line| line.contains("outside"));
    assert!(line.unwrap().contains(&why), "{table}");
    weir.await_log(&["not captured", "default/outside"]);
}

/// Status names the programs, the listeners, and what becomes of UDP.
#[test]
fn status_names_programs_listeners_and_udp() {
    let node = Node::new().unwrap();
    let (weir, client, _pods, _outside) = mesh(&node);
    let status = weir.json(&["status"]);
    assert_eq!(status["node"], "testbed");
    assert_eq!(status["objects"]["Workload"].as_u64(), Some(3), "{status}");
    let plane = &status["dataplane"];
    let programs = plane["programs"].as_array().unwrap();
    assert!(programs.len() >= 12, "{status}");
    assert!(
        programs.iter().all(|program| program["attached"] == true),
        "{status}"
    );
    let listeners = plane["listeners"].as_array().unwrap();
    let of_client = listeners
        .iter()
        .filter(|listener| listener["workload"] == "default/client");
    // One on its IPv4 address and one on its IPv6 address.
    assert_eq!(of_client.count(), 2, "{status}");
    assert!(
        plane["udp"]
            .as_str()
            .unwrap()
            .contains("dead endpoints are woken"),
        "{status}"
    );
    drop(client);
}

/// Status names every map that there is, what it takes, and what is in it.
#[test]
fn status_tells_of_every_map() {
    let node = Node::new().unwrap();
    let (weir, client, [one, _two], _outside) = mesh(&node);
    let status = weir.json(&["status"]);
    let maps = status["dataplane"]["maps"].as_array().unwrap();
    let pins = std::fs::read_dir(node.bpffs().join("weir/maps")).unwrap();
    let pinned: BTreeSet<String> = pins
        .map(|pin| pin.unwrap().file_name().into_string().unwrap())
        .collect();
    let named = maps
        .iter()
        .map(|map| map["name"].as_str().unwrap().to_owned());
    assert_eq!(named.collect::<BTreeSet<_>>(), pinned);
    assert_eq!(maps.len(), pinned.len(), "{status}");
    let uncounted = |name: &str| {
        let of_sockets = [
            "SOCKET_NOTES",
            "TALKS",
            "TOLD",
            "ACCEPTED",
            "LISTENERS",
            "PARTNERS",
        ];
        of_sockets.contains(&name) || ["EVENTS", "ENDINGS"].contains(&name)
    };
    for map in maps {
        assert!(
            map["bytes"].as_u64().is_some_and(|bytes| bytes > 0),
            "{map}"
        );
        let entries = map["entries"].as_u64();
        assert_eq!(
            entries.is_none(),
            uncounted(map["name"].as_str().unwrap()),
            "{map}"
        );
        assert!(
            entries.unwrap_or(0) <= map["capacity"].as_u64().unwrap(),
            "{map}"
        );
    }
    let of = |name: &str| maps.iter().find(|map| map["name"] == name).unwrap();
    let expected = [
        ("WORKLOADS", "workloads".into(), 3),
        ("PENDING", Value::Null, 3),
        ("ROUTES", "routes".into(), 0),
        ("PEERS", Value::Null, 0),
        ("ENROLLED", Value::Null, 1),
    ];
    for (name, limit, entries) in expected {
        assert_eq!(of(name)["mapLimit"], limit, "{status}");
        assert_eq!(of(name)["entries"], entries, "{status}");
    }
    // One that only hooks write to: a pod's UDP socket whose peer is an endpoint.
    let port = "name: udp-echo, port: 90, targetPort: 9000, protocol: UDP";
    weir.apply(&service("echo", "10.96.0.3", "web", &[port]));
    let socket = client.agent().udp4().unwrap();
    socket.connect("10.96.0.3:90".parse().unwrap()).unwrap();
    let status = weir.json(&["status"]);
    let maps = status["dataplane"]["maps"].as_array().unwrap();
    let peers = maps.iter().find(|map| map["name"] == "PEERS").unwrap();
    assert_eq!(peers["entries"], 1, "{status}");
    drop((socket, one));
}

/// `weir tap` shows requests and denials as they happen.
#[test]
fn tap_shows_what_happens() {
    let node = Node::new().unwrap();
    let (weir, client, _pods, outside) = mesh(&node);
    let lines = weir
        .tap(|| {
            client
                .agent()
                .http(vip(), HttpRequest::get("web", "/tapped"))
                .unwrap();
            assert!(client.agent().dial(outside.at(82)).is_err());
        })
        .unwrap();
    let has = |what: &str, part: &str| {
        lines
            .iter()
            .any(|line| line.contains(what) && line.contains(part))
    };
    assert!(has("\"request\"", "/tapped"), "{lines:?}");
    assert!(has("\"denial\"", &outside.at(82).to_string()), "{lines:?}");
}
