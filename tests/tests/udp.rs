//! UDP: services are balanced by socket, and nobody can tell.

use std::net::SocketAddr;

use testbed::agent::proto::Service;
use testbed::docs::service;
use testbed::{Node, Pod, Weir};

fn vip() -> SocketAddr {
    "10.96.0.1:53".parse().unwrap()
}

/// A client, and a service `s` of UDP on two endpoints that answer with `v1` and `v2`.
fn mesh(node: &Node) -> (Weir<'_>, Pod, [Pod; 2]) {
    let weir = Weir::start(node).unwrap();
    let [client, one, two] = node.pods(["client", "one", "two"]).unwrap();
    for (pod, version) in [(&one, "v1"), (&two, "v2")] {
        let name = version.to_owned();
        pod.agent()
            .serve(pod.at(5300), Service::Datagrams { name })
            .unwrap();
        weir.enroll(pod, &["app=s", &format!("version={version}")]);
    }
    weir.enroll(&client, &["app=c"]);
    weir.apply(&service(
        "s",
        "10.96.0.1",
        "s",
        &["name: dns, protocol: UDP, port: 53, targetPort: 5300"],
    ));
    (weir, client, [one, two])
}

#[test]
fn a_connected_socket_talks_with_one_endpoint() {
    let node = Node::new().unwrap();
    let (_weir, client, [_one, _two]) = mesh(&node);
    let sock = client.agent().udp4().unwrap();
    sock.connect(vip()).unwrap();
    assert_eq!(sock.peer_addr().unwrap(), vip());
    sock.send("x").unwrap();
    let (said, from) = sock.recv_from().unwrap();
    assert_eq!(from, vip());
    assert!(said.ends_with(" x"), "{said}");
}
