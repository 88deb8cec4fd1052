//! Ways to connect other than `connect()`: each is captured as well.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use testbed::agent::proto::{Kind, Service};
use testbed::docs::service;
use testbed::mesh::{accelerating, counted};
use testbed::{Node, Pod, Weir, eventually};

fn vip() -> SocketAddr {
    "10.96.0.1:80".parse().unwrap()
}

/// A port of the service that nobody listens at yet, and that the kernel balances.
fn balanced() -> SocketAddr {
    "10.96.0.1:81".parse().unwrap()
}

/// A client, a service `s`, and a machine outside.
fn mesh(node: &Node) -> (Weir<'_>, Pod, Pod, Pod) {
    let weir = Weir::start(node).unwrap();
    let [client, server] = node.pods(["client", "server"]).unwrap();
    let outside = node.outside("outside").unwrap();
    for (pod, port) in [(&server, 8000), (&outside, 80)] {
        let what = Service::Whoami {
            name: pod.name().to_owned(),
        };
        pod.agent().serve(pod.at(port), what).unwrap();
    }
    weir.enroll(&server, &["app=s"]);
    weir.enroll(&client, &[]);
    let ports = [
        "name: h, port: 80, targetPort: 8000",
        "name: b, port: 81, targetPort: 8001, appProtocol: tcp",
    ];
    weir.apply(&service("s", "10.96.0.1", "s", &ports));
    (weir, client, server, outside)
}

/// TCP Fast Open connects in `sendmsg`: the hook sees that too. In a pod whose own
/// setting has the server's bit, weir's listener gives out a cookie and takes what
/// comes with the SYN; with the kernel's default the bytes follow a handshake.
#[test]
fn fast_open_is_captured() {
    let node = Node::new().unwrap();
    let (_weir, client, _server, outside) = mesh(&node);
    for (setting, is_taken) in [("3", true), ("1", false)] {
        client.netns().sysctl("ipv4/tcp_fastopen", setting).unwrap();
        let taken_before = taken_syn_data(&client);
        // Twice: the first may only fetch the cookie.
        for _ in 0..2 {
            let sock = client.agent().tcp4().unwrap();
            sock.fast_open(vip(), "fast\n").unwrap();
            let (said, fault) = sock.recv_to_end().unwrap();
            assert!(
                said.starts_with(&format!("server {}:", client.ip())),
                "{said} {fault:?}"
            );
            assert!(said.ends_with(" fast"), "{said}");
        }
        let taken = taken_syn_data(&client) - taken_before;
        assert_eq!(taken > 0, is_taken, "tcp_fastopen={setting}: {taken}");
        let sock = client.agent().tcp4().unwrap();
        let fault = sock.fast_open(outside.at(80), "fast\n").unwrap_err();
        assert!(fault.is(Errno::EPERM), "{fault}");
    }
}

/// The client has sent bytes by TCP before its connection is up, so none of it is
/// handed over past TCP; what the other ends write may be. All arrives, in order.
#[test]
fn fast_open_keeps_its_bytes_where_connections_are_accelerated() {
    const ANSWERS: usize = 20;
    let node = Node::new().unwrap();
    let (weir, client, server) = accelerating(&node, "force");
    let what = Service::Whoami {
        name: "server".to_owned(),
    };
    server.agent().serve(server.at(8000), what).unwrap();
    for pod in [&client, &server] {
        pod.netns().sysctl("ipv4/tcp_fastopen", "1027").unwrap();
    }
    let (before, taken_before) = (counted(&weir, "accelerated"), taken_syn_data(&client));
    for number in 0..ANSWERS {
        let sock = client.agent().tcp4().unwrap();
        sock.fast_open(vip(), format!("in-the-syn-{number} "))
            .unwrap();
        sock.send("and after\n").unwrap();
        let (said, fault) = sock.recv_to_end().unwrap();
        let end = format!(" in-the-syn-{number} and after");
        assert!(said.ends_with(&end), "{said:?} {fault:?}");
    }
    assert!(taken_syn_data(&client) > taken_before);
    assert!(counted(&weir, "accelerated") > before);
}

/// How often a listener of the pod took data that came with a SYN.
fn taken_syn_data(pod: &Pod) -> u64 {
    counted_by_kernel(pod, "TcpExt:", "TCPFastOpenPassive")
}

/// What the kernel counts in the pod's namespace.
fn counted_by_kernel(pod: &Pod, table: &str, counter: &str) -> u64 {
    let netns = pod.netns().name();
    let said = Command::new("ip")
        .args(["netns", "exec", netns, "cat", "/proc/net/netstat"])
        .output()
        .unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    let mut rows = text.lines().filter(|line| line.starts_with(table));
    let (names, values) = (rows.next().unwrap(), rows.next().unwrap());
    let place = names.split(' ').position(|name| name == counter);
    let value = values.split(' ').nth(place.unwrap()).unwrap();
    value.parse().unwrap()
}

