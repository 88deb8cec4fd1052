//! What weir does on a kernel that cannot list or end sockets: everything else,
//! and it says so.

use std::net::SocketAddr;

use testbed::agent::proto::Service;
use testbed::docs::service;
use testbed::{Node, Pod, Sock, Weir, WeirOptions};

fn vip() -> SocketAddr {
    SocketAddr::from(([10, 96, 0, 1], 53))
}

/// A client, and a service of UDP on two endpoints that answer with their names.
fn mesh(node: &Node) -> (Weir<'_>, Pod, [Pod; 2]) {
    let options = WeirOptions {
        without_sock_diag: true,
        ..WeirOptions::default()
    };
    let weir = Weir::start_with(node, options).unwrap();
    let [client, one, two] = node.pods(["client", "one", "two"]).unwrap();
    for pod in [&one, &two] {
        let name = pod.name().to_owned();
        let what = Service::Datagrams { name };
        pod.agent().serve(pod.at(5300), what).unwrap();
        weir.enroll(pod, &["app=s"]);
    }
    weir.enroll(&client, &[]);
    let ports = ["protocol: UDP, port: 53, targetPort: 5300"];
    weir.apply(&service("s", vip().ip(), "s", &ports));
    (weir, client, [one, two])
}

fn ask(sock: &Sock<'_>) -> String {
    sock.send("x").unwrap();
    let said = String::from_utf8(sock.recv(100).unwrap()).unwrap();
    said.split(' ').next().unwrap().to_owned()
}

fn connected(client: &Pod) -> Sock<'_> {
    let sock = client.agent().udp4().unwrap();
    sock.connect(vip()).unwrap();
    sock
}

#[test]
fn sockets_of_dead_endpoints_are_left_alone_and_that_is_said() {
    let node = Node::new().unwrap();
    let (weir, client, [one, _two]) = mesh(&node);
    let status = weir.ok(&["status"]);
    assert!(status.contains("dead endpoints are NOT woken"), "{status}");
    weir.await_log(&["connected UDP sockets of dead endpoints will not be woken"]);
    let old = loop {
        let sock = connected(&client);
        if ask(&sock) == one.name() {
            break sock;
        }
    };
    weir.ok(&["delete", "workload", one.name()]);
    // It is as it was: nobody told it, so it talks with whom it has.
    assert_eq!(ask(&old), one.name());
    for _ in 0..20 {
        assert_eq!(ask(&connected(&client)), "two");
    }
}

#[test]
fn older_connections_cannot_be_closed_and_that_is_said() {
    let node = Node::new().unwrap();
    let (weir, client, [one, _two]) = mesh(&node);
    weir.await_log(&["connections older than the enrolment are not known"]);
    let name = Service::Whoami { name: "one".into() };
    one.agent().serve(one.at(8000), name).unwrap();
    let straight = client.agent().dial(one.at(8000)).unwrap();
    let netns = client.netns().path().display().to_string();
    let cgroup = client.cgroup().display().to_string();
    let address = client.ip().to_string();
    let args = [
        "enroll",
        "client",
        "--netns",
        &netns,
        "--cgroup",
        &cgroup,
        "--address",
        &address,
        "--reset-existing",
    ];
    let output = weir.cli(&args).unwrap();
    assert_ne!(output.status, 0, "{output:?}");
    assert!(
        output.stderr.contains("CONFIG_INET_DIAG_DESTROY"),
        "{output:?}"
    );
    straight.send("x\n").unwrap();
    assert!(straight.recv_to_end().unwrap().0.starts_with("one "));
}
