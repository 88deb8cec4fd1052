//! Isolation: what a pod cannot do to weir, to another pod, or to be somebody else.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use testbed::agent::proto::{Service, SockOption};
use testbed::docs::service;
use testbed::{Node, Pod, Weir, eventually};

const VIP: &str = "10.96.0.1:80";

fn vip() -> SocketAddr {
    VIP.parse().unwrap()
}

/// A client and a server behind a service that is passed through as TCP.
fn mesh(node: &Node) -> (Weir<'_>, Pod, Pod) {
    let weir = Weir::start(node).unwrap();
    let [client, server] = node.pods(["client", "server"]).unwrap();
    server
        .agent()
        .serve(server.at(8000), Service::Whoami { name: "s".into() })
        .unwrap();
    weir.enroll(&server, &["app=s"]);
    weir.enroll(&client, &["app=c"]);
    weir.apply(&service(
        "s",
        "10.96.0.1",
        "s",
        &["port: 80, targetPort: 8000"],
    ));
    (weir, client, server)
}

/// Where weir listens in a pod.
fn listener(weir: &Weir<'_>, pod: &Pod) -> SocketAddr {
    let status = weir.json(&["status"]);
    let listeners = status["dataplane"]["listeners"].as_array().unwrap();
    let of_pod = |address: &SocketAddr| address.ip() == pod.ip();
    let mut addresses = listeners
        .iter()
        .map(|listener| listener["address"].as_str().unwrap().parse().unwrap());
    addresses
        .find(of_pod)
        .unwrap_or_else(|| panic!("no listener for {}: {status}", pod.name()))
}

fn pending(weir: &Weir<'_>, pod: &Pod) -> u64 {
    let workloads = weir.json(&["workloads"]);
    let items = workloads["items"].as_array().unwrap();
    let item = items
        .iter()
        .find(|item| item["name"] == pod.name())
        .unwrap();
    item["pendingFlows"].as_u64().unwrap()
}

/// Nobody can bind weir's port, join its listener, or dial it.
#[test]
fn a_pod_cannot_bind_join_or_dial_the_listener() {
    let node = Node::new().unwrap();
    let (weir, client, _server) = mesh(&node);
    let at = listener(&weir, &client);
    let any = SocketAddr::new(IpAddr::from([0; 4]), at.port());
    for addr in [at, any] {
        for reuse_port in [false, true] {
            let sock = client.agent().tcp4().unwrap();
            sock.set(SockOption::ReuseAddr).unwrap();
            if reuse_port {
                sock.set(SockOption::ReusePort).unwrap();
            }
            let fault = sock.bind(addr).unwrap_err();
            assert!(
                fault.is(Errno::EPERM),
                "bind {addr}, SO_REUSEPORT {reuse_port}: {fault}"
            );
        }
    }
    let sock = client.agent().tcp6().unwrap();
    sock.set(SockOption::ReusePort).unwrap();
    let dual = SocketAddr::new(IpAddr::from([0_u16; 8]), at.port());
    let fault = sock.bind(dual).unwrap_err();
    assert!(fault.is(Errno::EPERM), "bind {dual}: {fault}");
    let local = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), at.port());
    for addr in [at, any, local] {
        let fault = client
            .agent()
            .dial(addr)
            .err()
            .expect("the listener cannot be dialled");
        assert!(fault.is(Errno::EPERM), "dial {addr}: {fault}");
    }
    weir.await_log(&["denial", "weir-listener"]);
    // The service still works.
    let sock = client.agent().dial(vip()).unwrap();
    sock.send("x\n").unwrap();
    assert!(sock.recv_to_end().unwrap().0.starts_with("s "));
}

