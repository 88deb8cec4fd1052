//! A daemon that hangs, whole or in part, and one that dies while it starts.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use testbed::agent::proto::Service;
use testbed::docs::{mesh_config, service};
use testbed::mesh::{get, guard_more, guarded, refused, vip, vip6};
use testbed::{Fault, Node, Pod, Sock, Weir, eventually};

/// How often a start is interrupted.
const STARTS: u32 = 20;

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
    let (mut weir, client, server, outside) = guarded(&node);
    guard_more(&weir, &client, &outside);
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
    for at in [Pod::at, Pod::at6] {
        assert_eq!(get(&client, at(&outside, 80)).unwrap(), 200);
        refused(get(&client, at(&outside, 81)), Errno::EPERM);
        // What a name opens is nobody's to look at.
        refused(get(&client, at(&outside, 82)), Errno::ECONNREFUSED);
    }
    weir.signal(Signal::SIGCONT).unwrap();
    // An answer takes a worker, and so does a beat.
    assert_eq!(outcomes(&weir, "proxy_hung_open"), 2);
    std::thread::sleep(Duration::from_millis(500));
    recovers(&client);
}

/// A thread of the daemon that is held in its tracks until this is dropped. Only the
/// thread that made it may let go of it.
struct Held(nix::unistd::Pid);

