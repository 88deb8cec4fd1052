//! Notes: what `connect` notes of a socket is there as long as it is of use, and no longer.

use std::net::SocketAddr;
use std::time::Duration;

use aya::maps::{HashMap, Map, MapData};
use nix::errno::Errno;
use proxy_common::Note;
use testbed::agent::proto::{Service, SockOption};
use testbed::docs::service;
use testbed::mesh::{captured, refused};
use testbed::{Node, Pod, Sock, Weir, WeirOptions, eventually};

const LIMIT: Duration = Duration::from_secs(5);
/// Where the service's only endpoint is one that the client has no way to.
const NOWHERE: &str = "10.96.0.9";

fn vip(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 96, 0, 1], port))
}

/// Ports of `s`: 80 is balanced, 81 the proxy's, 53 of UDP.
fn mesh(weir: &Weir<'_>, node: &Node) -> [Pod; 2] {
    let [client, server] = node.pods(["client", "server"]).unwrap();
    let name = || "server".to_owned();
    let what = Service::Whoami { name: name() };
    server.agent().serve(server.at(8000), what).unwrap();
    let what = Service::Datagrams { name: name() };
    server.agent().serve(server.at(5300), what).unwrap();
    let ports = [
        "name: b, port: 80, targetPort: 8000, appProtocol: tcp",
        "name: p, port: 81, targetPort: 8000",
        "name: d, port: 53, targetPort: 5300, protocol: UDP",
    ];
    let nowhere = "---\napiVersion: weir.dev/v1\nkind: Workload\n\
                   metadata: {name: nowhere, labels: {app: nowhere}}\n\
                   spec: {addresses: [192.0.2.1]}\n";
    let unreachable = service("nowhere", NOWHERE, "nowhere", &ports[..1]);
    weir.apply(&(service("s", vip(80).ip(), "s", &ports) + nowhere + "---\n" + &unreachable));
    weir.enroll_found(&server, &["app=s"]);
    weir.enroll_found(&client, &[]);
    // Canaries dial too; the next ones come in a minute.
    captured(weir, 2);
    become_none(node, "of a canary");
    [client, server]
}

/// Entries of `NOTES`, read from its pin.
fn notes(node: &Node) -> usize {
    let pin = node.bpffs().join("weir/maps/NOTES");
    let map = Map::HashMap(MapData::from_pin(pin).unwrap());
    let notes: HashMap<_, u64, [u8; size_of::<Note>()]> = HashMap::try_from(map).unwrap();
    notes.keys().count()
}

fn become_none(node: &Node, of: &str) {
    eventually(&format!("no note is left {of}"), LIMIT, || {
        let left = notes(node);
        (left == 0).then_some(()).ok_or_else(|| left.to_string())
    });
}

/// A line there and the answer, to its end.
fn talk(sock: &Sock<'_>) {
    sock.send("x\n").unwrap();
    let (said, fault) = sock.recv_to_end().unwrap();
    assert!(
        said.starts_with("server ") && fault.is_none(),
        "{said} {fault:?}"
    );
}

/// TCP: until the connection is closed, by whichever end and in whichever way.
#[test]
fn a_note_is_the_connections() {
    let node = Node::new().unwrap();
    let weir = Weir::start(&node).unwrap();
    let [client, server] = mesh(&weir, &node);
    for port in [80, 81] {
        let sock = client.agent().dial(vip(port)).unwrap();
        assert_eq!((notes(&node), sock.peer_addr().unwrap()), (1, vip(port)));
        // The peer has closed; the note is needed for as long as we have not.
        talk(&sock);
        assert_eq!((notes(&node), sock.peer_addr().unwrap()), (1, vip(port)));
        drop(sock);
        become_none(&node, "of a closed one");
        let sock = client.agent().dial(vip(port)).unwrap();
        sock.abort().unwrap();
        become_none(&node, "of one that was reset");
        let sock = client.agent().dial(vip(port)).unwrap();
        sock.unconnect().unwrap();
        assert_eq!(notes(&node), 0, "AF_UNSPEC");
        // The socket dials again, past weir's rules: that is nothing to note.
        sock.connect(server.at(8000)).unwrap();
        assert_eq!(
            (notes(&node), sock.peer_addr().unwrap()),
            (0, server.at(8000))
        );
    }
    weir.finish().unwrap();
}

