//! Balancing inside `connect()`: ports declared `tcp` or `tls`, with no userspace on the path.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use testbed::agent::proto::{Dial, Service};
use testbed::docs::{route_rule, service};
use testbed::{Agent, Fault, Node, Pod, Weir, eventually};

fn vip() -> SocketAddr {
    "10.96.0.1:80".parse().unwrap()
}

fn vip6() -> SocketAddr {
    "[fd00:96::1]:80".parse().unwrap()
}

/// A client, and a service `s` with a port declared `tcp` on two endpoints that
/// answer with `v1` and `v2`.
fn mesh(node: &Node) -> (Weir<'_>, Pod, [Pod; 2]) {
    let weir = Weir::start(node).unwrap();
    let [client, one, two] = node.pods(["client", "one", "two"]).unwrap();
    for (pod, version) in [(&one, "v1"), (&two, "v2")] {
        endpoint(&weir, pod, version);
    }
    weir.enroll_found(&client, &["app=c"]);
    weir.apply(&service(
        "s",
        "10.96.0.1, 'fd00:96::1'",
        "s",
        &["name: tcp, port: 80, targetPort: 8000"],
    ));
    (weir, client, [one, two])
}

fn endpoint(weir: &Weir<'_>, pod: &Pod, version: &str) {
    serve(pod, version);
    weir.enroll_found(pod, &["app=s", &format!("version={version}")]);
}

/// The pod answers with this name, over each family by itself.
fn serve(pod: &Pod, name: &str) {
    for at in [pod.at(8000), pod.at6(8000)] {
        let what = Service::Whoami { name: name.into() };
        pod.agent().serve(at, what).unwrap();
    }
}

/// Who answered one connection, and whom it saw.
fn ask(agent: &Agent) -> Result<(String, SocketAddr), Fault> {
    let sock = agent.dial(vip())?;
    sock.send("x\n")?;
    let (said, fault) = sock.recv_to_end()?;
    if let Some(fault) = fault {
        return Err(fault);
    }
    let mut words = said.split(' ');
    let (name, peer) = (words.next().unwrap(), words.next().expect("name and peer"));
    Ok((name.to_owned(), peer.parse().unwrap()))
}

/// `count` connections, some at a time: how many each endpoint answered, and
/// how many were refused, as `refused`.
fn spread(client: &Pod, to: SocketAddr, count: usize) -> BTreeMap<String, u64> {
    let mut answers = BTreeMap::new();
    for begin in (0..count).step_by(100) {
        let dial = Dial {
            to,
            from_port: None,
            send: "x\n".into(),
        };
        let dials = vec![dial; 100.min(count - begin)];
        for reply in client.agent().storm(dials).unwrap() {
            let name = match reply.answer {
                Ok(answer) => answer.split(' ').next().unwrap().to_owned(),
                Err(fault) if fault.is(Errno::ECONNREFUSED) => "refused".to_owned(),
                Err(fault) => panic!("{fault}"),
            };
            *answers.entry(name).or_default() += 1;
        }
    }
    answers
}

/// Chi-square of `found` against `shares` in percent; with up to three degrees
/// of freedom it is above 27 less than once in 200 000 times.
#[expect(clippy::cast_precision_loss, reason = "a few thousand")]
fn assert_spread(found: &BTreeMap<String, u64>, shares: &[(&str, f64)]) {
    let total: u64 = found.values().sum();
    let off = |(name, percent): &(&str, f64)| {
        let wanted = total as f64 * percent / 100.0;
        let got = found.get(*name).copied().unwrap_or_default() as f64;
        (got - wanted).powi(2) / wanted
    };
    let chi_square: f64 = shares.iter().map(off).sum();
    assert_eq!(found.len(), shares.len(), "{found:?}");
    assert!(chi_square < 27.0, "{chi_square}: {found:?}");
}

fn outcome(weir: &Weir<'_>, name: &str) -> u64 {
    let labels = [("outcome", name)];
    weir.metrics().count("weir_kernel_connects_total", &labels)
}

