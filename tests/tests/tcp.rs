//! TCP through the proxy: byte for byte, each half on its own, a FIN a FIN and a RST a RST.

use std::net::SocketAddr;
use std::time::Duration;

use nix::errno::Errno;
use testbed::agent::proto::{Service, SockOption};
use testbed::docs::{route_rule, service};
use testbed::{Agent, Node, Pod, Sock, Weir, eventually};

fn vip() -> SocketAddr {
    "10.96.0.1:80".parse().unwrap()
}

/// A client and a server behind a service whose port declares no protocol: its
/// bytes go through the proxy.
fn mesh(node: &Node) -> (Weir<'_>, Pod, Pod) {
    let weir = Weir::start(node).unwrap();
    let [client, server] = node.pods(["client", "server"]).unwrap();
    weir.enroll(&server, &["app=s", "version=v1"]);
    weir.enroll(&client, &["app=c"]);
    weir.apply(&service(
        "s",
        "10.96.0.1",
        "s",
        &["port: 80, targetPort: 8000"],
    ));
    (weir, client, server)
}

/// A connection from end to end: the client's socket and the server's.
fn connected<'a>(client: &'a Agent, listener: &Sock<'a>) -> (Sock<'a>, Sock<'a>) {
    let near = client.dial(vip()).unwrap();
    // Bytes both ways: then both legs are up.
    near.send("?").unwrap();
    let (far, _) = listener.accept().unwrap();
    assert_eq!(far.recv(10).unwrap(), b"?");
    far.send("!").unwrap();
    assert_eq!(near.recv(10).unwrap(), b"!");
    (near, far)
}

