//! Connections that are accelerated: in both families, counted byte by byte, and
//! over the end of what decided on them, of the daemon and of weir.

use std::net::SocketAddr;
use std::time::Duration;

use aya::maps::{HashMap, Map, MapData};
use nix::errno::Errno;
use testbed::agent::proto::SockOption;
use testbed::docs::{egress_rule, route_rule};
use testbed::mesh::{accelerating, counted, refused};
use testbed::{Fault, Node, Pod, Sock, Weir, eventually};

const LEN: u64 = 20 << 20;
const SETTLE: Duration = Duration::from_secs(5);
/// Long enough for a transfer to be in full flow.
const UNDER_WAY: Duration = Duration::from_millis(300);

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// One question and one answer over a new connection.
fn ask<'a>(client: &'a Pod, listener: &Sock<'a>, to: SocketAddr) -> (Sock<'a>, Sock<'a>) {
    let near = client.agent().dial(to).unwrap();
    near.send("question").unwrap();
    let (far, _) = listener.accept().unwrap();
    assert_eq!(far.recv(20).unwrap(), b"question");
    far.send("answer").unwrap();
    assert_eq!(near.recv(20).unwrap(), b"answer");
    for sock in [&near, &far] {
        sock.set(SockOption::Timeout(60_000)).unwrap();
    }
    (near, far)
}

/// [`LEN`] bytes each way at once; `meanwhile` something happens.
fn bulk(near: &Sock<'_>, far: &Sock<'_>, meanwhile: impl FnOnce()) {
    bulk_of(LEN, near, far, meanwhile);
}

/// The same for another length; whether bytes were still under way afterwards.
fn bulk_of(len: u64, near: &Sock<'_>, far: &Sock<'_>, meanwhile: impl FnOnce()) -> bool {
    let (at_near, at_far, was_under_way) = std::thread::scope(|scope| {
        let far = scope.spawn(|| far.bulk(7, len, len).unwrap());
        let near = scope.spawn(|| near.bulk(1_000_003, len, len).unwrap());
        meanwhile();
        let was_under_way = !near.is_finished();
        (near.join().unwrap(), far.join().unwrap(), was_under_way)
    });
    assert_eq!((at_near.received, at_far.received), (len, len));
    assert_eq!(at_near.sent_hash, at_far.received_hash);
    assert_eq!(at_far.sent_hash, at_near.received_hash);
    was_under_way
}

fn bytes(weir: &Weir<'_>) -> [u64; 2] {
    let metrics = weir.metrics();
    ["sent", "received"].map(|way| metrics.count("weir_tcp_bytes_total", &[("direction", way)]))
}

/// Connections that something is counted of.
fn counting(node: &Node) -> usize {
    let pin = node.bpffs().join("weir/maps/HANDED");
    let map = Map::HashMap(MapData::from_pin(pin).unwrap());
    let handed: HashMap<_, u64, [u64; 2]> = HashMap::try_from(map).unwrap();
    handed.keys().count()
}

/// The record of a connection holds every byte once: those that were handed over,
/// and those that TCP carried after the end of one half.
#[test]
fn bytes_past_tcp_are_counted() {
    let node = Node::new().unwrap();
    let (weir, client, server) = accelerating(&node, "force");
    let listener = server.agent().listen(server.at(8000), 16).unwrap();
    let before = bytes(&weir);
    let accelerated = counted(&weir, "accelerated");
    let mut wanted = before;
    for port in [81, 80] {
        let (near, far) = ask(&client, &listener, SocketAddr::from(([10, 96, 0, 1], port)));
        assert_eq!(counting(&node), usize::from(port == 81), "{port}");
        bulk(&near, &far, || {});
        near.shutdown_write().unwrap();
        assert_eq!(far.recv(10).unwrap(), b"");
        // The writer knows of the end of the other half, and leaves it to TCP.
        far.send("late answer").unwrap();
        drop(far);
        let (said, _) = near.recv_to_end().unwrap();
        assert!(said.is_empty() || said == "late answer", "{said}");
        drop(near);
        wanted[0] += LEN + 8;
        wanted[1] += LEN + 6 + 11;
        eventually("every byte is counted", SETTLE, || match bytes(&weir) {
            counted if counted == wanted => Ok(()),
            counted => Err(format!("{port}: {counted:?}, not {wanted:?}")),
        });
        assert_eq!(counting(&node), 0);
    }
    assert_eq!(counted(&weir, "accelerated") - accelerated, 3);
}