/// Multipath TCP is TCP: captured and denied alike, and its peer is whom it dialled.
#[test]
fn multipath_tcp_is_captured() {
    let node = Node::new().unwrap();
    let (_weir, client, _server, outside) = mesh(&node);
    let dial = |addr| {
        let sock = client.agent().socket(Kind::Mptcp4)?;
        sock.connect(addr)?;
        assert_eq!(sock.peer_addr()?, addr);
        sock.send("many\n")?;
        sock.recv_to_end().map(|(said, _)| said)
    };
    match dial(vip()) {
        Ok(said) => assert!(said.starts_with("server "), "{said}"),
        // A kernel without it has no such way out either.
        Err(fault) => assert!(fault.is(Errno::EPROTONOSUPPORT), "{fault}"),
    }
    let fault = dial(outside.at(80)).unwrap_err();
    assert!(
        fault.is(Errno::EPERM) || fault.is(Errno::EPROTONOSUPPORT),
        "{fault}"
    );
}

/// Another path joins a connection: its socket of the kernel's own is dialled past the
/// application, and changes nothing of what that sees.
#[test]
fn a_subflow_that_joins_takes_no_name_away() {
    let node = Node::new().unwrap();
    let (_weir, client, server, _outside) = mesh(&node);
    let listener = match server.agent().socket(Kind::Mptcp4) {
        Ok(listener) => listener,
        // A kernel without it has no such path.
        Err(fault) => return assert!(fault.is(Errno::EPROTONOSUPPORT), "{fault}"),
    };
    listener.bind(server.at(8001)).unwrap();
    listener.listen(8).unwrap();
    let second = Node::pod_network().host(200);
    client
        .netns()
        .ip([
            format!("addr add {second}/24 dev eth0"),
            "mptcp limits set subflows 2 add_addr_accepted 2".to_owned(),
            format!("mptcp endpoint add {second} dev eth0 subflow"),
        ])
        .unwrap();
    let limits = "mptcp limits set subflows 2 add_addr_accepted 2";
    server.netns().ip([limits]).unwrap();
    let sock = client.agent().socket(Kind::Mptcp4).unwrap();
    sock.connect(balanced()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    // The first bytes there and back make the connection one of many paths.
    sock.send("there").unwrap();
    assert_eq!(accepted.recv(5).unwrap(), b"there");
    accepted.send("back").unwrap();
    assert_eq!(sock.recv(4).unwrap(), b"back");
    eventually("a second path", Duration::from_secs(5), || {
        let joined = counted_by_kernel(&client, "MPTcpExt:", "MPJoinSynAckRx");
        (joined > 0).then_some(()).ok_or_else(|| joined.to_string())
    });
    assert_eq!(sock.peer_addr().unwrap(), balanced());
}

/// A second dial on a socket that is connected is the kernel's affair, and changes nothing.
#[test]
fn a_second_connect_on_a_connected_socket_is_refused_as_ever() {
    let node = Node::new().unwrap();
    let (weir, client, server, outside) = mesh(&node);
    let sock = client.agent().dial(vip()).unwrap();
    for addr in [vip(), server.at(8000), outside.at(80)] {
        let fault = sock.connect(addr).unwrap_err();
        assert!(fault.is(Errno::EISCONN), "{addr}: {fault}");
    }
    assert_eq!(sock.peer_addr().unwrap(), vip());
    sock.send("still\n").unwrap();
    assert!(sock.recv_to_end().unwrap().0.starts_with("server "));
    assert_eq!(weir.metrics().count("weir_denials_total", &[]), 0);
}

/// Loopback and the pod's own address are the pod's own affair.
#[test]
fn what_stays_in_the_pod_is_untouched() {
    let node = Node::new().unwrap();
    let (weir, client, _server, _outside) = mesh(&node);
    let what = Service::Whoami { name: "own".into() };
    client
        .agent()
        .serve("0.0.0.0:9000".parse().unwrap(), what)
        .unwrap();
    for addr in [
        "127.0.0.1:9000",
        "0.0.0.0:9000",
        &client.at(9000).to_string(),
    ] {
        let sock = client.agent().dial(addr.parse().unwrap()).unwrap();
        sock.send("x\n").unwrap();
        assert!(sock.recv_to_end().unwrap().0.starts_with("own "), "{addr}");
    }
    let metrics = weir.metrics();
    assert_eq!(
        metrics.count("weir_kernel_connects_total", &[("outcome", "direct")]),
        3
    );
    assert_eq!(metrics.count("weir_denials_total", &[]), 0);
}
