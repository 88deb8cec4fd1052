//! Older connections: those of before the enrolment are left alone, counted, closed on request.

use std::net::SocketAddr;

use nix::errno::Errno;
use testbed::agent::proto::{Service, SockOption};
use testbed::{Fault, Node, Pod, Sock, Weir};

fn older(weir: &Weir<'_>, pod: &Pod) -> u64 {
    let workloads = weir.json(&["workloads"]);
    let items = workloads["items"].as_array().unwrap();
    let item = items.iter().find(|item| item["name"] == pod.name());
    item.unwrap()["olderConnections"].as_u64().unwrap()
}

fn reset(weir: &Weir<'_>, pod: &Pod) -> String {
    let output = weir
        .cli(&[
            "enroll",
            pod.name(),
            "--netns",
            &pod.netns().path().display().to_string(),
            "--cgroup",
            &pod.cgroup().display().to_string(),
            "--address",
            &pod.ip().to_string(),
            "--reset-existing",
        ])
        .unwrap();
    assert_eq!(output.status, 0, "{output:?}");
    output.stderr
}

/// Those of many pods are listed behind the answer, and waited for by who asks.
#[test]
fn older_connections_of_many_new_pods_are_all_counted() {
    const PODS: usize = 20;
    let node = Node::new().unwrap();
    let weir = Weir::start(&node).unwrap();
    let server = node.pod("server").unwrap();
    let what = Service::Whoami { name: "s".into() };
    server.agent().serve(server.at(8000), what).unwrap();
    weir.enroll(&server, &[]);
    let pods: Vec<Pod> = (0..PODS)
        .map(|number| node.pod(&format!("client{number}")).unwrap())
        .collect();
    let dial = |pod| Pod::agent(pod).dial(server.at(8000)).unwrap();
    let _held: Vec<Sock<'_>> = pods.iter().map(dial).collect();
    let document = |pod: &Pod| {
        format!(
            "---\napiVersion: weir.dev/v1\nkind: Workload\nmetadata: {{name: {}}}\n\
             spec: {{addresses: ['{}'], netns: {}, cgroup: {}, enrolled: true}}\n",
            pod.name(),
            pod.ip(),
            pod.netns().path().display(),
            pod.cgroup().display()
        )
    };
    weir.apply(&pods.iter().map(document).collect::<String>());
    assert!(pods.iter().all(|pod| older(&weir, pod) == 1));
    let _young: Vec<Sock<'_>> = pods.iter().map(dial).collect();
    assert!(pods.iter().all(|pod| older(&weir, pod) == 1));
    weir.finish().unwrap();
}

/// Counted as long as they last, over a restart too; nothing younger is, nor
/// what others dialled.
#[test]
fn older_connections_are_counted_and_closed_on_request() {
    let node = Node::new().unwrap();
    let mut weir = Weir::start(&node).unwrap();
    let [client, server] = node.pods(["client", "server"]).unwrap();
    for pod in [&client, &server] {
        pod.agent()
            .serve(pod.at(8000), Service::Whoami { name: "s".into() })
            .unwrap();
    }
    let first = client.agent().dial(server.at(8000)).unwrap();
    let second = client.agent().dial(server.at(8000)).unwrap();
    let _own = client.agent().dial(client.at(8000)).unwrap();
    let _inbound = server.agent().dial(client.at(8000)).unwrap();
    weir.enroll(&server, &[]);
    weir.enroll(&client, &[]);
    assert_eq!(older(&weir, &client), 2);
    let young = client.agent().dial(server.at(8000)).unwrap();
    assert_eq!(older(&weir, &client), 2, "that one was decided on");
    first.abort().unwrap();
    assert_eq!(older(&weir, &client), 1);

    weir.stop().unwrap();
    weir.launch().unwrap();
    assert_eq!(older(&weir, &client), 1, "known over a restart");

    // Nothing to try out here: what cannot be kept is not promised.
    let path = format!("/v1/workloads/default/{}/older?dryRun=true", client.name());
    let (status, said) = weir.admin("DELETE", &path, "", "").unwrap();
    assert_eq!(status, 400, "{said}");
    assert_eq!(older(&weir, &client), 1);

    let said = reset(&weir, &client);
    assert!(said.contains("closed 1 connections"), "{said}");
    assert_eq!(older(&weir, &client), 0);
    let fault = second.send("x\n").expect_err("it is closed");
    assert!(
        fault.is(Errno::ECONNABORTED) || fault.is(Errno::EPIPE),
        "{fault}"
    );
    young.send("x\n").unwrap();
    assert!(young.recv_to_end().unwrap().0.starts_with("s "));
}

/// A server that answers on UDP and TCP, of both families.
fn server(node: &Node) -> Pod {
    let server = node.pod("server").unwrap();
    let name = || "s".to_owned();
    for (port, what) in [
        (8000, Service::Whoami { name: name() }),
        (5300, Service::Datagrams { name: name() }),
    ] {
        let all = SocketAddr::new("::".parse().unwrap(), port);
        server.agent().serve(all, what).unwrap();
    }
    server
}