/// Nothing is left of connections that never came about.
#[test]
fn a_refused_connect_leaves_no_count() {
    let node = Node::new().unwrap();
    let (_weir, client, _server) = accelerating(&node, "force");
    for _ in 0..100 {
        let fault = client.agent().dial(addr("10.96.0.1:81")).err();
        assert!(fault.is_some(), "nobody listens");
    }
    assert_eq!(counting(&node), 0);
}

/// In IPv6, and in IPv4 over a socket of IPv6.
#[test]
fn both_families_are_accelerated() {
    let node = Node::new().unwrap();
    let (weir, client, server) = accelerating(&node, "force");
    let v4 = server.agent().listen(server.at(8000), 16).unwrap();
    let v6 = server.agent().listen(server.at6(8000), 16).unwrap();
    for (to, listener, legs) in [
        ("[fd00:96::1]:81", &v6, 1),
        ("[fd00:96::1]:80", &v6, 2),
        ("[::ffff:10.96.0.1]:81", &v4, 1),
        ("[::ffff:10.96.0.1]:80", &v4, 2),
    ] {
        let before = counted(&weir, "accelerated");
        let (near, far) = ask(&client, listener, addr(to));
        assert_eq!(counted(&weir, "accelerated") - before, legs, "{to}");
        bulk(&near, &far, || {});
    }
    assert_eq!(counted(&weir, "passed"), 0);
}

/// Whatever is decided on later ones, and whoever is unenrolled: a connection goes
/// on as it is to its end, and every byte of it is handed over.
#[test]
fn connections_outlive_what_decided_on_them() {
    /// Long enough for a command to come into force meanwhile.
    const LEN: u64 = 80 << 20;
    let node = Node::new().unwrap();
    let (weir, client, server) = accelerating(&node, "force");
    let listener = server.agent().listen(server.at(8000), 16).unwrap();
    let before = counted(&weir, "accelerated");
    let (near, far) = ask(&client, &listener, addr("10.96.0.1:81"));
    assert_eq!(counted(&weir, "accelerated") - before, 1);
    let not_ready = r#"{"spec":{"ready":false}}"#;
    let opened = egress_rule("outside", "203.0.113.7", &[(443, "tcp")], "");
    let nobody = route_rule("s", "s", &[("none", 100)], "");
    let changes: [(&str, &dyn Fn()); 6] = [
        ("an egress rule", &|| weir.apply(&opened)),
        ("a route to nobody", &|| weir.apply(&nobody)),
        ("the endpoint is not ready", &|| {
            weir.ok(&["patch", "workload", "server", "-p", not_ready]);
        }),
        ("no service", &|| {
            weir.ok(&["delete", "service", "s"]);
        }),
        ("no client", &|| {
            weir.ok(&["unenroll", "client"]);
        }),
        ("no endpoint", &|| {
            weir.ok(&["unenroll", "server"]);
        }),
    ];
    for (what, change) in changes {
        assert!(bulk_of(LEN, &near, &far, change), "{what}: too late");
        if what == "a route to nobody" {
            let dialled = client.agent().dial(addr("10.96.0.1:81"));
            refused(dialled, Errno::ECONNREFUSED);
        }
    }
    assert_eq!(counted(&weir, "passed"), 0);
    assert_eq!(counting(&node), 1);
    near.shutdown_write().unwrap();
    assert_eq!(far.recv(10).unwrap(), b"");
    drop(far);
    over(&near);
    drop(near);
    assert_eq!(counting(&node), 0);
}

