//! Load and attach: the kernel takes every program, and each hangs where it belongs.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use serde_json::Value;
use testbed::agent::proto::Service;
use testbed::docs::service;
use testbed::mesh::refused;
use testbed::{Node, Weir, WeirOptions, eventually, note};

/// Programs that `weir status` lists, and which of them are not attached.
fn programs(weir: &Weir<'_>) -> (Vec<String>, Vec<String>) {
    let status = weir.json(&["status"]);
    let programs = status["dataplane"]["programs"].as_array().unwrap();
    let named = |attached: bool| {
        let chosen = programs
            .iter()
            .filter(|program| program["attached"] == attached);
        let names = chosen.map(|program| program["name"].as_str().unwrap().to_owned());
        names.collect()
    };
    (named(true), named(false))
}

/// With everything that there is: nothing is missing, a pin holds each link, and
/// nothing stays behind.
#[test]
fn every_program_is_attached_and_goes_again() {
    let node = Node::new().unwrap();
    let options = WeirOptions {
        args: vec!["--accelerate".to_owned(), "force".to_owned()],
        ..WeirOptions::default()
    };
    let mut weir = Weir::start_with(&node, options).unwrap();
    let (attached, missing) = programs(&weir);
    assert!(missing.is_empty(), "{missing:?} of {attached:?}");
    assert!(attached.len() >= 12, "{attached:?}");
    let links = node.bpffs().join("weir/links");
    let pinned = |links: &std::path::Path| {
        let names = std::fs::read_dir(links)
            .map(|entries| entries.map(|entry| entry.unwrap().file_name()).collect());
        names.unwrap_or_else(|_| Vec::new())
    };
    assert!(pinned(&links).len() >= attached.len(), "{attached:?}");
    weir.stop().unwrap();
    assert!(
        pinned(&links).len() >= attached.len(),
        "the kernel half outlives the daemon"
    );
    weir.finish().unwrap();
    assert!(pinned(&links).is_empty(), "{:?}", pinned(&links));
    note(&format!("{} programs", attached.len()));
}

/// What the kernel may lack without keeping weir from running is there too.
#[test]
fn udp_sockets_of_dead_endpoints_can_be_ended() {
    let node = Node::new().unwrap();
    let weir = Weir::start(&node).unwrap();
    let said = weir.ok(&["status"]);
    assert!(said.contains("dead endpoints are woken"), "{said}");
}

/// The kernel puts a program of one hook behind the link of another, and says nothing.
/// Pins that were swapped are noticed: then each hook has its own program, and only it.
#[test]
fn a_link_of_another_hook_is_not_taken_over() {
    let node = Node::new().unwrap();
    let mut weir = Weir::start(&node).unwrap();
    let [client, server] = node.pods(["client", "server"]).unwrap();
    let name = || Service::Whoami { name: "s".into() };
    for addr in [server.at(8000), server.at6(8000)] {
        server.agent().serve(addr, name()).unwrap();
    }
    weir.enroll_found(&server, &["app=s"]);
    weir.enroll_found(&client, &["app=c"]);
    let ports = ["port: 80, targetPort: 8000"];
    weir.apply(&service("s", "10.96.0.1, 'fd00:96::1'", "s", &ports));
    weir.stop().unwrap();
    let links = node.bpffs().join("weir/links");
    let [four, six, aside] = ["connect4", "connect6", "aside"].map(|name| links.join(name));
    for (from, to) in [(&four, &aside), (&six, &four), (&aside, &six)] {
        std::fs::rename(from, to).unwrap();
    }
    weir.launch().unwrap();
    let wanted = [
        ("cgroup_inet4_connect", "weir_connect4"),
        ("cgroup_inet6_connect", "weir_connect6"),
    ];
    // A link goes when the kernel gets to it.
    eventually("each hook has its own", Duration::from_secs(5), || {
        let found = connect_programs(node.pods_cgroup());
        let right = found
            .iter()
            .map(|(at, name)| (at.as_str(), name.as_str()))
            .eq(wanted);
        right.then_some(()).ok_or(format!("{found:?}"))
    });
    for vip in ["10.96.0.1:80", "[fd00:96::1]:80"] {
        let sock = client.agent().dial(vip.parse().unwrap()).unwrap();
        sock.send("x\n").unwrap();
        let (said, _) = sock.recv_to_end().unwrap();
        assert!(said.starts_with("s "), "{vip}: {said}");
    }
    for addr in ["198.51.100.9:80", "[2001:db8::9]:80"] {
        refused(client.agent().dial(addr.parse().unwrap()), Errno::EPERM);
    }
    weir.finish().unwrap();
}

/// Attach type and name of the programs on the `connect` hooks of a cgroup, in order.
fn connect_programs(cgroup: &Path) -> Vec<(String, String)> {
    let output = Command::new("bpftool")
        .args(["-j", "cgroup", "show"])
        .arg(cgroup)
        .output()
        .unwrap();
    let programs: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let text = |program: &Value, field: &str| program[field].as_str().unwrap().to_owned();
    let mut found: Vec<_> = programs
        .iter()
        .map(|program| (text(program, "attach_type"), text(program, "name")))
        .filter(|(at, _)| at.ends_with("_connect"))
        .collect();
    found.sort();
    found
}
