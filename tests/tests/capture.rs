//! Capture: what an application sees of it, and that the original destination is exact.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use aya::maps::{Array, HashMap, Map, MapData};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use proxy_common::{Enrolled, NetnsCookie, Workload};
use testbed::agent::proto::{Dial, Service, SockOption};
use testbed::docs::service;
use testbed::{Fault, Network, Node, Pod, Weir, eventually};

const VIP_A: &str = "10.96.0.1:80";
const VIP_B: &str = "10.96.0.2:80";

fn vip(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A server pod that says on port 8001 that it is `a`, on 8002 that it is `b`;
/// services of these names at [`VIP_A`] and [`VIP_B`], their protocol to be detected.
fn two_services(weir: &Weir<'_>, server: &Pod) {
    for (name, port) in [("a", 8001), ("b", 8002)] {
        let name = name.to_owned();
        server
            .agent()
            .serve(server.at(port), Service::Whoami { name })
            .unwrap();
    }
    weir.enroll(server, &["app=server"]);
    weir.apply(
        &[
            service("a", "10.96.0.1", "server", &["port: 80, targetPort: 8001"]),
            service("b", "10.96.0.2", "server", &["port: 80, targetPort: 8002"]),
        ]
        .concat(),
    );
}

/// A workload on a wire of its own, by document: `weir enroll` knows no networks.
fn enroll_in(weir: &Weir<'_>, network: &str, pod: &Pod, app: &str) {
    weir.apply(&format!(
        "apiVersion: weir.dev/v1\nkind: Workload\nmetadata: {{name: {}, labels: {{app: {app}}}}}\n\
         spec: {{addresses: [{}], network: {network}, netns: {}, cgroup: {}}}\n",
        pod.name(),
        pod.ip(),
        pod.netns().path().display(),
        pod.cgroup().display(),
    ));
}

/// Five pods with one and the same address, in networks of their own, dial the
/// same two addresses from the same source ports at once: every connection
/// reaches the service that it dialled, in its own network.
#[test]
fn original_destinations_are_exact_for_1000_connects_from_equal_addresses() {
    let node = Node::new().unwrap();
    let weir = Weir::start(&node).unwrap();
    let nets: Vec<(String, Network)> = (1..=5)
        .map(|n| format!("net{n}"))
        .map(|name| (name.clone(), node.isolated_network(&name).unwrap()))
        .collect();
    let mut pods = Vec::new();
    for (name, net) in &nets {
        let client = node.pod_on(net, &format!("{name}-client"), 2).unwrap();
        let server = node.pod_on(net, &format!("{name}-server"), 3).unwrap();
        for (what, port) in [("a", 8001), ("b", 8002)] {
            let name = format!("{name}/{what}");
            server
                .agent()
                .serve(server.at(port), Service::Whoami { name })
                .unwrap();
        }
        enroll_in(&weir, name, &client, "client");
        enroll_in(&weir, name, &server, "server");
        for (what, address, port) in [("a", "10.96.0.1", 8001), ("b", "10.96.0.2", 8002)] {
            weir.apply(&format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}-{what}}}\nspec:\n  \
                 network: {name}\n  clusterIPs: [{address}]\n  selector: {{app: server}}\n  \
                 ports: [{{port: 80, targetPort: {port}}}]\n"
            ));
        }
        pods.push((client, server));
    }
    let dials: Vec<Dial> = (0..200_u16)
        .map(|n| Dial {
            to: vip(if n % 2 == 0 { VIP_A } else { VIP_B }),
            from_port: Some(20_000 + n),
            send: format!("hello-{n}\n"),
        })
        .collect();
    std::thread::scope(|scope| {
        for ((name, _), (client, _)) in nets.iter().zip(&pods) {
            let dials = &dials;
            scope.spawn(move || {
                let replies = client.agent().storm(dials.clone()).unwrap();
                for (n, (dial, reply)) in dials.iter().zip(&replies).enumerate() {
                    let said = reply
                        .answer
                        .as_ref()
                        .unwrap_or_else(|fault| panic!("{n}: {fault}"));
                    let what = if dial.to == vip(VIP_A) { "a" } else { "b" };
                    let local = reply.local.unwrap();
                    assert_eq!(local, client.at(dial.from_port.unwrap()));
                    assert!(
                        said.starts_with(&format!("{name}/{what} 10.9.0.2:")),
                        "{n}: {said}"
                    );
                    assert!(said.ends_with(&format!(" hello-{n}")), "{n}: {said}");
                }
            });
        }
    });
    // A connection is counted a moment after its client has seen the end.
    eventually("all are counted", Duration::from_secs(5), || {
        match weir.metrics().count("weir_tcp_connections_total", &[]) {
            1000 => Ok(()),
            fewer => Err(format!("{fewer} are")),
        }
    });
    assert_eq!(weir.metrics().count("weir_flow_misses_total", &[]), 0);
    no_flow_is_pending(&weir);
}

