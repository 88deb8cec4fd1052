//! weir's own connections to endpoints: which are used again, and how they are set.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use testbed::agent::HttpRequest;
use testbed::agent::proto::{Service, SockOption};
use testbed::docs::{egress_rule, service};
use testbed::{Node, Pod, Sock, Weir, WeirOptions, eventually};

fn vip(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 96, 0, last], 80))
}

/// A client and a service `web` of HTTP at port 8080 of the server.
fn mesh(node: &Node) -> (Weir<'_>, Pod, Pod) {
    // One worker: upstream connections are kept per worker.
    let options = WeirOptions {
        args: vec!["--workers".to_owned(), "1".to_owned()],
        ..WeirOptions::default()
    };
    let weir = Weir::start_with(node, options).unwrap();
    let [client, server] = node.pods(["client", "server"]).unwrap();
    weir.enroll(&server, &["app=web"]);
    weir.enroll(&client, &[]);
    let ports = ["port: 80, targetPort: 8080, appProtocol: http"];
    weir.apply(&service("web", vip(1).ip(), "web", &ports));
    (weir, client, server)
}

/// Reads until what came ends with `end`.
fn read_until(sock: &Sock<'_>, end: &str) -> String {
    let mut said = String::new();
    while !said.ends_with(end) {
        let more = sock.recv(4_096).unwrap();
        assert!(!more.is_empty(), "{said} ends before {end}");
        said += &String::from_utf8(more).unwrap();
    }
    said
}

/// Sends a request to the service over a new connection: the client's socket, the
/// endpoint's, and the head as it got it.
fn asked<'a>(client: &'a Pod, listener: &Sock<'a>, request: &str) -> (Sock<'a>, Sock<'a>, String) {
    let near = client.agent().dial(vip(1)).unwrap();
    near.send(request).unwrap();
    let (far, _) = listener.accept().unwrap();
    let head = read_until(&far, "\r\n\r\n");
    (near, far, head)
}

fn answer(sock: &Sock<'_>, body: &str) {
    let length = body.len();
    sock.send(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"
    ))
    .unwrap();
}

/// An endpoint may answer before it has the whole request. Until it has, its
/// connection is nobody else's: the next request does not wait behind an upload.
#[test]
fn a_connection_that_still_uploads_is_passed_over() {
    const GET: &str = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";
    let node = Node::new().unwrap();
    let (_weir, client, server) = mesh(&node);
    let listener = server.agent().listen(server.at(8080), 16).unwrap();
    let upload = client.agent().dial(vip(1)).unwrap();
    upload
        .send("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 10\r\n\r\n12345")
        .unwrap();
    let (first, _) = listener.accept().unwrap();
    read_until(&first, "12345");
    answer(&first, "early");
    read_until(&upload, "early");

    let other = client.agent().dial(vip(1)).unwrap();
    other.send(GET).unwrap();
    let (second, _) = listener.accept().expect("a connection of its own");
    assert!(read_until(&second, "\r\n\r\n").starts_with("GET / "));
    answer(&second, "at once");
    read_until(&other, "at once");

    // The upload goes on where it was, and after it the connection is free.
    upload.send("67890").unwrap();
    assert_eq!(read_until(&first, "67890"), "67890");
    drop(second);
    std::thread::sleep(Duration::from_millis(200));
    other.send(GET).unwrap();
    assert!(read_until(&first, "\r\n\r\n").starts_with("GET / "));
    answer(&first, "again");
    read_until(&other, "again");
}

