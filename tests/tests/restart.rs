//! Death and return of the daemon: policy holds, the last configuration comes back.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use aya::maps::{Array, HashMap, Map, MapData};
use nix::errno::Errno;
use proxy_common::{AddressEntry, AddressKey};
use testbed::agent::HttpRequest;
use testbed::agent::proto::SockOption;
use testbed::docs::{mesh_config, service};
use testbed::mesh::{get, guard_more, guarded, refused, vip, vip6};
use testbed::{Node, Pod, Weir, WeirOptions, eventually};

fn generation(weir: &Weir<'_>) -> u64 {
    weir.json(&["status"])["generation"].as_u64().unwrap()
}

/// An orderly restart: what was in force is in force again, requests in flight end.
#[test]
fn a_restart_keeps_the_configuration_and_finishes_requests() {
    let node = Node::new().unwrap();
    let (mut weir, client, _server, outside) = guarded(&node);
    let before = (
        generation(&weir),
        weir.json(&["get", "routerule"])["items"].clone(),
    );
    let other = client.new_agent().unwrap();
    std::thread::scope(|scope| {
        let slow = scope.spawn(move || other.http(vip(), HttpRequest::get("web", "/delay/1500")));
        let source = [("source", "default/client")];
        eventually("the connection is there", Duration::from_secs(5), || {
            let active = weir.metrics().count("weir_connections_active", &source);
            (active > 0).then_some(()).ok_or("none is".to_owned())
        });
        // And its request on the way.
        std::thread::sleep(Duration::from_millis(400));
        weir.stop().unwrap();
        assert_eq!(slow.join().unwrap().unwrap().status, 200);
    });
    // A daemon that was stopped is dead like any other: policy holds without it.
    refused(get(&client, outside.at(81)), Errno::EPERM);
    weir.launch().unwrap();
    assert_eq!(
        (
            generation(&weir),
            weir.json(&["get", "routerule"])["items"].clone()
        ),
        before
    );
    assert_eq!(get(&client, vip()).unwrap(), 200);
    assert_eq!(get(&client, outside.at(80)).unwrap(), 200);
    refused(get(&client, outside.at(81)), Errno::EPERM);
}

/// A pod that did not outlive the daemon is told of, and stands in nobody's way: a
/// change is refused only if it is what asks for such a pod.
#[test]
fn a_pod_that_is_gone_after_a_restart_is_told_of() {
    let node = Node::new().unwrap();
    let (mut weir, client, _server, _outside) = guarded(&node);
    let gone = node.pod("gone").unwrap();
    let netns = gone.netns().path().display().to_string();
    weir.enroll(&gone, &[]);
    weir.stop().unwrap();
    drop(gone);
    weir.launch().unwrap();
    let told = |of: &str| -> (bool, bool, String) {
        let workloads = weir.json(&["workloads"]);
        let mut items = workloads["items"].as_array().unwrap().iter();
        let found = items.find(|item| item["name"] == of).unwrap();
        let is = |field: &str| found[field].as_bool().unwrap();
        let why = found["why"].as_str().unwrap().to_owned();
        (is("enrolled"), is("captured"), why)
    };
    let (enrolled, captured, why) = told("gone");
    assert!(enrolled && !captured && why.contains(&netns), "{why}");
    let other = weir.try_apply(&service("other", "10.96.0.7", "other", &["port: 80"]));
    assert_eq!(other.status, 0, "{other:?}");
    assert!(other.stderr.contains(&netns), "{other:?}");
    assert_eq!(get(&client, vip()).unwrap(), 200);
    let label = r#"{"metadata":{"labels":{"a":"b"}}}"#;
    let asks = weir.cli(&["patch", "workload", "gone", "-p", label]);
    let asks = asks.unwrap();
    assert!(asks.status != 0 && asks.stderr.contains(&netns), "{asks:?}");
    weir.ok(&["unenroll", "gone"]);
    let (enrolled, captured, why) = told("gone");
    assert!(
        !enrolled && !captured && why.contains("not enrolled"),
        "{why}"
    );
    weir.ok(&["delete", "workload", "gone"]);
}