fn no_flow_is_pending(weir: &Weir<'_>) {
    let workloads = weir.json(&["workloads"]);
    for workload in workloads["items"].as_array().unwrap() {
        assert_eq!(workload["pendingFlows"], 0, "{workload}");
    }
}

/// The application sees its own address and the one that it dialled; the
/// endpoint sees the pod's address as the source.
#[test]
fn addresses_look_as_without_weir() {
    let node = Node::new().unwrap();
    let weir = Weir::start(&node).unwrap();
    let [client, server] = node.pods(["client", "server"]).unwrap();
    two_services(&weir, &server);
    weir.enroll(&client, &[]);
    let sock = client.agent().dial(vip(VIP_A)).unwrap();
    let local = sock.local_addr().unwrap();
    assert_eq!(local.ip(), client.ip());
    assert_eq!(sock.peer_addr().unwrap(), vip(VIP_A));
    sock.send("hi\n").unwrap();
    let (said, fault) = sock.recv_to_end().unwrap();
    assert!(said.starts_with(&format!("a {}:", client.ip())), "{said}");
    assert!(fault.is_none(), "{fault:?}");
    // A socket that chose its source address and port keeps both.
    let sock = client.agent().tcp4().unwrap();
    sock.bind(client.at(23_456)).unwrap();
    sock.connect(vip(VIP_B)).unwrap();
    assert_eq!(sock.local_addr().unwrap(), client.at(23_456));
    sock.send("hi\n").unwrap();
    assert!(sock.recv_to_end().unwrap().0.starts_with("b "));
}

/// Runtimes that open one dual-stack socket dial IPv4 as `::ffff:a.b.c.d`.
#[test]
fn a_dual_stack_socket_reaches_a_service_by_its_mapped_address() {
    let node = Node::new().unwrap();
    let weir = Weir::start(&node).unwrap();
    let [client, server] = node.pods(["client", "server"]).unwrap();
    two_services(&weir, &server);
    weir.enroll(&client, &[]);
    let mapped = vip("[::ffff:10.96.0.2]:80");
    let sock = client.agent().tcp6().unwrap();
    sock.connect(mapped).unwrap();
    assert_eq!(sock.peer_addr().unwrap(), mapped);
    assert_eq!(sock.local_addr().unwrap().ip().to_canonical(), client.ip());
    sock.send("hi\n").unwrap();
    let (said, _) = sock.recv_to_end().unwrap();
    assert!(said.starts_with(&format!("b {}:", client.ip())), "{said}");
    // What is denied stays denied in that form.
    let sock = client.agent().tcp6().unwrap();
    let fault = sock.connect(vip("[::ffff:198.51.100.9]:80")).unwrap_err();
    assert!(fault.is(Errno::EPERM), "{fault}");
}

/// A server that speaks first needs no configuration.
#[test]
fn a_server_may_speak_first() {
    let node = Node::new().unwrap();
    let weir = Weir::start(&node).unwrap();
    let [client, server] = node.pods(["client", "server"]).unwrap();
    let text = "220 ready\r\n".to_owned();
    server
        .agent()
        .serve(server.at(25), Service::Banner { text })
        .unwrap();
    weir.enroll(&server, &["app=mail"]);
    weir.enroll(&client, &[]);
    weir.apply(&service("mail", "10.96.0.3", "mail", &["port: 25"]));
    let sock = client.agent().dial(vip("10.96.0.3:25")).unwrap();
    assert_eq!(sock.recv(100).unwrap(), b"220 ready\r\n");
    sock.send("EHLO x\r\n").unwrap();
    assert_eq!(sock.recv(100).unwrap(), b"EHLO x\r\n");
}

