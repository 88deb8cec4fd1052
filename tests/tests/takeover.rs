//! Takeover: what a starting weir finds under its pins is looked at, not trusted.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use aya::maps::MapInfo;
use nix::errno::Errno;
use serde_json::Value;
use testbed::agent::proto::Service;
use testbed::docs::service;
use testbed::mesh::{get, guarded, refused, vip};
use testbed::{Node, Weir, eventually};

/// A map like weir's own but for how it is made is none of its own.
#[test]
fn a_pinned_map_with_other_flags_is_refused() {
    let node = Node::new().unwrap();
    let (mut weir, client, _server, outside) = guarded(&node);
    weir.stop().unwrap();
    let (pin, aside) = (
        node.bpffs().join("weir/maps/WORKLOADS"),
        node.bpffs().join("aside"),
    );
    std::fs::rename(&pin, &aside).unwrap();
    let own = MapInfo::from_pin(&aside).unwrap();
    let sizes = [own.key_size(), own.value_size(), own.max_entries()];
    let [key, value, entries] = sizes.map(|size| size.to_string());
    let pin_name = pin.to_str().unwrap();
    // All of its memory at once, which is what bpftool does where no flag is given.
    let made = Command::new("bpftool")
        .args([
            "map",
            "create",
            pin_name,
            "type",
            "hash",
            "name",
            "WORKLOADS",
        ])
        .args(["key", &key, "value", &value, "entries", &entries])
        .status();
    assert!(made.unwrap().success());
    let error = format!("{:#}", weir.launch().unwrap_err());
    for part in ["maps/WORKLOADS", "flags 0x0", "flags 0x1", "weir uninstall"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    // The old kernel half goes on.
    refused(get(&client, outside.at(81)), Errno::EPERM);
    std::fs::rename(&aside, &pin).unwrap();
    weir.launch().unwrap();
    assert_eq!(get(&client, vip()).unwrap(), 200);
    weir.finish().unwrap();
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