/// A dial that fails before its SYN leaves: nobody is told of an end.
#[test]
fn a_note_of_a_dial_that_got_nowhere_goes_with_the_socket() {
    let node = Node::new().unwrap();
    let weir = Weir::start(&node).unwrap();
    let [client, server] = mesh(&weir, &node);
    client
        .netns()
        .ip(["route add unreachable 192.0.2.0/24"])
        .unwrap();
    let nowhere: SocketAddr = (NOWHERE.parse::<std::net::IpAddr>().unwrap(), 80).into();
    let sock = client.agent().tcp4().unwrap();
    refused(sock.connect(nowhere), Errno::EHOSTUNREACH);
    assert_eq!(notes(&node), 1);
    drop(sock);
    assert_eq!(notes(&node), 0, "closed");
    // It dials again: first to where nothing is noted, then to where something is.
    let sock = client.agent().tcp4().unwrap();
    refused(sock.connect(nowhere), Errno::EHOSTUNREACH);
    sock.connect(server.at(8000)).unwrap();
    assert_eq!(
        (notes(&node), sock.peer_addr().unwrap()),
        (0, server.at(8000))
    );
    let sock = client.agent().tcp4().unwrap();
    refused(sock.connect(nowhere), Errno::EHOSTUNREACH);
    sock.connect(vip(80)).unwrap();
    assert_eq!((notes(&node), sock.peer_addr().unwrap()), (1, vip(80)));
    talk(&sock);
    drop(sock);
    become_none(&node, "of the second dial");
    weir.finish().unwrap();
}

/// UDP: until the socket dials something else, or is closed.
#[test]
fn a_note_of_udp_goes_with_the_socket() {
    let node = Node::new().unwrap();
    let weir = Weir::start(&node).unwrap();
    let [client, server] = mesh(&weir, &node);
    let sock = client.agent().udp4().unwrap();
    sock.connect(vip(53)).unwrap();
    sock.connect(vip(53)).unwrap();
    assert_eq!((notes(&node), sock.peer_addr().unwrap()), (1, vip(53)));
    sock.connect(server.at(5300)).unwrap();
    assert_eq!(
        (notes(&node), sock.peer_addr().unwrap()),
        (0, server.at(5300))
    );
    sock.connect(vip(53)).unwrap();
    assert_eq!(notes(&node), 1);
    drop(sock);
    assert_eq!(notes(&node), 0, "closed");
    weir.finish().unwrap();
}

/// Those that find no room are served as any other, and told of when they end.
#[test]
fn more_connections_than_notes_fit() {
    const ROOM: usize = 8;
    const EACH: u64 = 20;
    let node = Node::new().unwrap();
    let options = WeirOptions {
        args: ["--map-limit", "notes=8"].map(str::to_owned).into(),
        ..WeirOptions::default()
    };
    let weir = Weir::start_with(&node, options).unwrap();
    let [client, server] = mesh(&weir, &node);
    let mut socks = Vec::new();
    for port in [80, 81] {
        for _ in 0..EACH {
            socks.push((client.agent().dial(vip(port)).unwrap(), vip(port)));
        }
    }
    let datagrams: Vec<Sock<'_>> = (0..EACH)
        .map(|_| {
            let sock = client.agent().udp4().unwrap();
            sock.connect(vip(53)).unwrap();
            sock
        })
        .collect();
    // The kernel keeps a little more than it was asked for, for each CPU.
    assert!((ROOM..socks.len()).contains(&notes(&node)));
    for sock in &datagrams {
        assert_eq!(sock.peer_addr().unwrap(), vip(53));
        sock.send("x").unwrap();
        assert_eq!(sock.recv_from().unwrap().1, vip(53));
        sock.connect(server.at(5300)).unwrap();
        assert_eq!(sock.peer_addr().unwrap(), server.at(5300));
    }
    for (sock, dialled) in &socks {
        assert_eq!(sock.peer_addr().unwrap(), *dialled);
        talk(sock);
    }
    for (sock, _) in &socks {
        sock.unconnect().unwrap();
        sock.set(SockOption::Linger(0)).unwrap();
        sock.connect(server.at(8000)).unwrap();
        assert_eq!(sock.peer_addr().unwrap(), server.at(8000));
    }
    assert_eq!(notes(&node), 0);
    drop(socks);
    eventually("the ends are told", LIMIT, || {
        let ended = weir.metrics().count("weir_tcp_rtt_seconds_count", &[]);
        (ended == EACH)
            .then_some(())
            .ok_or_else(|| ended.to_string())
    });
    let metrics = weir.metrics();
    let full = [("outcome", "table_full")];
    assert_eq!(metrics.count("weir_kernel_connects_total", &full), 0);
    assert_eq!(metrics.count("weir_flow_misses_total", &[]), 0);
    weir.finish().unwrap();
}