/// A connection that needs no daemon never notices that it is killed and comes
/// back; one that does is over, for both sides, and is not taken for more.
#[test]
fn connections_outlive_a_restart_or_end() {
    let node = Node::new().unwrap();
    let (mut weir, client, server) = accelerating(&node, "force");
    let listener = server.agent().listen(server.at(8000), 16).unwrap();
    let (near, far) = ask(&client, &listener, addr("10.96.0.1:81"));
    let (lost, its_end) = ask(&client, &listener, addr("10.96.0.1:80"));
    lost.send("never answered").unwrap();
    assert_eq!(its_end.recv(20).unwrap(), b"never answered");
    bulk(&near, &far, || {
        weir.kill9().unwrap();
        weir.launch().unwrap();
    });
    for sock in [&lost, &its_end] {
        over(sock);
    }
    // Those that were accelerated still are; so are new ones.
    bulk(&near, &far, || {});
    let before = bytes(&weir);
    drop((near, far));
    eventually("its bytes are counted", SETTLE, || {
        let [sent, received] = bytes(&weir);
        let grown = (sent - before[0], received - before[1]);
        (grown == (2 * LEN + 8, 2 * LEN + 6))
            .then_some(())
            .ok_or(format!("{grown:?}"))
    });
    let accelerated = counted(&weir, "accelerated");
    let _ends = ask(&client, &listener, addr("10.96.0.1:81"));
    assert_eq!(counted(&weir, "accelerated") - accelerated, 1);
}

/// A transfer that is cut short by the end of the daemon which carries it: both
/// ends are told, and what came is the beginning of what was sent.
#[test]
fn a_proxied_transfer_ends_with_a_killed_daemon() {
    for is_upload in [true, false] {
        let node = Node::new().unwrap();
        let (mut weir, client, server) = accelerating(&node, "force");
        let listener = server.agent().listen(server.at(8000), 16).unwrap();
        let before = counted(&weir, "accelerated");
        let (near, far) = ask(&client, &listener, addr("10.96.0.1:80"));
        assert_eq!(counted(&weir, "accelerated") - before, 2);
        let (from, to) = if is_upload {
            (&near, &far)
        } else {
            (&far, &near)
        };
        let (sent, followed) = std::thread::scope(|scope| {
            let sent = scope.spawn(|| from.bulk(7, u64::MAX, 0));
            let followed = scope.spawn(|| to.follow(7).unwrap());
            std::thread::sleep(UNDER_WAY);
            weir.kill9().unwrap();
            (sent.join().unwrap(), followed.join().unwrap())
        });
        let fault = sent.expect_err("nobody takes it any more");
        assert!(
            fault.is(Errno::ECONNRESET) || fault.is(Errno::EPIPE),
            "{fault}"
        );
        assert!(followed.received > 0 && !followed.spoilt, "{followed:?}");
        let fault = followed.fault.as_ref();
        assert!(
            fault.is_none_or(|fault| fault.is(Errno::ECONNRESET)),
            "{followed:?}"
        );
        weir.launch().unwrap();
        let (near, far) = ask(&client, &listener, addr("10.96.0.1:80"));
        bulk(&near, &far, || {});
    }
}

/// Nothing more comes, and that is said: an end, or a reset.
fn over(sock: &Sock<'_>) {
    let (said, fault) = sock.recv_to_end().unwrap();
    assert_eq!(said, "");
    let is_timeout = |fault: &Fault| fault.is(Errno::EAGAIN);
    assert!(!fault.as_ref().is_some_and(is_timeout), "{fault:?}");
}

/// `weir uninstall` leaves what is accelerated alone: what is under way arrives,
/// what follows too, and the ends are ends.
#[test]
fn connections_outlive_weir() {
    let node = Node::new().unwrap();
    let (mut weir, client, server) = accelerating(&node, "force");
    let listener = server.agent().listen(server.at(8000), 16).unwrap();
    let (near, far) = ask(&client, &listener, addr("10.96.0.1:81"));
    let (unread, its_end) = ask(&client, &listener, addr("10.96.0.1:81"));
    unread.send("under way").unwrap();
    bulk(&near, &far, || {
        weir.stop().unwrap();
        weir.uninstall().unwrap();
    });
    bulk(&near, &far, || {});
    assert_eq!(its_end.recv(20).unwrap(), b"under way");
    its_end.send("answered").unwrap();
    drop(its_end);
    assert_eq!(unread.recv(20).unwrap(), b"answered");
    over(&unread);
    near.shutdown_write().unwrap();
    assert_eq!(far.recv(10).unwrap(), b"");
    drop(far);
    over(&near);
}