/// What a command says inside a pod's network namespace.
fn said(pod: &Pod, command: &[&str]) -> String {
    let mut inside = Command::new("ip");
    inside.args(["netns", "exec", pod.netns().name()]);
    let output = inside.args(command).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The congestion control that sockets of the pod get: one that is not weir's.
fn choice(pod: &Pod) -> String {
    const CHOSEN: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
    const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";
    let chosen = said(pod, &["cat", CHOSEN]).trim().to_owned();
    if chosen != "reno" {
        return chosen;
    }
    let allowed = said(pod, &["cat", ALLOWED]);
    let other = allowed
        .split_ascii_whitespace()
        .find(|name| *name != "reno");
    let other = other.expect("with reno alone nothing can be told apart");
    let path = "ipv4/tcp_congestion_control";
    pod.netns().sysctl(path, other).unwrap();
    other.to_owned()
}

/// How many of the pod's connections to `to` there are, and how many have this
/// congestion control.
fn congestion(pod: &Pod, to: &Pod, wanted: &str) -> (usize, usize) {
    let to = to.ip().to_string();
    let list = ["ss", "-tinHO", "state", "established", "dst", &to];
    let listed = said(pod, &list);
    let has = |line: &&str| line.split_ascii_whitespace().any(|word| word == wanted);
    (listed.lines().count(), listed.lines().filter(has).count())
}

/// Nothing paces what stays on the node; what leaves it keeps the node's choice,
/// to pods of other nodes and to somebody outside.
#[test]
fn congestion_control_is_the_nodes_own_beyond_it() {
    let node = Node::new().unwrap();
    let (weir, client, server) = mesh(&node);
    let [far, outside] = ["far", "outside"].map(|name| node.outside(name).unwrap());
    for (pod, port) in [(&server, 8080), (&far, 8080), (&outside, 80)] {
        let what = Service::Http {
            pod: pod.name().to_owned(),
            version: "v1".to_owned(),
        };
        pod.agent().serve(pod.at(port), what).unwrap();
    }
    let choice = choice(&client);
    weir.apply(&format!(
        "---\napiVersion: weir.dev/v1\nkind: Workload\nmetadata: {{name: far, labels: {{app: far}}}}\nspec: {{addresses: [{}]}}\n",
        far.ip()
    ));
    let ports = ["port: 80, targetPort: 8080, appProtocol: http"];
    weir.apply(&service("far", vip(2).ip(), "far", &ports));
    weir.apply(&egress_rule("out", outside.ip(), &[(80, "http")], ""));
    for (to, pod, wanted) in [
        (vip(1), &server, "reno"),
        (vip(2), &far, &*choice),
        (outside.at(80), &outside, &*choice),
    ] {
        let reply = client.agent().http(to, HttpRequest::get("web", "/"));
        assert_eq!(reply.unwrap().status, 200, "{to}");
        // Kept for the next request.
        assert_eq!(congestion(&client, pod, wanted), (1, 1), "{to}: {wanted}");
    }
}

/// An endpoint may be gone without a word: weir asks it when it has been silent.
#[test]
fn a_silent_endpoint_is_asked_whether_it_is_there() {
    let node = Node::new().unwrap();
    let (_weir, client, server) = mesh(&node);
    let listener = server.agent().listen(server.at(8080), 16).unwrap();
    let (sock, far, _) = asked(&client, &listener, "GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    let to = server.ip().to_string();
    let list = ["ss", "-tonHO", "state", "established", "dst", &to];
    // Once the request is acknowledged.
    eventually("weir would ask", Duration::from_secs(5), || {
        let listed = said(&client, &list);
        let timer = listed.split_once("timer:(keepalive,");
        let left = timer.and_then(|(_, timer)| timer.split_once("sec")?.0.parse().ok());
        match left {
            Some(0..=60) => Ok(()),
            _ => Err(listed),
        }
    });
    answer(&far, "late");
    read_until(&sock, "late");
}

/// A client may close its half and wait for the answer. One that is gone waits for
/// nothing: the endpoint is told, though it never answers.
#[test]
fn a_client_that_is_gone_is_let_go_of() {
    let node = Node::new().unwrap();
    let (_weir, client, server) = mesh(&node);
    let listener = server.agent().listen(server.at(8080), 16).unwrap();
    let waits = "GET /waits HTTP/1.1\r\nHost: web\r\n\r\n";
    let (waiting, its_end, _) = asked(&client, &listener, waits);
    waiting.shutdown_write().unwrap();
    let goes = "GET /goes HTTP/1.1\r\nHost: web\r\n\r\n";
    let (gone, left, _) = asked(&client, &listener, goes);
    left.set(SockOption::Timeout(30_000)).unwrap();
    gone.abort().unwrap();
    let (said, fault) = left.recv_to_end().unwrap();
    let is_timeout = fault.as_ref().is_some_and(|fault| fault.is(Errno::EAGAIN));
    assert!(said.is_empty() && !is_timeout, "{said} {fault:?}");
    answer(&its_end, "late");
    read_until(&waiting, "late");
}

/// An endpoint may answer before it has the whole request, and hang up over what it
/// did not read. The client gets that answer, though it goes on sending.
#[test]
fn an_answer_that_comes_early_is_not_lost() {
    const REFUSED: &str =
        "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig";
    let node = Node::new().unwrap();
    let (_weir, client, server) = mesh(&node);
    let listener = server.agent().listen(server.at(8080), 16).unwrap();
    let (some, rest) = ("x".repeat(100_000), "x".repeat(900_000));
    for _ in 0..20 {
        let upload = client.agent().dial(vip(1)).unwrap();
        let head = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 1000000\r\n\r\n";
        upload.send(format!("{head}{some}")).unwrap();
        let (far, _) = listener.accept().unwrap();
        assert!(!far.recv(100).unwrap().is_empty());
        far.send(REFUSED).unwrap();
        drop(far);
        upload.send(&rest).unwrap();
        let said = read_until(&upload, "big");
        assert!(said.starts_with("HTTP/1.1 413 "), "{said}");
    }
}

/// Asks to leave HTTP.
const LEAVE: &str =
    "GET / HTTP/1.1\r\nHost: web\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Nothing more comes, and it ends in order.
fn ends(sock: &Sock<'_>) -> bool {
    let (said, fault) = sock.recv_to_end().unwrap();
    said.is_empty() && fault.is_none()
}

/// What left HTTP is bytes to its end, as any connection: a half that ends is one
/// half, a reset is a reset, and all of it is counted.
#[test]
fn what_left_http_is_a_connection_of_bytes() {
    const AGREED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello";
    let node = Node::new().unwrap();
    let (weir, client, server) = mesh(&node);
    let listener = server.agent().listen(server.at(8080), 16).unwrap();
    let left = |count| {
        let (near, far, _) = asked(&client, &listener, LEAVE);
        far.send(AGREED).unwrap();
        assert!(read_until(&near, "hello").starts_with("HTTP/1.1 101 "));
        near.send("ping").unwrap();
        assert_eq!(read_until(&far, "ping"), "ping");
        let source = [("source", "default/client")];
        let active = weir.metrics().count("weir_connections_active", &source);
        assert_eq!(active, count);
        (near, far)
    };
    let (near, far) = left(1);
    near.shutdown_write().unwrap();
    assert!(ends(&far));
    far.send("late").unwrap();
    assert_eq!(read_until(&near, "late"), "late");
    drop(far);
    assert!(ends(&near));
    eventually("both are counted", Duration::from_secs(5), || {
        let metrics = weir.metrics();
        let bytes = |direction| metrics.count("weir_tcp_bytes_total", &[("direction", direction)]);
        let counted = (bytes("sent"), bytes("received"));
        (counted == (4, 9))
            .then_some(())
            .ok_or(format!("{counted:?}"))
    });
    let (near, far) = left(1);
    near.abort().unwrap();
    let (_, fault) = far.recv_to_end().unwrap();
    assert!(fault.is_some_and(|fault| fault.is(Errno::ECONNRESET)));
    let switched = [("code", "101")];
    assert_eq!(weir.metrics().count("weir_requests_total", &switched), 2);
}

/// A request that asks to leave HTTP is no reason to meet a dead endpoint.
#[test]
fn an_upgrade_finds_the_endpoint_that_lives() {
    let node = Node::new().unwrap();
    let (weir, client, server) = mesh(&node);
    let dead = node.pod("dead").unwrap();
    weir.enroll(&dead, &["app=web"]);
    let listener = server.agent().listen(server.at(8080), 16).unwrap();
    for _ in 0..4 {
        let (sock, far, head) = asked(&client, &listener, LEAVE);
        assert!(head.contains("websocket"), "{head}");
        answer(&far, "not here");
        read_until(&sock, "not here");
    }
}

/// Whatever the header says: policy and the endpoint see the host of the target.
#[test]
fn the_endpoint_sees_the_host_that_policy_sees() {
    let node = Node::new().unwrap();
    let (_weir, client, server) = mesh(&node);
    let listener = server.agent().listen(server.at(8080), 16).unwrap();
    let request = "GET http://other.test/x HTTP/1.1\r\nHost: web\r\n\r\n";
    let (sock, far, head) = asked(&client, &listener, request);
    assert!(head.starts_with("GET /x HTTP/1.1\r\n"), "{head}");
    assert!(
        head.contains("host: other.test\r\n") && !head.contains("web"),
        "{head}"
    );
    answer(&far, "seen");
    read_until(&sock, "seen");
    // HTTP/1.0 need not name any.
    let sock = client.agent().dial(vip(1)).unwrap();
    sock.send("GET / HTTP/1.0\r\n\r\n").unwrap();
    let head = read_until(&far, "\r\n\r\n");
    assert!(head.contains("host: 10.96.0.1:80\r\n"), "{head}");
    answer(&far, "old");
    assert!(sock.recv_to_end().unwrap().0.ends_with("old"));
    let sock = client.agent().dial(vip(1)).unwrap();
    sock.send("GET / HTTP/1.1\r\nHost: web\r\nHost: other.test\r\n\r\n")
        .unwrap();
    let (refused, _) = sock.recv_to_end().unwrap();
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    assert!(refused.contains("ambiguous-host"), "{refused}");
}
