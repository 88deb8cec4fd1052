//! A daemon that hangs, and one that dies while it starts.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use testbed::agent::HttpRequest;
use testbed::agent::proto::Service;
use testbed::docs::{egress_rule, mesh_config, service};
use testbed::{Fault, Node, Pod, Weir, eventually};

/// How often a start is interrupted.
const STARTS: u32 = 20;

fn vip() -> SocketAddr {
    "10.96.0.1:80".parse().unwrap()
}

/// A client, a service, and a machine outside whose port 80 is open for HTTP, 81 for nobody.
fn mesh(node: &Node) -> (Weir<'_>, Pod, Pod, Pod) {
    let weir = Weir::start(node).unwrap();
    let [client, server] = node.pods(["client", "server"]).unwrap();
    let outside = node.outside("outside").unwrap();
    for (pod, port) in [(&server, 8080), (&outside, 80), (&outside, 81)] {
        let what = Service::Http {
            pod: pod.name().into(),
            version: "v1".into(),
        };
        pod.agent().serve(pod.at(port), what).unwrap();
    }
    weir.enroll(&server, &["app=web"]);
    weir.enroll(&client, &["app=c"]);
    weir.apply(&service(
        "web",
        "10.96.0.1",
        "web",
        &["port: 80, targetPort: 8080"],
    ));
    weir.apply(&egress_rule("outside", outside.ip(), &[(80, "http")], ""));
    (weir, client, server, outside)
}

fn get(client: &Pod, addr: SocketAddr) -> Result<u16, Fault> {
    client
        .agent()
        .http(addr, HttpRequest::get("web", "/"))
        .map(|reply| reply.status)
}

fn refused(result: Result<u16, Fault>, errno: Errno) {
    let fault = result.expect_err("the connect is refused");
    assert!(fault.is(errno), "{fault}");
}

/// Refused, after a moment in which what the dead daemon left behind goes away:
/// a child of its that has not become another program yet holds its listeners.
fn soon_refused(client: &Pod, addr: SocketAddr) {
    eventually("a refusal", Duration::from_secs(2), || {
        let fault = get(client, addr).expect_err("nobody can answer");
        if fault.is(Errno::ECONNREFUSED) {
            return Ok(());
        }
        assert!(fault.is(Errno::ECONNRESET), "{fault}");
        Err(fault.to_string())
    });
}

fn outcomes(weir: &Weir<'_>, outcome: &str) -> u64 {
    weir.metrics()
        .count("weir_kernel_connects_total", &[("outcome", outcome)])
}

fn recovers(client: &Pod) {
    eventually("traffic again", Duration::from_secs(5), || {
        get(client, vip()).map_err(|fault| fault.to_string())
    });
}

/// Stopped in its tracks: within a second nobody is sent to it any more.
#[test]
fn a_hung_daemon_is_as_good_as_none() {
    let node = Node::new().unwrap();
    let (mut weir, client, server, outside) = mesh(&node);
    assert_eq!(get(&client, vip()).unwrap(), 200);
    weir.signal(Signal::SIGSTOP).unwrap();
    std::thread::sleep(Duration::from_millis(1_100));
    let start = Instant::now();
    refused(get(&client, vip()), Errno::ECONNREFUSED);
    refused(get(&client, outside.at(80)), Errno::ECONNREFUSED);
    assert!(start.elapsed() < Duration::from_millis(500), "at once");
    refused(get(&client, outside.at(81)), Errno::EPERM);
    assert_eq!(get(&client, server.at(8080)).unwrap(), 200);
    weir.signal(Signal::SIGCONT).unwrap();
    recovers(&client);
    // Those that came before the first beat are counted too.
    assert!(outcomes(&weir, "proxy_hung_closed") >= 2);
    assert_eq!(outcomes(&weir, "proxy_down_closed"), 0);

    weir.apply(&mesh_config("onProxyDown: open"));
    weir.signal(Signal::SIGSTOP).unwrap();
    std::thread::sleep(Duration::from_millis(1_100));
    assert_eq!(get(&client, outside.at(80)).unwrap(), 200);
    refused(get(&client, outside.at(81)), Errno::EPERM);
    weir.signal(Signal::SIGCONT).unwrap();
    // An answer takes a worker, and so does a beat.
    assert_eq!(outcomes(&weir, "proxy_hung_open"), 1);
    std::thread::sleep(Duration::from_millis(500));
    recovers(&client);
}

/// Killed at any moment of a start: what was denied stays denied, what needs
/// the proxy is refused or served, and the next start finds nothing by half.
#[test]
fn a_start_may_be_cut_off_anywhere() {
    let node = Node::new().unwrap();
    let (mut weir, client, server, outside) = mesh(&node);
    weir.stop().unwrap();
    let whole = Instant::now();
    weir.launch().unwrap();
    let whole = whole.elapsed();
    weir.kill9().unwrap();
    for turn in 0..STARTS {
        // Moments spread over all of a start, and some of what follows.
        let moment = whole * turn * 6 / (STARTS * 5);
        weir.launch_and_kill(moment).unwrap();
        refused(get(&client, outside.at(81)), Errno::EPERM);
        soon_refused(&client, vip());
        soon_refused(&client, outside.at(80));
        assert_eq!(get(&client, server.at(8080)).unwrap(), 200, "{moment:?}");
    }
    weir.launch().unwrap();
    assert_eq!(get(&client, vip()).unwrap(), 200);
    assert_eq!(get(&client, outside.at(80)).unwrap(), 200);
    refused(get(&client, outside.at(81)), Errno::EPERM);
}
