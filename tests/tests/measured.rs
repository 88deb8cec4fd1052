//! What is told of how connections of bytes went: how long they lasted, and what
//! TCP met on the way, by source and destination, over both families.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use testbed::agent::proto::SockOption;
use testbed::docs::service;
use testbed::{Metrics, Node, Pod, Weir, eventually};

const LIMIT: Duration = Duration::from_secs(5);
/// What a slow wire carries in seconds: a full segment takes 60 ms, and a sixth of
/// those that wait finds no place.
const SLOW: &str = "tbf rate 200kbit burst 1600 limit 7600";
const SEGMENT: f64 = 0.05;
const SENT: u64 = 60_000;

/// Every connection of `source` to `destination`.
struct Told {
    connections: u64,
    seconds: f64,
    brief: u64,
    rtt: f64,
    retransmits: u64,
    bytes: [u64; 2],
}

fn told(metrics: &Metrics, source: &str, destination: &str) -> Told {
    let ends = [("source", source), ("destination", destination)];
    let with = |label| [ends[0], ends[1], label];
    let bytes = |way| metrics.count("weir_tcp_bytes_total", &with(("direction", way)));
    let lasted = "weir_tcp_connection_duration_seconds";
    let connections = metrics.count(&format!("{lasted}_count"), &ends);
    let counted = metrics.count("weir_tcp_connections_total", &ends);
    assert_eq!(connections, counted, "{}", metrics.show(lasted));
    Told {
        connections,
        seconds: metrics.sum(&format!("{lasted}_sum"), &ends),
        brief: metrics.count(&format!("{lasted}_bucket"), &with(("le", "0.5"))),
        rtt: metrics.sum("weir_tcp_rtt_seconds_sum", &ends),
        retransmits: metrics.count("weir_tcp_retransmits_total", &ends),
        bytes: ["sent", "received"].map(bytes),
    }
}

fn await_told(weir: &Weir<'_>, source: &str, destination: &str, connections: u64) -> Told {
    eventually("the connections are told", LIMIT, || {
        let told = told(&weir.metrics(), source, destination);
        (told.connections == connections)
            .then_some(told)
            .ok_or_else(|| weir.metrics().show("weir_tcp_connections_total"))
    })
}

fn slow_down(pod: &Pod) {
    let mut tc = Command::new("ip");
    tc.args(["netns", "exec", pod.netns().name(), "tc"]);
    tc.args("qdisc add dev eth0 root".split(' '));
    let status = tc.args(SLOW.split(' ')).status().unwrap();
    assert!(status.success(), "{tc:?}");
}

/// One connection that carries [`SENT`] bytes, and one that only lasts.
fn talk(client: &Pod, server: &Pod, to: SocketAddr, send: u64) -> Duration {
    let all = SocketAddr::new("::".parse().unwrap(), 9000);
    let listener = server.agent().listen(all, 16).unwrap();
    let near = client.agent().dial(to).unwrap();
    near.set(SockOption::Timeout(30_000)).unwrap();
    // What waits for a word of the client is dialled then.
    near.send("?").unwrap();
    let (far, _) = listener.accept().unwrap();
    far.set(SockOption::Timeout(30_000)).unwrap();
    assert_eq!(far.recv(1).unwrap(), b"?");
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let far = scope.spawn(|| far.bulk(7, 3, send).unwrap());
        near.bulk(8, send, 3).unwrap();
        far.join().unwrap();
    });
    std::thread::sleep(Duration::from_secs(1));
    let held = begun.elapsed();
    drop((near, far));
    held
}

fn mesh(node: &Node) -> (Weir<'_>, [Pod; 3]) {
    let weir = Weir::start(node).unwrap();
    let [client, other, server] = node.pods(["client", "other", "server"]).unwrap();
    weir.enroll_found(&client, &["app=c"]);
    weir.enroll_found(&other, &["app=o"]);
    weir.enroll_found(&server, &["app=s"]);
    let four = ["name: tcp, port: 80, targetPort: 9000"];
    weir.apply(&service("four", "10.96.0.1", "s", &four));
    weir.apply(&service("six", "'fd00:96::1'", "s", &four));
    let bytes = ["port: 80, targetPort: 9000"];
    weir.apply(&service("proxied", "10.96.0.2, 'fd00:96::2'", "s", &bytes));
    (weir, [client, other, server])
}

/// A wire that delays and loses: the round trips show it, and what was sent again;
/// the duration is that of the connection, and nobody else's.
#[test]
fn balanced_connections_tell_what_they_met() {
    let node = Node::new().unwrap();
    let (weir, [client, other, server]) = mesh(&node);
    for (to, name) in [
        ("10.96.0.1:80", "default/four"),
        ("[fd00:96::1]:80", "default/six"),
    ] {
        talk(&other, &server, to.parse().unwrap(), SENT);
        let quick = await_told(&weir, "default/other", name, 1);
        assert!(quick.rtt < SEGMENT && quick.retransmits == 0, "{name}");
    }
    slow_down(&client);
    for (to, name) in [
        ("10.96.0.1:80", "default/four"),
        ("[fd00:96::1]:80", "default/six"),
    ] {
        let held = talk(&client, &server, to.parse().unwrap(), SENT).as_secs_f64();
        let told = await_told(&weir, "default/client", name, 1);
        assert_eq!(told.bytes, [SENT + 1, 3], "{name}");
        let Told { seconds, rtt, .. } = told;
        assert!((held..held + 2.0).contains(&seconds), "{name}: {seconds}");
        assert!((SEGMENT..held).contains(&rtt), "{name}: {rtt}");
        assert!(told.retransmits > 0, "{name}");
        assert_eq!(told.brief, 0, "{name}");
        let again = await_told(&weir, "default/other", name, 1);
        assert_eq!((again.retransmits, again.brief), (0, 0), "{name}");
    }
}

/// What the proxy moves has a duration too.
#[test]
fn proxied_connections_tell_how_long_they_lasted() {
    let node = Node::new().unwrap();
    let (weir, [client, _other, server]) = mesh(&node);
    let mut held = Duration::ZERO;
    for (to, count) in [("10.96.0.2:80", 1), ("[fd00:96::2]:80", 2)] {
        held += talk(&client, &server, to.parse().unwrap(), SENT);
        let told = await_told(&weir, "default/client", "default/proxied", count);
        let (held, found) = (held.as_secs_f64(), told.seconds);
        assert!((held..held + 2.0).contains(&found), "{found} for {held}");
        assert_eq!(told.brief, 0);
        assert_eq!(told.bytes, [SENT + 1, 3].map(|bytes| bytes * count));
    }
}