fn patch_ready(weir: &Weir<'_>, pod: &Pod, ready: bool) {
    let patch = format!(r#"{{"spec":{{"ready":{ready}}}}}"#);
    weir.ok(&["patch", "workload", pod.name(), "-p", &patch]);
}

/// By weight among versions, evenly within one; and none of it takes a flow.
#[test]
fn connections_are_spread_by_weight() {
    let node = Node::new().unwrap();
    let (weir, client, [_one, _two]) = mesh(&node);
    for to in [vip(), vip6()] {
        let halves = [("v1", 50.0), ("v2", 50.0)];
        assert_spread(&spread(&client, to, 1000), &halves);
    }
    let third = node.pod("third").unwrap();
    serve(&third, "v2b");
    weir.enroll_found(&third, &["app=s", "version=v2"]);
    weir.apply(&route_rule("s", "s", &[("v1", 30), ("v2", 70)], ""));
    let shares = [("v1", 30.0), ("v2", 35.0), ("v2b", 35.0)];
    for to in [vip(), vip6()] {
        assert_spread(&spread(&client, to, 2000), &shares);
    }
    assert_eq!(outcome(&weir, "balanced"), 6000);
    assert_eq!(weir.metrics().count("weir_flow_misses_total", &[]), 0);
}

/// The application sees the virtual address, the endpoint the pod's own.
#[test]
fn both_ends_see_the_addresses_they_expect() {
    let node = Node::new().unwrap();
    let (_weir, client, [_one, _two]) = mesh(&node);
    for _ in 0..5 {
        let sock = client.agent().dial(vip()).unwrap();
        assert_eq!(sock.peer_addr().unwrap(), vip());
        let local = sock.local_addr().unwrap();
        assert_eq!(local.ip(), client.ip());
        sock.send("x\n").unwrap();
        let (said, _) = sock.recv_to_end().unwrap();
        assert!(said.contains(&format!(" {local} ")), "{said}");
    }
    let mapped = client.agent().tcp6().unwrap();
    mapped
        .connect("[::ffff:10.96.0.1]:80".parse().unwrap())
        .unwrap();
    let peer = mapped.peer_addr().unwrap().to_string();
    assert_eq!(peer, "[::ffff:10.96.0.1]:80");
}

/// When `weir apply` returns, the next connect follows the new rule.
#[test]
fn a_rule_is_in_force_for_the_very_next_connect() {
    let node = Node::new().unwrap();
    let (weir, client, [_one, _two]) = mesh(&node);
    for round in 0..10 {
        let wanted = if round % 2 == 0 { "v1" } else { "v2" };
        weir.apply(&route_rule("s", "s", &[(wanted, 100)], ""));
        for _ in 0..10 {
            assert_eq!(ask(client.agent()).unwrap().0, wanted, "round {round}");
        }
        let explained = weir.json(&["explain", "client", "10.96.0.1:80"]);
        assert_eq!(explained["verdict"], "balance", "{explained}");
        assert_eq!(explained["endpoints"][0]["share"], 100.0, "{explained}");
    }
}

/// Rules that look at the source: each source has its own table.
#[test]
fn rules_tell_sources_apart() {
    let node = Node::new().unwrap();
    let (weir, client, [_one, _two]) = mesh(&node);
    let other = node.pod("other").unwrap();
    weir.enroll(&other, &["app=other"]);
    let rest = "  precedence: 10\n  match: {source: {labels: {app: c}}}\n";
    weir.apply(&route_rule("special", "s", &[("v2", 100)], rest));
    for _ in 0..20 {
        assert_eq!(ask(client.agent()).unwrap().0, "v2");
    }
    assert_eq!(spread(&other, vip(), 100).len(), 2, "no rule holds for it");
    weir.apply(&route_rule("rest", "s", &[("v1", 100)], ""));
    let late = node.pod("late").unwrap();
    weir.enroll(&late, &["app=c"]);
    for _ in 0..20 {
        assert_eq!(ask(client.agent()).unwrap().0, "v2");
        assert_eq!(ask(other.agent()).unwrap().0, "v1");
        assert_eq!(ask(late.agent()).unwrap().0, "v2");
    }
    weir.enroll(&client, &["app=now-another"]);
    assert_eq!(ask(client.agent()).unwrap().0, "v1");
    weir.ok(&["delete", "routerule", "special"]);
    assert_eq!(ask(late.agent()).unwrap().0, "v1");
}

/// Labels that nobody has: their share is refused and counted, not given away.
#[test]
fn a_share_without_endpoint_is_refused() {
    let node = Node::new().unwrap();
    let (weir, client, [_one, _two]) = mesh(&node);
    weir.apply(&route_rule("s", "s", &[("v1", 75), ("v9", 25)], ""));
    let found = spread(&client, vip(), 1000);
    assert_spread(&found, &[("v1", 75.0), ("refused", 25.0)]);
    assert_eq!(outcome(&weir, "no_endpoint"), found["refused"]);
    let labels = [("reason", "no-endpoint"), ("destination", "default/s")];
    eventually(
        "the refusals are told",
        Duration::from_secs(3),
        || match weir.metrics().count("weir_tcp_connections_total", &labels) {
            told if told == found["refused"] => Ok(()),
            told => Err(format!("{told} of {found:?}")),
        },
    );
    let explained = weir.json(&["explain", "client", "10.96.0.1:80"]);
    let notes = explained["notes"].to_string();
    assert!(
        notes.contains("25 %") && notes.contains("refused"),
        "{explained}"
    );
}

/// Nobody is ready: ECONNREFUSED. Nobody listens: that too, and it is told.
#[test]
fn without_an_endpoint_the_connect_is_refused() {
    let node = Node::new().unwrap();
    let (weir, client, [one, two]) = mesh(&node);
    for pod in [&one, &two] {
        patch_ready(&weir, pod, false);
    }
    let fault = client.agent().dial(vip()).map(drop).unwrap_err();
    assert!(fault.is(Errno::ECONNREFUSED), "{fault}");
    let silent = node.pod("silent").unwrap();
    weir.enroll(&silent, &["app=s"]);
    let fault = client.agent().dial(vip()).map(drop).unwrap_err();
    assert!(fault.is(Errno::ECONNREFUSED), "{fault}");
    weir.await_log(&["\"connection\"", "upstream-connect-failed", "default/s"]);
    weir.await_log(&["\"connection\"", "no-endpoint", "default/s"]);
    // The failure is none of the node's: the same socket may try again.
    patch_ready(&weir, &one, true);
    patch_ready(&weir, &silent, false);
    assert_eq!(ask(client.agent()).unwrap().0, "v1");
}

/// Calls `act` while a pod connects without pause: none of its connects may
/// fail. Returns how many there were.
fn under_load(client: &Pod, act: impl FnOnce()) -> u64 {
    let agents = [client.new_agent().unwrap(), client.new_agent().unwrap()];
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let loads: Vec<_> = agents
            .iter()
            .map(|agent| {
                let ends = &ends;
                scope.spawn(move || {
                    let mut count = 0;
                    while !ends.load(Ordering::Relaxed) {
                        match ask(agent) {
                            Ok(_) => count += 1,
                            Err(fault) => return Err(format!("after {count}: {fault}")),
                        }
                    }
                    Ok(count)
                })
            })
            .collect();
        // A panic in here must end the load too.
        let acted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        ends.store(true, Ordering::Relaxed);
        let counts: Vec<Result<u64, String>> =
            loads.into_iter().map(|load| load.join().unwrap()).collect();
        if let Err(panic) = acted {
            std::panic::resume_unwind(panic);
        }
        counts.into_iter().map(|count| count.unwrap()).sum()
    })
}