/// The server's addresses: IPv4, IPv6, and IPv4 as a socket of IPv6 dials it.
fn faces(server: &Pod, port: u16) -> [SocketAddr; 3] {
    let mapped = format!("[::ffff:{}]:{port}", server.ip());
    [server.at(port), server.at6(port), mapped.parse().unwrap()]
}

fn udp(pod: &Pod, to: SocketAddr) -> Sock<'_> {
    let sock = if to.is_ipv4() {
        pod.agent().udp4()
    } else {
        pod.agent().udp6()
    };
    let sock = sock.unwrap();
    sock.connect(to).unwrap();
    sock
}

fn answered(sock: &Sock<'_>) -> Result<(), Fault> {
    sock.send("x")?;
    let (said, _) = sock.recv_from()?;
    assert!(said.starts_with("s "), "{said}");
    Ok(())
}

/// A UDP socket with a peer goes on past every rule, so it is counted, until it
/// dials again; one that a server opened for a client is not, nor one to itself.
#[test]
fn older_udp_sockets_are_counted_and_closed_on_request() {
    let node = Node::new().unwrap();
    let mut weir = Weir::start(&node).unwrap();
    let client = node.pod("client").unwrap();
    let server = server(&node);
    let socks = faces(&server, 5300).map(|to| (udp(&client, to), to));
    let again = udp(&client, server.at(5300));
    let _own = udp(&client, client.at(5301));
    let _loopback = udp(&client, "127.0.0.1:5301".parse().unwrap());
    let _without = client.agent().udp4().unwrap();
    // A socket for one client, beside the one that all clients write to.
    let served = [(); 2].map(|()| {
        let sock = client.agent().udp4().unwrap();
        sock.set(SockOption::ReusePort).unwrap();
        sock.bind(client.at(7000)).unwrap();
        sock
    });
    served[1].connect(server.at(5300)).unwrap();
    weir.enroll_found(&client, &["app=c"]);
    assert_eq!(older(&weir, &client), 4);
    // Nobody decides on what they send, though the server is no workload; only from a
    // socket of IPv6 to a mapped address the kernel makes a datagram that names it.
    let [four, six, mapped] = &socks;
    answered(&four.0).unwrap();
    answered(&six.0).unwrap();
    let fault = answered(&mapped.0).unwrap_err();
    assert!(fault.is(Errno::EPERM), "{fault}");
    let fault = again.connect(server.at(5300)).unwrap_err();
    assert!(fault.is(Errno::EPERM), "{fault}");
    assert_eq!(older(&weir, &client), 4, "it still has its peer");
    weir.enroll_found(&server, &["app=s"]);
    again.connect(server.at(8000)).unwrap();
    assert_eq!(older(&weir, &client), 3, "that one was decided on");

    weir.stop().unwrap();
    weir.launch().unwrap();
    assert_eq!(older(&weir, &client), 3, "known over a restart");

    let said = reset(&weir, &client);
    assert!(said.contains("closed 3 connections"), "{said}");
    assert_eq!(older(&weir, &client), 0);
    for (sock, to) in &socks {
        let fault = sock.recv(1).unwrap_err();
        assert!(fault.is(Errno::ECONNABORTED), "{to}: {fault}");
        sock.connect(*to).unwrap();
        answered(sock).unwrap();
    }
    assert_eq!(again.peer_addr().unwrap(), server.at(8000));
    assert_eq!(served[1].peer_addr().unwrap(), server.at(5300));
}

/// TCP of every kind: IPv6, and IPv4 from a socket of IPv6.
#[test]
fn older_connections_of_ipv6_are_counted_and_closed_on_request() {
    let node = Node::new().unwrap();
    let weir = Weir::start(&node).unwrap();
    let client = node.pod("client").unwrap();
    let server = server(&node);
    let socks = faces(&server, 8000).map(|to| client.agent().dial(to).unwrap());
    let itself = SocketAddr::new("::".parse().unwrap(), 8001);
    let what = Service::Whoami { name: "c".into() };
    client.agent().serve(itself, what).unwrap();
    let _own = faces(&client, 8001).map(|to| client.agent().dial(to).unwrap());
    let _inbound = faces(&client, 8001).map(|to| server.agent().dial(to).unwrap());
    weir.enroll_found(&client, &["app=c"]);
    assert_eq!(older(&weir, &client), 3);
    let said = reset(&weir, &client);
    assert!(said.contains("closed 3 connections"), "{said}");
    assert_eq!(older(&weir, &client), 0);
    for sock in socks {
        let fault = sock.recv(1).expect_err("it is closed");
        assert!(fault.is(Errno::ECONNABORTED), "{fault}");
    }
}