/// 100 MB each way at once, checked by hash.
#[test]
fn a_hundred_megabytes_each_way_arrive_unchanged() {
    const LEN: u64 = 100 << 20;
    let node = Node::new().unwrap();
    let (weir, client, server) = mesh(&node);
    let listener = server.agent().listen(server.at(8000), 16).unwrap();
    let near = client.agent().dial(vip()).unwrap();
    let (far, _) = listener.accept().unwrap();
    for sock in [&near, &far] {
        sock.set(SockOption::Timeout(60_000)).unwrap();
    }
    let (at_client, at_server) = std::thread::scope(|scope| {
        let server = scope.spawn(|| far.bulk(7, LEN, LEN).unwrap());
        let client = near.bulk(1_000_003, LEN, LEN).unwrap();
        (client, server.join().unwrap())
    });
    assert_eq!((at_client.received, at_server.received), (LEN, LEN));
    assert_eq!(at_client.sent_hash, at_server.received_hash);
    assert_eq!(at_server.sent_hash, at_client.received_hash);
    drop((near, far));
    eventually("the bytes are counted", Duration::from_secs(3), || {
        let metrics = weir.metrics();
        let count = |way| metrics.count("weir_tcp_bytes_total", &[("direction", way)]);
        match (count("sent"), count("received")) {
            (LEN, LEN) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// The client ends its half; the server still answers, at length.
#[test]
fn half_close_by_the_client() {
    let node = Node::new().unwrap();
    let (_weir, client, server) = mesh(&node);
    let listener = server.agent().listen(server.at(8000), 16).unwrap();
    let (near, far) = connected(client.agent(), &listener);
    near.send("question").unwrap();
    near.shutdown_write().unwrap();
    let (said, fault) = far.recv_to_end().unwrap();
    assert_eq!(said, "question");
    assert!(fault.is_none(), "{fault:?}");
    std::thread::sleep(Duration::from_millis(200));
    far.send("late ").unwrap();
    far.send("answer").unwrap();
    drop(far);
    let (said, fault) = near.recv_to_end().unwrap();
    assert_eq!(said, "late answer");
    assert!(fault.is_none(), "{fault:?}");
}

/// The server ends its half first; the client can still send.
#[test]
fn half_close_by_the_server() {
    let node = Node::new().unwrap();
    let (_weir, client, server) = mesh(&node);
    let listener = server.agent().listen(server.at(8000), 16).unwrap();
    let (near, far) = connected(client.agent(), &listener);
    far.send("goodbye").unwrap();
    far.shutdown_write().unwrap();
    let (said, fault) = near.recv_to_end().unwrap();
    assert_eq!(said, "goodbye");
    assert!(fault.is_none(), "{fault:?}");
    std::thread::sleep(Duration::from_millis(200));
    near.send("one more thing").unwrap();
    near.shutdown_write().unwrap();
    let (said, fault) = far.recv_to_end().unwrap();
    assert_eq!(said, "one more thing");
    assert!(fault.is_none(), "{fault:?}");
}

fn ends_with_reset(sock: &Sock<'_>) {
    let (_, fault) = sock.recv_to_end().unwrap();
    let fault = fault.expect("the connection ends in order, a reset was due");
    assert!(fault.is(Errno::ECONNRESET), "{fault}");
}

/// A reset by one end is a reset at the other.
#[test]
fn a_reset_stays_a_reset_both_ways() {
    let node = Node::new().unwrap();
    let (_weir, client, server) = mesh(&node);
    let listener = server.agent().listen(server.at(8000), 16).unwrap();
    let (near, far) = connected(client.agent(), &listener);
    near.abort().unwrap();
    ends_with_reset(&far);
    let (near, far) = connected(client.agent(), &listener);
    far.abort().unwrap();
    ends_with_reset(&near);
    // Also when the other half has ended in order before.
    let (near, far) = connected(client.agent(), &listener);
    far.shutdown_write().unwrap();
    assert_eq!(near.recv(10).unwrap(), b"");
    near.abort().unwrap();
    ends_with_reset(&far);
}

/// Also while the bytes that came before it are held up by the other end.
#[test]
fn a_reset_is_seen_while_the_other_end_reads_nothing() {
    let node = Node::new().unwrap();
    let (weir, client, server) = mesh(&node);
    let listener = server.agent().listen(server.at(8000), 16).unwrap();
    for is_upload in [true, false] {
        let (near, far) = connected(client.agent(), &listener);
        let (sender, silent) = if is_upload { (near, far) } else { (far, near) };
        sender.set(SockOption::Timeout(1_000)).unwrap();
        let full = sender.bulk(7, u64::MAX, 0).expect_err("nobody reads");
        assert!(full.is(Errno::EAGAIN), "{full}");
        let open = || weir.metrics().count("weir_connections_active", &[]);
        assert_eq!(open(), 1);
        sender.abort().unwrap();
        eventually("it is let go of", Duration::from_secs(5), || match open() {
            0 => Ok(()),
            open => Err(open.to_string()),
        });
        drop(silent);
    }
}

/// An endpoint where nobody listens: the client's connection is reset, not left hanging.
#[test]
fn a_connect_to_a_dead_endpoint_is_reset() {
    let node = Node::new().unwrap();
    let (weir, client, _server) = mesh(&node);
    let ended = client.agent().dial(vip()).and_then(|sock| {
        sock.send("hello")?;
        sock.recv_to_end()
    });
    match ended {
        Ok((said, fault)) => {
            assert_eq!(said, "");
            assert!(
                fault
                    .as_ref()
                    .is_some_and(|fault| fault.is(Errno::ECONNRESET)),
                "{fault:?}"
            );
        }
        Err(fault) => assert!(
            fault.is(Errno::ECONNRESET) || fault.is(Errno::EPIPE),
            "{fault}"
        ),
    }
    weir.await_log(&["\"connection\"", "upstream-connect-failed"]);
}

/// A refused endpoint is passed over for one that answers.
#[test]
fn a_dead_endpoint_is_passed_over_while_another_lives() {
    let node = Node::new().unwrap();
    let (weir, client, _dead) = mesh(&node);
    let alive = node.pod("alive").unwrap();
    alive
        .agent()
        .serve(
            alive.at(8000),
            Service::Whoami {
                name: "alive".into(),
            },
        )
        .unwrap();
    weir.enroll(&alive, &["app=s", "version=v2"]);
    for n in 0..10 {
        let sock = client.agent().dial(vip()).unwrap();
        sock.send(format!("{n}\n")).unwrap();
        let (said, fault) = sock.recv_to_end().unwrap();
        assert!(said.starts_with("alive "), "{n}: {said} {fault:?}");
    }
}

/// A service with no ready endpoint: the connect itself fails, or the connection is reset at once.
#[test]
fn a_service_without_endpoints_resets() {
    let node = Node::new().unwrap();
    let (weir, client, _server) = mesh(&node);
    weir.ok(&[
        "patch",
        "workload",
        "server",
        "-p",
        r#"{"spec":{"ready":false}}"#,
    ]);
    let ended = client
        .agent()
        .dial(vip())
        .and_then(|sock| sock.recv_to_end());
    match ended {
        Ok((said, fault)) => {
            assert_eq!(said, "");
            assert!(
                fault
                    .as_ref()
                    .is_some_and(|fault| fault.is(Errno::ECONNRESET)),
                "{fault:?}"
            );
        }
        Err(fault) => assert!(fault.is(Errno::ECONNREFUSED), "{fault}"),
    }
}

/// A route rule without a match on requests splits connections of a TCP port by weight.
#[test]
fn weights_hold_for_tcp_connections() {
    let node = Node::new().unwrap();
    let (weir, client, server) = mesh(&node);
    let other = node.pod("other").unwrap();
    for (pod, name) in [(&server, "v1"), (&other, "v2")] {
        pod.agent()
            .serve(pod.at(8000), Service::Whoami { name: name.into() })
            .unwrap();
    }
    weir.enroll(&other, &["app=s", "version=v2"]);
    weir.apply(&route_rule("s", "s", &[("v1", 30), ("v2", 70)], ""));
    let mut first = 0;
    for n in 0..100 {
        let sock = client.agent().dial(vip()).unwrap();
        sock.send(format!("{n}\n")).unwrap();
        first += u32::from(sock.recv_to_end().unwrap().0.starts_with("v1 "));
    }
    assert!((29..=31).contains(&first), "{first} of 100 went to v1");
}