/// Endpoints come and go under load: what has left gets nothing more, and no
/// connect fails while one is ready.
#[test]
fn endpoints_change_without_a_failed_connect() {
    let node = Node::new().unwrap();
    let (weir, client, [one, two]) = mesh(&node);
    let mut asked = 0;
    asked += under_load(&client, || {
        for round in 0..30 {
            let (leaves, stays, wanted) = match round % 2 {
                0 => (&one, &two, "v2"),
                _ => (&two, &one, "v1"),
            };
            patch_ready(&weir, stays, true);
            patch_ready(&weir, leaves, false);
            for _ in 0..5 {
                assert_eq!(ask(client.agent()).unwrap().0, wanted, "round {round}");
            }
        }
    });
    assert!(asked > 100, "{asked}");
    assert_eq!(outcome(&weir, "no_endpoint"), 0);
    assert_eq!(outcome(&weir, "service_changed"), 0);
}

/// Killed, the daemon is not missed; started again, it takes over under load.
#[test]
fn balancing_goes_on_without_the_daemon() {
    let node = Node::new().unwrap();
    let (mut weir, client, [one, _two]) = mesh(&node);
    weir.apply(&route_rule("s", "s", &[("v1", 50), ("v2", 50)], ""));
    let asked = under_load(&client, || {
        weir.kill9().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        weir.launch().unwrap();
        for wanted in ["v1", "v2"] {
            weir.apply(&route_rule("s", "s", &[(wanted, 100)], ""));
            for _ in 0..10 {
                assert_eq!(ask(client.agent()).unwrap().0, wanted);
            }
        }
        weir.kill9().unwrap();
        for _ in 0..10 {
            assert_eq!(ask(client.agent()).unwrap().0, "v2");
        }
        weir.launch().unwrap();
        weir.apply(&route_rule("s", "s", &[("v1", 50), ("v2", 50)], ""));
    });
    assert!(asked > 20, "{asked}");
    // What ended while nobody read is told by the next daemon.
    weir.kill9().unwrap();
    for to in [vip(), vip6()] {
        let halves = [("v1", 50.0), ("v2", 50.0)];
        assert_spread(&spread(&client, to, 500), &halves);
    }
    weir.launch().unwrap();
    eventually("the connections are told", Duration::from_secs(3), || {
        let labels = [("destination", "default/s"), ("reason", "")];
        match weir.metrics().count("weir_tcp_connections_total", &labels) {
            told if told >= 1000 => Ok(()),
            told => Err(format!("{told}")),
        }
    });
    drop(one);
}