/// A socket can dial again after `AF_UNSPEC`: nothing of the first dial is left on it.
#[test]
fn a_socket_that_dials_again_reaches_the_new_destination() {
    let node = Node::new().unwrap();
    let weir = Weir::start(&node).unwrap();
    let [client, server] = node.pods(["client", "server"]).unwrap();
    two_services(&weir, &server);
    weir.enroll(&client, &[]);
    let sock = client.agent().dial(vip(VIP_A)).unwrap();
    sock.unconnect().unwrap();
    sock.connect(vip(VIP_B)).unwrap();
    assert_eq!(sock.peer_addr().unwrap(), vip(VIP_B));
    sock.send("again\n").unwrap();
    assert!(sock.recv_to_end().unwrap().0.starts_with("b "));
    // Proxied first, then direct: the peer's name is the truth.
    let sock = client.agent().dial(vip(VIP_A)).unwrap();
    sock.unconnect().unwrap();
    sock.connect(server.at(8002)).unwrap();
    assert_eq!(sock.peer_addr().unwrap(), server.at(8002));
    let local = sock.local_addr().unwrap();
    sock.send("direct\n").unwrap();
    assert_eq!(sock.recv_to_end().unwrap().0, format!("b {local} direct"));
    no_flow_is_pending(&weir);
}

/// What was sent before the close arrives, although nobody had accepted yet.
#[test]
fn bytes_arrive_though_the_client_closes_before_the_accept() {
    let node = Node::new().unwrap();
    let mut weir = Weir::start(&node).unwrap();
    let [client, server] = node.pods(["client", "server"]).unwrap();
    two_services(&weir, &server);
    let inbox = server.agent().listen(server.at(8009), 16).unwrap();
    weir.apply(&service(
        "inbox",
        "10.96.0.9",
        "server",
        &["port: 80, targetPort: 8009"],
    ));
    weir.enroll(&client, &[]);
    weir.signal(Signal::SIGSTOP).unwrap();
    for n in 0..5 {
        let sock = client.agent().dial(vip("10.96.0.9:80")).unwrap();
        sock.send(format!("letter {n}")).unwrap();
    }
    weir.signal(Signal::SIGCONT).unwrap();
    let letters: BTreeSet<String> = (0..5)
        .map(|_| inbox.accept().unwrap().0.recv_to_end().unwrap().0)
        .collect();
    let sent: BTreeSet<String> = (0..5).map(|n| format!("letter {n}")).collect();
    assert_eq!(letters, sent);
    assert_eq!(weir.metrics().count("weir_flow_misses_total", &[]), 0);
}

/// A reset connection and a new one from the same source port, both before the
/// accept: each is known by its own destination.
#[test]
fn a_reused_source_port_carries_no_old_destination() {
    let node = Node::new().unwrap();
    let mut weir = Weir::start(&node).unwrap();
    let [client, server] = node.pods(["client", "server"]).unwrap();
    two_services(&weir, &server);
    weir.enroll(&client, &[]);
    let from = client.at(21_000);
    let dial = |to| {
        let sock = client.agent().tcp4().unwrap();
        sock.set(SockOption::ReuseAddr).unwrap();
        sock.bind(from).unwrap();
        sock.connect(vip(to)).unwrap();
        sock
    };
    for round in 0..20 {
        // Once while nobody accepts, then at full speed.
        let stopped = round < 3;
        if stopped {
            weir.signal(Signal::SIGSTOP).unwrap();
        }
        let first = dial(VIP_A);
        first.send("first\n").unwrap();
        first.abort().unwrap();
        let second = dial(VIP_B);
        second.send(format!("second {round}\n")).unwrap();
        if stopped {
            weir.signal(Signal::SIGCONT).unwrap();
        }
        let (said, fault) = second.recv_to_end().unwrap();
        assert!(
            said.starts_with("b ") && said.ends_with(&format!("second {round}")),
            "{said} {fault:?}"
        );
        second.abort().unwrap();
    }
    no_flow_is_pending(&weir);
}