/// Killed: denied stays denied, direct stays direct, what needs the proxy is refused at once.
#[test]
fn policy_outlives_a_killed_daemon() {
    let node = Node::new().unwrap();
    let (mut weir, client, server, outside) = guarded(&node);
    assert_eq!(get(&client, vip()).unwrap(), 200);
    weir.kill9().unwrap();
    refused(get(&client, outside.at(81)), Errno::EPERM);
    refused(get(&client, vip()), Errno::ECONNREFUSED);
    refused(get(&client, outside.at(80)), Errno::ECONNREFUSED);
    assert_eq!(get(&client, server.at(8080)).unwrap(), 200);
    let output = weir.cli(&["status"]).unwrap();
    assert_eq!(output.status, 2, "{output:?}");
    assert!(
        output.stderr.contains("weir run"),
        "the way out is named: {output:?}"
    );
    // The socket file of the dead one does not stop the next.
    weir.launch().unwrap();
    assert_eq!(get(&client, vip()).unwrap(), 200);
    refused(get(&client, outside.at(81)), Errno::EPERM);
    let metrics = weir.metrics();
    assert_eq!(
        metrics.count(
            "weir_kernel_connects_total",
            &[("outcome", "proxy_down_closed")]
        ),
        2
    );
}

/// With `onProxyDown: open` what was only to be looked at goes straight through, counted;
/// what a name opens does not, as nobody looks at it.
#[test]
fn a_workload_may_be_open_while_the_proxy_is_down() {
    let node = Node::new().unwrap();
    let (mut weir, client, _server, outside) = guarded(&node);
    guard_more(&weir, &client, &outside);
    weir.apply(&mesh_config("onProxyDown: open"));
    weir.kill9().unwrap();
    for at in [Pod::at, Pod::at6] {
        assert_eq!(get(&client, at(&outside, 80)).unwrap(), 200);
        refused(get(&client, at(&outside, 81)), Errno::EPERM);
        refused(get(&client, at(&outside, 82)), Errno::ECONNREFUSED);
    }
    weir.launch().unwrap();
    let metrics = weir.metrics();
    for outcome in ["proxy_down_open", "proxy_down_closed"] {
        let labels = [("outcome", outcome)];
        let count = metrics.count("weir_kernel_connects_total", &labels);
        assert_eq!(count, 2, "{outcome}");
    }
}

/// Whoever takes the dead daemon's port is not taken for weir.
#[test]
fn a_pod_cannot_pose_as_the_dead_daemon() {
    let node = Node::new().unwrap();
    let (mut weir, client, _server, outside) = guarded(&node);
    guard_more(&weir, &client, &outside);
    let status = weir.json(&["status"]);
    let listeners = status["dataplane"]["listeners"].as_array().unwrap();
    let addresses: Vec<SocketAddr> = listeners
        .iter()
        .map(|listener| listener["address"].as_str().unwrap().parse().unwrap())
        .collect();
    let of = |ip| *addresses.iter().find(|at| at.ip() == ip).unwrap();
    let listeners = [client.ip(), client.ip6()].map(of);
    weir.kill9().unwrap();
    let intruder = node.intruder(&client).unwrap();
    for (at, dialled) in listeners.into_iter().zip([vip(), vip6()]) {
        let fault = client
            .agent()
            .listen(at, 16)
            .err()
            .expect("the port is weir's");
        assert!(fault.is(Errno::EPERM), "{fault}");
        // Somebody who is none of the pod's processes gets it, but no connect.
        let impostor = if at.is_ipv4() {
            intruder.tcp4().unwrap()
        } else {
            intruder.tcp6().unwrap()
        };
        // What the dead one's connections left on the port does not stop this.
        impostor.set(SockOption::ReusePort).unwrap();
        impostor.bind(at).unwrap();
        impostor.listen(16).unwrap();
        refused(get(&client, dialled), Errno::ECONNREFUSED);
    }
    weir.launch().unwrap();
    assert_eq!(get(&client, vip()).unwrap(), 200);
    assert_eq!(get(&client, vip6()).unwrap(), 200);
}

/// A stored workload whose namespace is gone is reported and left out.
#[test]
fn a_pod_that_vanished_meanwhile_is_no_failure() {
    let node = Node::new().unwrap();
    let (mut weir, client, server, outside) = guarded(&node);
    let gone = node.pod("gone").unwrap();
    weir.enroll(&gone, &["app=web", "version=v1"]);
    weir.stop().unwrap();
    drop(gone);
    weir.launch().unwrap();
    let warnings = weir.json(&["status"])["warnings"].to_string();
    assert!(warnings.contains("gone"), "{warnings}");
    for _ in 0..4 {
        assert_eq!(get(&client, vip()).unwrap(), 200);
    }
    drop((server, outside));
}