/// Whoever comes to the listener without a flow gets RST, and is counted; who
/// comes from another pod does not even get that far.
#[test]
fn a_stranger_on_the_listener_gets_nothing() {
    let node = Node::new().unwrap();
    let (weir, client, _server) = mesh(&node);
    let free = node.pod("free").unwrap();
    let at = listener(&weir, &client);
    let sock = free.agent().tcp4().unwrap();
    sock.set(SockOption::Timeout(1000)).unwrap();
    let fault = sock
        .connect(at)
        .expect_err("another pod reaches the listener");
    assert!(
        fault.is(Errno::EINPROGRESS) || fault.is(Errno::ECONNREFUSED),
        "{fault}"
    );
    // In the pod's namespace, but no process of the pod: nobody decided on its connect.
    let intruder = node.intruder(&client).unwrap();
    let ended = intruder.dial(at).and_then(|sock| {
        sock.send("GET / HTTP/1.1\r\nHost: s\r\n\r\n")?;
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
    let metrics = weir.metrics();
    let turned_away = metrics.count("weir_rejected_connections_total", &[("reason", "no-flow")]);
    assert_eq!(
        turned_away,
        1,
        "{}",
        metrics.show("weir_rejected_connections_total")
    );
    assert_eq!(metrics.count("weir_tcp_connections_total", &[]), 0);
}

/// A namespace that a pod makes for itself is none that weir knows: closed.
#[test]
fn a_namespace_made_inside_a_pod_is_denied() {
    let node = Node::new().unwrap();
    let (weir, client, _server) = mesh(&node);
    let agent = client.new_agent().unwrap();
    drop(agent.dial(vip()).unwrap());
    agent.unshare_net().unwrap();
    for addr in [VIP, "198.51.100.1:80", "10.244.1.1:80"] {
        let fault = agent
            .dial(addr.parse().unwrap())
            .err()
            .expect("it is closed");
        assert!(fault.is(Errno::EPERM), "{addr}: {fault}");
    }
    let fault = agent
        .tcp6()
        .unwrap()
        .connect("[2001:db8::1]:80".parse().unwrap())
        .unwrap_err();
    assert!(fault.is(Errno::EPERM), "{fault}");
    weir.await_log(&["denial", "unknown-netns"]);
}

/// A socket that is bound to a device takes the listener on that device, or is denied.
#[test]
fn a_socket_bound_to_a_device_without_listener_is_denied() {
    let node = Node::new().unwrap();
    let (weir, client, _server) = mesh(&node);
    let bound = |device: &str| {
        let sock = client.agent().tcp4().unwrap();
        sock.set(SockOption::BindToDevice(device.to_owned()))
            .unwrap();
        sock.connect(vip())?;
        sock.send("x\n")?;
        sock.recv_to_end().map(|(said, _)| said)
    };
    assert!(
        bound("eth0")
            .unwrap()
            .starts_with(&format!("s {}:", client.ip()))
    );
    client
        .netns()
        .ip(["link add spare type bridge", "link set spare up"])
        .unwrap();
    let fault = bound("spare").unwrap_err();
    assert!(fault.is(Errno::EPERM), "{fault}");
    weir.await_log(&["denial", "bound-device"]);
}

/// What cannot be captured rightly is not enrolled.
#[test]
fn the_nodes_namespace_and_one_without_loopback_are_not_enrolled() {
    let node = Node::new().unwrap();
    let weir = Weir::start(&node).unwrap();
    let pod = node.pod("pod").unwrap();
    let cgroup = pod.cgroup().display().to_string();
    let own = node.netns().path().display().to_string();
    let output = weir
        .cli(&[
            "enroll",
            "node",
            "--netns",
            &own,
            "--cgroup",
            &cgroup,
            "--address",
            "10.244.1.1",
        ])
        .unwrap();
    assert_ne!(output.status, 0, "{output:?}");
    assert!(output.stderr.contains("node"), "{output:?}");
    pod.netns().ip(["link set lo down"]).unwrap();
    let output = weir.try_enroll(&pod, &[]);
    assert_ne!(output.status, 0, "{output:?}");
    assert!(output.stderr.contains("lo"), "{output:?}");
    pod.netns().ip(["link set lo up"]).unwrap();
    weir.enroll(&pod, &[]);
}

/// SYNs that a full backlog drops are pending flows; they end with their sockets.
#[test]
fn connects_into_a_full_backlog_leave_no_entry() {
    let node = Node::new().unwrap();
    let mut weir = Weir::start(&node).unwrap();
    let client = node.pod("client").unwrap();
    // Before the listener is made: its backlog is cut to this.
    client.netns().sysctl("core/somaxconn", "4").unwrap();
    weir.enroll(&client, &[]);
    weir.apply(&service("s", "10.96.0.1", "s", &["port: 80"]));
    weir.enroll(&node.pod("server").unwrap(), &["app=s"]);
    weir.signal(Signal::SIGSTOP).unwrap();
    let outcomes = client.agent().flood(vip(), 40).unwrap();
    assert_eq!(outcomes.get("EINPROGRESS"), Some(&40), "{outcomes:?}");
    std::thread::sleep(Duration::from_millis(300));
    client.agent().close_flood().unwrap();
    weir.signal(Signal::SIGCONT).unwrap();
    eventually(
        "no flow is pending",
        Duration::from_secs(5),
        || match pending(&weir, &client) {
            0 => Ok(()),
            more => Err(format!("{more} are")),
        },
    );
    assert_eq!(weir.metrics().count("weir_flow_misses_total", &[]), 0);
}

/// Leaves the daemon stopped and `pod` at its quota of pending flows: how many
/// connects were refused.
fn at_its_quota(weir: &mut Weir<'_>, pod: &Pod) -> u64 {
    /// Well below what makes a stopped daemon a hung one, on a slow machine too.
    const HELD: Duration = Duration::from_millis(300);
    let (mut refused, mut outcomes) = (0, Vec::new());
    weir.signal(Signal::SIGSTOP).unwrap();
    let mut stopped = Instant::now();
    while refused < 500 {
        assert!(outcomes.len() < 400, "the quota is 4096: {outcomes:?}");
        if stopped.elapsed() > HELD {
            // Long enough for a beat.
            weir.signal(Signal::SIGCONT).unwrap();
            std::thread::sleep(Duration::from_millis(250));
            weir.signal(Signal::SIGSTOP).unwrap();
            stopped = Instant::now();
        }
        let more = pod.agent().flood(vip(), 250).unwrap();
        refused += more.get("ECONNREFUSED").copied().unwrap_or_default();
        outcomes.push(more);
    }
    refused
}

/// At its quota of pending flows a pod is refused; another pod is not.
#[test]
fn the_quota_of_one_pod_does_not_touch_another() {
    let node = Node::new().unwrap();
    let mut weir = Weir::start(&node).unwrap();
    let [greedy, modest, server] = node.pods(["greedy", "modest", "server"]).unwrap();
    server
        .agent()
        .serve(server.at(8000), Service::Whoami { name: "s".into() })
        .unwrap();
    greedy.netns().sysctl("core/somaxconn", "4").unwrap();
    // With a cookie a client would hold for established what the full backlog has
    // dropped, and on a slow machine repeat its FIN for a minute after its end.
    greedy.netns().sysctl("ipv4/tcp_syncookies", "0").unwrap();
    for (pod, label) in [(&greedy, "app=c"), (&modest, "app=c"), (&server, "app=s")] {
        weir.enroll(pod, &[label]);
    }
    weir.apply(&service(
        "s",
        "10.96.0.1",
        "s",
        &["port: 80, targetPort: 8000"],
    ));
    let refused = at_its_quota(&mut weir, &greedy);
    let sock = modest.agent().dial(vip()).unwrap();
    sock.send("x\n").unwrap();
    weir.signal(Signal::SIGCONT).unwrap();
    assert!(sock.recv_to_end().unwrap().0.starts_with("s "));
    let metrics = weir.metrics();
    let counted = metrics.count(
        "weir_kernel_connects_total",
        &[("outcome", "quota_exceeded")],
    );
    assert_eq!(counted, refused);
    greedy.agent().close_flood().unwrap();
    eventually(
        "the quota is free again",
        Duration::from_secs(5),
        || match pending(&weir, &greedy) {
            0 => Ok(()),
            more => Err(format!("{more} flows are pending")),
        },
    );
    drop(greedy.agent().dial(vip()).unwrap());
}

/// The admin socket is for root; a pod's user gets nowhere, and nothing of weir
/// can be reached over a pod's network.
#[test]
fn nobody_but_root_is_on_the_admin_socket() {
    let node = Node::new().unwrap();
    let (weir, client, _server) = mesh(&node);
    let path = weir.admin_socket().display().to_string();
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(weir.admin_socket())
            .unwrap()
            .permissions(),
    );
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
    let nobody = client.new_agent().unwrap();
    let fault = nobody.connect_unix(&path, 65_534).unwrap_err();
    assert!(fault.is(Errno::EACCES), "{fault}");
    client.new_agent().unwrap().connect_unix(&path, 0).unwrap();
    // The metrics are for the node alone.
    for addr in ["10.244.1.1:15090", "127.0.0.1:15090"] {
        let sock = client.agent().tcp4().unwrap();
        sock.set(SockOption::Timeout(1000)).unwrap();
        assert!(
            sock.connect(addr.parse().unwrap()).is_err(),
            "{addr} can be reached"
        );
    }
}