impl Held {
    fn worker(weir: &Weir<'_>) -> Self {
        let tasks = format!("/proc/{}/task", weir.id().unwrap());
        let worker = std::fs::read_dir(tasks).unwrap().find_map(|task| {
            let task = task.unwrap();
            let name = std::fs::read_to_string(task.path().join("comm")).unwrap();
            let is_one = name.trim_end() == "weir-worker-0";
            is_one.then(|| task.file_name().to_str().unwrap().parse().unwrap())
        });
        let thread = nix::unistd::Pid::from_raw(worker.expect("there is a first worker"));
        ptrace::seize(thread, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(thread).unwrap();
        waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        Self(thread)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        ptrace::detach(self.0, None).unwrap();
    }
}

/// One worker of several hangs: whoever might be sent to it is not, health says so,
/// and the rest of the daemon goes on telling.
#[test]
fn a_hung_worker_is_a_hung_daemon() {
    let node = Node::new().unwrap();
    let (weir, client, server, outside) = guarded(&node);
    assert_eq!((get(&client, vip()).unwrap(), weir.health()), (200, 200));
    let held = Held::worker(&weir);
    std::thread::sleep(Duration::from_millis(1_100));
    for _ in 0..10 {
        refused(get(&client, vip()), Errno::ECONNREFUSED);
    }
    refused(get(&client, outside.at(81)), Errno::EPERM);
    assert_eq!(get(&client, server.at(8080)).unwrap(), 200);
    assert_eq!(weir.health(), 503);
    assert_eq!(outcomes(&weir, "proxy_hung_closed"), 10);
    drop(held);
    recovers(&client);
    assert_eq!(weir.health(), 200);
}

/// One datagram, and who answers; the answer has to come from there.
fn ask(sock: &Sock<'_>, to: SocketAddr) -> Result<String, Fault> {
    sock.send_to(to, "x")?;
    let (said, from) = sock.recv_from()?;
    assert_eq!(from, to, "{said}");
    Ok(said)
}

/// UDP needs nobody: what is balanced, old sockets and new ones, what goes
/// straight, and what is denied stay as they were.
#[test]
fn a_hung_daemon_does_not_touch_udp() {
    let node = Node::new().unwrap();
    let (mut weir, client, server, outside) = guarded(&node);
    for pod in [&server, &outside] {
        let name = pod.name().to_owned();
        let what = Service::Datagrams { name };
        pod.agent().serve(pod.at(5300), what).unwrap();
    }
    let dns: SocketAddr = "10.96.0.2:53".parse().unwrap();
    let ports = ["protocol: UDP, port: 53, targetPort: 5300"];
    weir.apply(&service("dns", dns.ip(), "web", &ports));
    let old = client.agent().udp4().unwrap();
    old.connect(dns).unwrap();
    assert!(ask(&old, dns).unwrap().starts_with("server "));
    weir.signal(Signal::SIGSTOP).unwrap();
    std::thread::sleep(Duration::from_millis(1_100));
    refused(get(&client, vip()), Errno::ECONNREFUSED);
    let new = client.agent().udp4().unwrap();
    for (sock, to) in [(&old, dns), (&new, dns), (&new, server.at(5300))] {
        assert!(ask(sock, to).unwrap().starts_with("server "), "{to}");
    }
    refused(new.send_to(outside.at(5300), "x"), Errno::EPERM);
    refused(new.connect(outside.at(5300)), Errno::EPERM);
    // A port of the service that is none of UDP.
    refused(
        new.send_to("10.96.0.2:54".parse().unwrap(), "x"),
        Errno::EPERM,
    );
    weir.signal(Signal::SIGCONT).unwrap();
    recovers(&client);
    let labels = [("outcome", "denied")];
    assert_eq!(weir.metrics().count("weir_kernel_udp_total", &labels), 3);
}

/// When the start of a turn is killed: moments spread over all of a start, which took
/// `whole`, and some of what follows; the last is long after, for a machine that has
/// become busy since.
fn moment(whole: Duration, turn: u32) -> Duration {
    if turn + 1 == STARTS {
        whole * 4
    } else {
        whole * turn * 6 / (STARTS * 5)
    }
}

/// Killed at any moment of a start: what was denied stays denied, what needs
/// the proxy is refused or served, and the next start finds nothing by half.
#[test]
fn a_start_may_be_cut_off_anywhere() {
    let node = Node::new().unwrap();
    let (mut weir, client, server, outside) = guarded(&node);
    weir.stop().unwrap();
    let whole = Instant::now();
    weir.launch().unwrap();
    let whole = whole.elapsed();
    weir.kill9().unwrap();
    for turn in 0..STARTS {
        let moment = moment(whole, turn);
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

/// What nobody governs meets, and what weir makes of it: every target of the client.
fn is_governed(client: &Pod, outside: &Pod) -> Vec<(SocketAddr, bool)> {
    let met = |at: SocketAddr, wanted: Errno| {
        // A dead daemon's listeners go a moment after it.
        let is_governed = eventually("an end", Duration::from_secs(2), || match get(client, at) {
            Ok(200) => Ok(false),
            Err(fault) if fault.is(wanted) => Ok(true),
            Err(fault) if fault.is(Errno::ENETUNREACH) => Ok(false),
            other => Err(format!("{at}: {other:?}")),
        });
        (at, is_governed)
    };
    let mut all = Vec::new();
    for at in [Pod::at, Pod::at6] {
        all.push(met(at(outside, 80), Errno::ECONNREFUSED));
        all.push(met(at(outside, 81), Errno::EPERM));
        all.push(met(at(outside, 82), Errno::ECONNREFUSED));
    }
    all.extend([vip(), vip6()].map(|at| met(at, Errno::ECONNREFUSED)));
    all
}

/// The first start after a reboot, killed at any moment: no target is governed while
/// another is not, and the next start governs all.
#[test]
fn a_first_start_may_be_cut_off_anywhere() {
    let node = Node::new().unwrap();
    let (mut weir, client, server, outside) = guarded(&node);
    guard_more(&weir, &client, &outside);
    // Pins are gone after a reboot, the state is not.
    let unpin = || {
        let pins = node.bpffs().join("weir");
        if pins.exists() {
            std::fs::remove_dir_all(pins).unwrap();
        }
    };
    weir.kill9().unwrap();
    unpin();
    let whole = Instant::now();
    weir.launch().unwrap();
    let whole = whole.elapsed();
    weir.kill9().unwrap();
    let mut found = [0, 0];
    for turn in 0..STARTS {
        unpin();
        weir.launch_and_kill(moment(whole, turn)).unwrap();
        let all = is_governed(&client, &outside);
        let governed = all.iter().filter(|(_, is_governed)| *is_governed).count();
        assert!(governed == 0 || governed == all.len(), "{turn}: {all:?}");
        found[usize::from(governed > 0)] += 1;
        assert_eq!(get(&client, server.at(8080)).unwrap(), 200, "{turn}");
    }
    assert!(found.iter().all(|count| *count > 0), "{found:?}");
    weir.launch().unwrap();
    for at in [vip(), vip6(), outside.at(80), outside.at6(80)] {
        assert_eq!(get(&client, at).unwrap(), 200);
    }
    for at in [outside.at(81), outside.at6(81)] {
        refused(get(&client, at), Errno::EPERM);
    }
}
