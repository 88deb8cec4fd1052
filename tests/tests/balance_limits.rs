//! What is told of balanced connections, and what does not fit the kernel's tables.

use std::time::Duration;

use testbed::agent::proto::{Service, SockOption};
use testbed::docs::{route_rule, service};
use testbed::{Agent, Node, Sock, Weir, WeirOptions, eventually};

const BULK: u64 = 3 << 20;

/// Both ends of one connection through the service `b`.
fn connected<'a>(client: &'a Agent, listener: &Sock<'a>) -> (Sock<'a>, Sock<'a>) {
    let near = client.dial("10.96.0.2:443".parse().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    for sock in [&near, &far] {
        sock.set(SockOption::Timeout(20_000)).unwrap();
    }
    (near, far)
}

/// Six connections that end in different ways; how many, and the bytes each way.
fn talk(client: &Agent, listener: &Sock<'_>) -> (u64, u64, u64) {
    // Both ways, the client closes first; then the server.
    for server_first in [false, true] {
        let (near, far) = connected(client, listener);
        std::thread::scope(|scope| {
            let far = scope.spawn(|| far.bulk(7, BULK, BULK).unwrap());
            near.bulk(8, BULK, BULK).unwrap();
            far.join().unwrap();
        });
        let (first, last) = if server_first {
            (far, near)
        } else {
            (near, far)
        };
        drop(first);
        assert_eq!(last.recv(1).unwrap(), b"");
        drop(last);
    }
    // The client ends its half, and waits for the answer and the end.
    let (near, far) = connected(client, listener);
    near.send("1234567").unwrap();
    near.shutdown_write().unwrap();
    assert_eq!(far.recv_to_end().unwrap().0, "1234567");
    far.send("123").unwrap();
    drop(far);
    assert_eq!(near.recv_to_end().unwrap().0, "123");
    drop(near);
    // Resets by either end.
    let (near, far) = connected(client, listener);
    near.send("12").unwrap();
    assert_eq!(far.recv(2).unwrap(), b"12");
    near.abort().unwrap();
    let (near, far) = connected(client, listener);
    far.send("12345").unwrap();
    assert_eq!(near.recv(5).unwrap(), b"12345");
    far.abort().unwrap();
    near.recv_to_end().unwrap();
    drop(near);
    // And one that carries nothing.
    drop(connected(client, listener));
    (6, 2 * BULK + 7 + 2, 2 * BULK + 3 + 5)
}

/// Every byte and connection is counted, however the connection ends.
#[test]
fn metrics_equal_what_was_sent() {
    let node = Node::new().unwrap();
    let weir = Weir::start(&node).unwrap();
    let [client, one] = node.pods(["client", "one"]).unwrap();
    weir.enroll(&client, &["app=c"]);
    let port = "name: tls, port: 443, targetPort: 9000";
    weir.apply(&service("b", "10.96.0.2", "b", &[port]));
    weir.enroll(&one, &["app=b", "version=v1"]);
    weir.apply(&route_rule("all", "b", &[("v1", 100)], ""));
    let listener = one.agent().listen(one.at(9000), 16).unwrap();
    let wanted = talk(client.agent(), &listener);
    let to = ("destination", "default/b");
    eventually("all is counted", Duration::from_secs(3), || {
        let metrics = weir.metrics();
        let bytes = |way| metrics.count("weir_tcp_bytes_total", &[to, ("direction", way)]);
        let connections = metrics.count("weir_tcp_connections_total", &[to, ("reason", "")]);
        match (connections, bytes("sent"), bytes("received")) {
            found if found == wanted => Ok(()),
            found => Err(format!("{found:?}, not {wanted:?}")),
        }
    });
    let metrics = weir.metrics();
    for name in [
        "weir_connections_opened_total",
        "weir_connections_closed_total",
        "weir_tcp_rtt_seconds_count",
    ] {
        assert_eq!(metrics.count(name, &[to]), 6, "{name}");
    }
    assert_eq!(metrics.series("weir_tcp_retransmits_total"), 1);
    assert_eq!(metrics.count("weir_kernel_endings_lost_total", &[]), 0);
    let line = weir.await_log(&["\"connection\"", "default/b", "rtt_ms", "retransmits"]);
    for part in ["\"version\":\"v1\"", "\"rule\":\"default/all\""] {
        assert!(line.contains(part), "{line}");
    }
    let graph = weir.json(&["graph"]);
    let edges = graph["edges"].as_array().unwrap();
    let edge = edges.iter().find(|edge| edge["destination"] == "default/b");
    assert_eq!(edge.expect("an edge")["count"], 6, "{graph}");
}

/// More endpoints than there are slots: refused before anything changes.
#[test]
fn too_many_endpoints_are_refused_aloud() {
    const WORKLOADS: u32 = 2000;
    let node = Node::new().unwrap();
    // Twice the slots of 16 ports, and not of 17.
    let options = WeirOptions {
        args: ["--map-limit", "endpoints=65536"].map(str::to_owned).into(),
        ..WeirOptions::default()
    };
    let weir = Weir::start_with(&node, options).unwrap();
    let [client, server] = node.pods(["client", "server"]).unwrap();
    let what = Service::Whoami { name: "s".into() };
    server.agent().serve(server.at(8000), what).unwrap();
    weir.enroll(&server, &["app=s"]);
    weir.enroll(&client, &["app=c"]);
    let port = "name: tcp, port: 80, targetPort: 8000";
    weir.apply(&service("s", "10.96.0.1", "s", &[port]));
    let answers = || {
        let sock = client
            .agent()
            .dial("10.96.0.1:80".parse().unwrap())
            .unwrap();
        sock.send("x\n").unwrap();
        assert!(sock.recv_to_end().unwrap().0.starts_with("s "));
    };
    let workload = |n: u32| {
        let [_, _, high, low] = n.to_be_bytes();
        format!(
            "---\napiVersion: weir.dev/v1\nkind: Workload\n\
             metadata: {{name: w{n}, labels: {{app: many}}}}\nspec: {{addresses: [10.9.{high}.{low}]}}\n"
        )
    };
    let documents: String = (0..WORKLOADS).map(workload).collect();
    let many = |ports: u16| {
        let port = |n| format!("name: tcp-{n}, port: {n}, targetPort: {}", 1000 + n);
        let ports: Vec<String> = (1..=ports).map(port).collect();
        let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
        service("many", "10.96.0.9", "many", &ports)
    };
    weir.apply(&(documents + &many(16)));
    let before = weir.json(&["status"])["revision"].clone();
    let output = weir.try_apply(&many(17));
    assert_ne!(output.status, 0, "{output:?}");
    assert!(output.stderr.contains("ENDPOINTS"), "{output:?}");
    assert_eq!(weir.json(&["status"])["revision"], before);
    answers();
    weir.apply(&many(15));
    answers();
}