/// A pod that calls its own service reaches itself, and an endpoint that is dead is skipped.
#[test]
fn a_pod_can_call_itself_through_its_service() {
    let node = Node::new().unwrap();
    let weir = Weir::start(&node).unwrap();
    let [server] = node.pods(["server"]).unwrap();
    two_services(&weir, &server);
    let sock = server.agent().dial(vip(VIP_A)).unwrap();
    sock.send("me\n").unwrap();
    let (said, _) = sock.recv_to_end().unwrap();
    assert!(
        said.starts_with(&format!("a {}:", server.ip())) && said.ends_with(" me"),
        "{said}"
    );
}

/// A machine outside that answers at port 7000.
fn outside(node: &Node) -> Pod {
    let outside = node.outside("outside").unwrap();
    let name = "outside".to_owned();
    let what = Service::Whoami { name };
    outside.agent().serve(outside.at(7000), what).unwrap();
    outside
}

/// What it says to a pod.
fn answer(pod: &Pod, outside: &Pod) -> Result<String, Fault> {
    let sock = pod.agent().dial(outside.at(7000))?;
    sock.send("x\n")?;
    sock.recv_to_end().map(|(said, _)| said)
}

/// Who is not enrolled is not touched.
#[test]
fn an_unenrolled_pod_is_untouched() {
    let node = Node::new().unwrap();
    let weir = Weir::start(&node).unwrap();
    let [free, other] = node.pods(["free", "other"]).unwrap();
    let outside = outside(&node);
    let answers = |pod: &Pod| answer(pod, &outside);
    assert!(answers(&free).unwrap().starts_with("outside "));
    weir.enroll(&other, &[]);
    assert!(answers(&free).unwrap().starts_with("outside "));
    assert!(answers(&other).unwrap_err().is(Errno::EPERM));
    weir.ok(&["unenroll", "other"]);
    // What was denied a moment ago is told by the name that it had then.
    weir.await_log(&["\"denial\"", "default/other"]);
    assert!(answers(&other).unwrap().starts_with("outside "));
    let metrics = weir.metrics();
    assert_eq!(metrics.count("weir_denials_total", &[]), 1);
    assert_eq!(
        metrics.count("weir_kernel_connects_total", &[("outcome", "denied")]),
        1
    );
}

/// Who shares the bit of an enrolled namespace is told from it by the table. The bit
/// is put right by a new daemon, and goes with the enrolment.
#[test]
fn a_shared_bit_enrols_nobody() {
    let node = Node::new().unwrap();
    let mut weir = Weir::start(&node).unwrap();
    let [free, other] = node.pods(["free", "other"]).unwrap();
    let outside = outside(&node);
    let pin = |name: &str| MapData::from_pin(node.bpffs().join("weir/maps").join(name)).unwrap();
    let mut bits: Array<_, Enrolled> = Map::Array(pin("ENROLLED")).try_into().unwrap();
    let workloads: HashMap<_, NetnsCookie, Workload> =
        Map::HashMap(pin("WORKLOADS")).try_into().unwrap();
    let every = || (0..4096).map(NetnsCookie);
    let held = |bits: &Array<_, Enrolled>| {
        let enrolled = bits.get(&0, 0).unwrap();
        every().filter(|netns| enrolled.may_hold(*netns)).count()
    };
    assert_eq!(held(&bits), 0);
    weir.enroll(&other, &[]);
    let NetnsCookie(netns) = workloads.keys().next().unwrap().unwrap();
    assert_eq!(held(&bits), 1);
    for cookie in [netns, netns + 4096] {
        assert!(bits.get(&0, 0).unwrap().may_hold(NetnsCookie(cookie)));
    }
    // From here on every namespace of the machine shares its bit with an enrolled one.
    bits.set(0, every().collect::<Enrolled>(), 0).unwrap();
    assert!(answer(&free, &outside).unwrap().starts_with("outside "));
    assert!(answer(&other, &outside).unwrap_err().is(Errno::EPERM));
    let direct = [("outcome", "direct")];
    let counted = weir.metrics().count("weir_kernel_connects_total", &direct);
    assert_eq!(counted, 0, "what is not enrolled is not even counted");
    weir.stop().unwrap();
    weir.launch().unwrap();
    assert_eq!(held(&bits), 1);
    assert!(answer(&other, &outside).unwrap_err().is(Errno::EPERM));
    weir.ok(&["unenroll", "other"]);
    assert_eq!(held(&bits), 0);
    assert!(answer(&other, &outside).unwrap().starts_with("outside "));
}