/// Pins of a version with other layouts are not touched; the way out is named.
#[test]
fn pins_of_another_version_are_refused() {
    let node = Node::new().unwrap();
    let (mut weir, client, _server, outside) = guarded(&node);
    weir.stop().unwrap();
    let abi = MapData::from_pin(node.bpffs().join("weir/maps/ABI")).unwrap();
    let mut abi: Array<MapData, u32> = Map::Array(abi).try_into().unwrap();
    let own = abi.get(&0, 0).unwrap();
    abi.set(0, 9999, 0).unwrap();
    let error = format!("{:#}", weir.launch().unwrap_err());
    assert!(
        error.contains("9999") && error.contains("weir uninstall"),
        "{error}"
    );
    // The old kernel half goes on.
    refused(get(&client, outside.at(81)), Errno::EPERM);
    abi.set(0, own, 0).unwrap();
    weir.launch().unwrap();
    assert_eq!(get(&client, vip()).unwrap(), 200);
}

/// A map keeps the size that it was made with: said so, with both ways out, and each is one.
#[test]
fn another_limit_than_that_of_a_pinned_map_is_refused() {
    let node = Node::new().unwrap();
    let options = WeirOptions {
        args: ["--map-limit", "egress=1000"].map(str::to_owned).into(),
        ..WeirOptions::default()
    };
    let mut weir = Weir::start_with(&node, options).unwrap();
    weir.stop().unwrap();
    let other = ["--map-limit", "egress=2000"];
    weir.set_args(&other);
    let error = format!("{:#}", weir.launch().unwrap_err());
    for part in [
        "maps/EGRESS was made for 1000 entries, this start asks for 2000",
        "--map-limit egress=1000,",
        "weir uninstall",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(!error.contains("another version"), "{error}");
    weir.set_args(&["--map-limit", "egress=1000"]);
    weir.launch().unwrap();
    weir.stop().unwrap();
    weir.uninstall().unwrap();
    weir.set_args(&other);
    weir.launch().unwrap();
    weir.finish().unwrap();
}

/// An entry that no weir writes is told, with the way out, and nothing is built on it.
#[test]
fn a_map_that_somebody_changed_is_refused() {
    let node = Node::new().unwrap();
    let (mut weir, client, _server, outside) = guarded(&node);
    weir.stop().unwrap();
    let pin = node.bpffs().join("weir/maps/ADDRESSES");
    let map = Map::HashMap(MapData::from_pin(pin).unwrap());
    let mut addresses: HashMap<_, AddressKey, AddressEntry> = map.try_into().unwrap();
    let (key, own) = addresses.iter().next().unwrap().unwrap();
    addresses.insert(key, AddressEntry { kind: 9 }, 0).unwrap();
    let error = format!("{:#}", weir.launch().unwrap_err());
    assert!(
        error.contains("ADDRESSES") && error.contains("weir uninstall"),
        "{error}"
    );
    // The old kernel half goes on.
    refused(get(&client, outside.at(81)), Errno::EPERM);
    addresses.insert(key, own, 0).unwrap();
    weir.launch().unwrap();
    assert_eq!(get(&client, vip()).unwrap(), 200);
}

/// Two daemons cannot share a node.
#[test]
fn a_second_daemon_is_refused() {
    let node = Node::new().unwrap();
    let (weir, client, _server, _outside) = guarded(&node);
    let second = Weir::start(&node).err().expect("a second daemon starts");
    assert!(format!("{second:#}").contains("already"), "{second:#}");
    assert_eq!(get(&client, vip()).unwrap(), 200);
    drop(weir);
}

/// After `weir uninstall` nothing is decided any more, and no pin is left.
#[test]
fn uninstall_leaves_the_node_as_it_was() {
    let node = Node::new().unwrap();
    let (mut weir, client, _server, outside) = guarded(&node);
    refused(get(&client, outside.at(81)), Errno::EPERM);
    weir.stop().unwrap();
    assert!(!weir.pins().unwrap().is_empty());
    // What a daemon started last may be in its cgroup for a moment more.
    let mut late = Command::new("sleep").arg("0.5").spawn().unwrap();
    let own = node.pods_cgroup().join("weir-proxy/cgroup.procs");
    std::fs::write(own, late.id().to_string()).unwrap();
    // And the cgroup of a canary that it did not see the end of.
    let canary = client.cgroup().join("weir-canary");
    std::fs::create_dir(&canary).unwrap();
    weir.uninstall().unwrap();
    assert!(!canary.exists(), "a canary's cgroup is left");
    assert!(late.wait().unwrap().success());
    assert_eq!(get(&client, outside.at(81)).unwrap(), 200);
    assert_eq!(weir.pins().unwrap(), Vec::<std::path::PathBuf>::new());
    weir.launch().unwrap();
    assert_eq!(
        weir.json(&["get", "workload"])["items"],
        serde_json::json!([])
    );
}
