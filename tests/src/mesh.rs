//! Meshes that several tests stand on, and how they ask in them.
//!
//! Must never hide what a test is about: only what is there before it begins.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use nix::errno::Errno;
use serde_json::Value;

use crate::agent::HttpRequest;
use crate::agent::proto::Service;
use crate::docs::{egress_rule, route_rule, service};
use crate::{Fault, Node, Pod, Sock, Weir, WeirOptions, eventually};

/// Where [`guarded`] has its service `web`.
pub fn vip() -> SocketAddr {
    SocketAddr::from(([10, 96, 0, 1], 80))
}

/// A client; a service of HTTP `web` with one endpoint, at port 8080; and a
/// machine outside, whose port 80 is open for HTTP, and 81 for nobody.
///
/// # Panics
/// If something of it does not come up.
pub fn guarded(node: &Node) -> (Weir<'_>, Pod, Pod, Pod) {
    let weir = Weir::start(node).expect("weir starts");
    let [client, server] = node.pods(["client", "server"]).expect("two pods");
    let outside = node.outside("outside").expect("a machine outside");
    for (pod, port) in [(&server, 8080), (&outside, 80), (&outside, 81)] {
        let what = Service::Http {
            pod: pod.name().into(),
            version: "v1".into(),
        };
        let served = pod.agent().serve(pod.at(port), what);
        served.expect("every port of a new pod is free");
    }
    weir.enroll(&server, &["app=web", "version=v1"]);
    weir.enroll(&client, &["app=c"]);
    let ports = ["port: 80, targetPort: 8080"];
    weir.apply(&service("web", vip().ip(), "web", &ports));
    weir.apply(&route_rule("web", "web", &[("v1", 100)], ""));
    weir.apply(&egress_rule("outside", outside.ip(), &[(80, "http")], ""));
    (weir, client, server, outside)
}

/// What [`guarded`] lacks: IPv6, of the client, of the service at [`vip6`], and of port
/// 80 of the machine outside; and that one's port 82, which answers HTTP and is open
/// for one host name alone.
///
/// # Panics
/// If something of it does not come up.
pub fn guard_more(weir: &Weir<'_>, client: &Pod, outside: &Pod) {
    let (pod, version) = (outside.name().to_owned(), "v1".to_owned());
    for at in [
        outside.at6(80),
        outside.at6(81),
        outside.at(82),
        outside.at6(82),
    ] {
        let (pod, version) = (pod.clone(), version.clone());
        let served = outside.agent().serve(at, Service::Http { pod, version });
        served.expect("the port is free");
    }
    weir.enroll_found(client, &["app=c"]);
    let both = format!("{}, '{}'", vip().ip(), vip6().ip());
    weir.apply(&service(
        "web",
        both,
        "web",
        &["port: 80, targetPort: 8080"],
    ));
    weir.apply(&egress_rule("six", outside.ip6(), &[(80, "http")], ""));
    weir.apply(&egress_rule("named", "example.test", &[(82, "http")], ""));
}

/// Where [`guard_more`] has the service `web` too.
pub fn vip6() -> SocketAddr {
    SocketAddr::from(([0xfd00, 0x96, 0, 0, 0, 0, 0, 1], 80))
}

/// The status of one request.
///
/// # Errors
/// What the client met instead of an answer.
pub fn get(client: &Pod, addr: SocketAddr) -> Result<u16, Fault> {
    let reply = client.agent().http(addr, HttpRequest::get("web", "/"));
    reply.map(|reply| reply.status)
}

/// A connect was refused, so.
///
/// # Panics
/// If it was not.
pub fn refused<T>(result: Result<T, Fault>, errno: Errno) {
    let Err(fault) = result else {
        panic!("the connect is not refused");
    };
    assert!(fault.is(errno), "{fault}");
}

/// A client and a server, and a service of both families whose port 80 is proxied
/// and whose port 81 is balanced; both are served at 8000 of the server.
/// `mode` is that of acceleration.
///
/// # Panics
/// If something of it does not come up.
pub fn accelerating<'a>(node: &'a Node, mode: &str) -> (Weir<'a>, Pod, Pod) {
    let options = WeirOptions {
        args: vec!["--accelerate".to_owned(), mode.to_owned()],
        ..WeirOptions::default()
    };
    let weir = Weir::start_with(node, options).expect("weir starts");
    let [client, server] = node.pods(["client", "server"]).expect("two pods");
    weir.enroll_found(&server, &["app=s"]);
    weir.enroll_found(&client, &["app=c"]);
    weir.apply(&service(
        "s",
        "10.96.0.1, 'fd00:96::1'",
        "s",
        &[
            "port: 80, targetPort: 8000",
            "port: 81, targetPort: 8000, appProtocol: tcp",
        ],
    ));
    // Canaries are accelerated too: let them come through before anybody counts.
    captured(&weir, 2);
    (weir, client, server)
}

/// Waits until the canaries of `pods` pods have come through.
///
/// # Panics
/// If they do not within ten seconds.
pub fn captured(weir: &Weir<'_>, pods: usize) {
    eventually("the pods are captured", Duration::from_secs(10), || {
        let workloads = weir.json(&["workloads"]);
        let items = workloads["items"].as_array().cloned().unwrap_or_default();
        let captured = items.iter().filter(|item| item["captured"] == true);
        (captured.count() == pods)
            .then_some(())
            .ok_or(workloads.to_string())
    });
}

/// What weir counts of acceleration.
///
/// # Panics
/// If it does not say.
pub fn counted(weir: &Weir<'_>, outcome: &str) -> u64 {
    let labels = [("outcome", outcome)];
    weir.metrics().count("weir_acceleration_total", &labels)
}

/// What weir says of acceleration.
///
/// # Panics
/// If it says nothing.
pub fn acceleration(weir: &Weir<'_>) -> Value {
    weir.json(&["status"])["dataplane"]["acceleration"].clone()
}

/// What the self-test of acceleration found broken, once it is done.
///
/// # Panics
/// If it comes to no verdict.
pub fn broken(weir: &Weir<'_>) -> BTreeSet<String> {
    eventually("a verdict", Duration::from_secs(50), || {
        let status = acceleration(weir);
        let said = status["selfTest"].as_str().unwrap_or_default();
        if !said.contains("known cases") {
            return Err(said.to_owned());
        }
        let cases = status["broken"].as_array().cloned().unwrap_or_default();
        let names = cases.iter().filter_map(|case| case["name"].as_str());
        Ok(names.map(str::to_owned).collect())
    })
}

/// One question and one answer over a new connection; both ends of it.
///
/// # Panics
/// If either does not arrive.
pub fn ask<'a>(client: &'a Pod, listener: &Sock<'a>, to: SocketAddr) -> (Sock<'a>, Sock<'a>) {
    let near = client.agent().dial(to).expect("it connects");
    near.send("question").expect("it is sent");
    let (far, _) = listener.accept().expect("it arrives");
    assert_eq!(far.recv(20).expect("a question"), b"question");
    far.send("answer").expect("it is sent");
    assert_eq!(near.recv(20).expect("an answer"), b"answer");
    (near, far)
}
