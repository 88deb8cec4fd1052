//! Self-test of acceleration: it comes to a verdict, `auto` follows it, `force` goes past it.

use std::time::Duration;

use serde_json::Value;
use testbed::docs::service;
use testbed::{Node, Weir, WeirOptions, eventually, note};

/// Cases that fail on no kernel: on any of these a byte would be lost, doubled
/// or out of order, and no application could live with it.
const MUST_HOLD: [&str; 12] = [
    "accelerated",
    "burst",
    "early-write",
    "fin",
    "half-close",
    "peek",
    "policy-change",
    "poll",
    "reset",
    "rounds",
    "sendfile",
    "unread-after-fin",
];

fn acceleration(weir: &Weir<'_>) -> Value {
    weir.json(&["status"])["dataplane"]["acceleration"].clone()
}

#[test]
fn the_verdict_is_told_and_followed() {
    let node = Node::new().unwrap();
    let options = WeirOptions {
        args: vec!["--accelerate".to_owned(), "auto".to_owned()],
        ..WeirOptions::default()
    };
    let weir = Weir::start_with(&node, options).unwrap();
    let [client, server] = node.pods(["client", "server"]).unwrap();
    weir.enroll(&server, &["app=s"]);
    weir.enroll(&client, &["app=c"]);
    let port = "port: 81, targetPort: 8000, appProtocol: tcp";
    weir.apply(&service("s", "10.96.0.1", "s", &[port]));
    let status = eventually("a verdict", Duration::from_secs(50), || {
        let status = acceleration(&weir);
        let said = status["selfTest"].as_str().unwrap_or_default();
        if said == "running" {
            Err(said.to_owned())
        } else {
            Ok(status)
        }
    });
    let said = status["selfTest"].as_str().unwrap();
    assert!(said.contains("known cases"), "{said}");
    let broken = status["broken"].as_array().unwrap();
    let name = |case: &Value| case["name"].as_str().unwrap().to_owned();
    for case in broken {
        let name = name(case);
        assert!(!MUST_HOLD.contains(&&*name), "{name}: {}", case["seen"]);
    }
    note(said);

    let listener = server.agent().listen(server.at(8000), 16).unwrap();
    let accelerated = || {
        let labels = [("outcome", "accelerated")];
        weir.metrics().count("weir_acceleration_total", &labels)
    };
    let ask = || {
        let near = client.agent().dial("10.96.0.1:81".parse().unwrap());
        let near = near.unwrap();
        near.send("question").unwrap();
        let (far, _) = listener.accept().unwrap();
        assert_eq!(far.recv(20).unwrap(), b"question");
        far.send("answer").unwrap();
        assert_eq!(near.recv(20).unwrap(), b"answer");
    };
    let before = accelerated();
    ask();
    assert_eq!(accelerated() - before, u64::from(broken.is_empty()));
    for name in ["client", "server"] {
        let force = r#"{"spec":{"accelerate":"force"}}"#;
        weir.ok(&["patch", "workload", name, "-p", force]);
    }
    let before = accelerated();
    ask();
    assert_eq!(accelerated() - before, 1, "forced");
}
