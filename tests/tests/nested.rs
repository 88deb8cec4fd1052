//! Pods as a kubelet makes them: what runs in them is in cgroups below their own,
//! which has controllers and so holds no process itself.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use testbed::agent::HttpRequest;
use testbed::agent::proto::Service;
use testbed::docs::service;
use testbed::mesh::refused;
use testbed::{Controller, Node, Pod, Weir, eventually};

/// What containerd calls a container.
const ID: &str = "9f3c1e0b7d5a4c2e8f6b1a0d3c5e7f9b2d4a6c8e0f1b3d5a7c9e1f3b5d7a9c1e";

/// A service whose port 80 is proxied and whose port 81 is balanced.
fn vip(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 96, 0, 1], port))
}

/// What `weir workloads` says of a pod, when a canary is back.
fn told(weir: &Weir<'_>, of: &str) -> (bool, String) {
    eventually("a canary is back", Duration::from_secs(10), || {
        let workloads = weir.json(&["workloads"]);
        let mut items = workloads["items"].as_array().unwrap().iter();
        let found = items.find(|item| item["name"] == of).unwrap();
        let why = found["why"].as_str().unwrap().to_owned();
        let captured = found["captured"] == true;
        if why == "not verified yet" {
            return Err(why);
        }
        Ok((captured, why))
    })
}

/// The cgroups directly below one.
fn below(cgroup: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(cgroup).unwrap().map(Result::unwrap);
    let dirs = entries.filter(|entry| entry.file_type().unwrap().is_dir());
    dirs.map(|dir| dir.file_name().into_string().unwrap())
        .collect()
}

/// Whether what runs in the client is governed, all of it, and its canary comes through.
fn is_captured(node: &Node, client: &Pod, server: &Pod, container: &str) {
    let weir = Weir::start(node).unwrap();
    let outside = node.outside("outside").unwrap();
    for (pod, port) in [(server, 8080), (&outside, 80)] {
        let (pod_name, version) = (pod.name().into(), "v1".into());
        let what = Service::Http {
            pod: pod_name,
            version,
        };
        pod.agent().serve(pod.at(port), what).unwrap();
    }
    weir.enroll(server, &["app=s"]);
    weir.enroll(client, &["app=c"]);
    weir.apply(&service(
        "s",
        "10.96.0.1",
        "s",
        &[
            "port: 80, targetPort: 8080",
            "name: tcp, port: 81, targetPort: 8080, appProtocol: tcp",
        ],
    ));
    for pod in [client, server] {
        let (captured, why) = told(&weir, pod.name());
        assert!(captured, "{}: {why}", pod.name());
        // No cgroup of weir's stays in a pod.
        eventually("the canary's cgroup goes", Duration::from_secs(5), || {
            let found = below(pod.cgroup());
            (found == [container]).then_some(()).ok_or(found.join(" "))
        });
    }
    for port in [80, 81] {
        let request = HttpRequest::get("s", "/");
        let reply = client.agent().http(vip(port), request).unwrap();
        assert_eq!(reply.status, 200, "port {port}: {reply:?}");
    }
    refused(client.agent().dial(outside.at(80)), Errno::EPERM);
    // What the pod makes for itself is fenced in the container as well.
    let agent = client.new_agent().unwrap();
    agent.unshare_net().unwrap();
    for addr in [vip(80), outside.at(80)] {
        refused(agent.dial(addr), Errno::EPERM);
    }
    weir.finish().unwrap();
}

#[test]
fn pods_in_slices_of_systemd_are_captured() {
    let controller = Controller::enable().unwrap();
    let node = Node::new().unwrap();
    let container = format!("cri-containerd-{ID}.scope");
    let pod = |name: &str, uid: &str| {
        let slice =
            format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice");
        node.nested_pod(name, Path::new(&slice), &container, &controller)
            .unwrap()
    };
    let client = pod("client", "0a1b2c3d_4e5f_6071_8293_a4b5c6d7e8f9");
    let server = pod("server", "1a1b2c3d_4e5f_6071_8293_a4b5c6d7e8f9");
    is_captured(&node, &client, &server, &container);
}

#[test]
fn pods_in_directories_of_cgroupfs_are_captured() {
    let controller = Controller::enable().unwrap();
    let node = Node::new().unwrap();
    let pod = |name: &str, uid: &str| {
        let dir = format!("kubepods/burstable/pod{uid}");
        node.nested_pod(name, Path::new(&dir), ID, &controller)
            .unwrap()
    };
    let client = pod("client", "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9");
    let server = pod("server", "1a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9");
    is_captured(&node, &client, &server, ID);
}

/// A pod whose threads have cgroups of their own: below its cgroup no other kind can
/// be, so the canary goes where the pod's processes are.
#[test]
fn a_pod_whose_threads_are_shared_out_is_captured() {
    let node = Node::new().unwrap();
    let weir = Weir::start(&node).unwrap();
    let client = node.pod("client").unwrap();
    let threads = client.cgroup().join("threads");
    std::fs::create_dir(&threads).unwrap();
    std::fs::write(threads.join("cgroup.type"), "threaded").unwrap();
    weir.enroll(&client, &[]);
    let (captured, why) = told(&weir, client.name());
    assert!(captured, "{why}");
    assert_eq!(below(client.cgroup()), ["threads"]);
    weir.finish().unwrap();
}
