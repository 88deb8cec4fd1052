//! Changes that do not concern a connection: what policy allows before and after
//! each of them is refused in no moment between, and what it denies is let through
//! in none. And pods that come and go while they are at work.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use testbed::agent::HttpRequest;
use testbed::agent::proto::{Load, Service};
use testbed::docs::{egress_rule, mesh_config, route_rule, service};
use testbed::mesh::{guarded, vip};
use testbed::{Agent, Node, Pod, Weir};

/// How often all changes are made and taken back.
const TURNS: usize = 2;

/// How often the client's rules are other ones, in each turn.
const RELABELLED: usize = 40;

/// How often the daemon is killed, and started again.
const KILLS: usize = 4;

type Outcomes = BTreeMap<String, u64>;

/// A port of the service `web` that answers bytes.
fn web(port: u16) -> SocketAddr {
    SocketAddr::new(vip().ip(), port)
}

/// The service `web`, with a port that is proxied as bytes, one that the kernel
/// balances, and what else is asked for.
fn web_service(address: &str, more: &[&str]) -> String {
    let ports = [
        "port: 80, targetPort: 8080",
        "port: 81, targetPort: 8000, appProtocol: tcp",
        "port: 82, targetPort: 8000",
    ];
    service("web", address, "web", &[&ports[..], more].concat())
}

/// Each change, and what takes it back: documents to apply, and arguments.
fn changes(outside: &Pod) -> Vec<(String, Vec<Vec<&'static str>>)> {
    let ip = outside.ip();
    let gone = |kind, name| vec![vec!["delete", kind, name]];
    let of_client = "  source: {labels: {app: c}}\n";
    vec![
        (
            egress_rule("wide", "0.0.0.0/0", &[(99, "tcp")], ""),
            gone("egressrule", "wide"),
        ),
        (
            egress_rule("near", "198.51.100.0/28", &[(7001, "tcp")], ""),
            gone("egressrule", "near"),
        ),
        (
            egress_rule("own", ip, &[(7002, "tcp")], of_client),
            gone("egressrule", "own"),
        ),
        (
            egress_rule("named", "example.com", &[(7003, "http")], ""),
            gone("egressrule", "named"),
        ),
        (
            service("second", "10.96.0.9", "web", &["port: 80"]),
            gone("service", "second"),
        ),
        (
            route_rule("mine", "web", &[("v1", 100)], "  precedence: 9\n  match: {source: {labels: {app: c}}}\n"),
            gone("routerule", "mine"),
        ),
        (
            mesh_config("egress: deny, headerTimeout: 7s"),
            vec![vec!["undo"]],
        ),
        (
            web_service(&format!("{}, 10.96.0.8", vip().ip()), &["port: 83, targetPort: 8000"]),
            vec![vec!["patch", "service", "web", "--type", "json", "-p",
                r#"[{"op":"remove","path":"/spec/clusterIPs/1"},{"op":"remove","path":"/spec/ports/3"}]"#]],
        ),
        (
            "apiVersion: weir.dev/v1\nkind: Workload\nmetadata: {name: far, labels: {app: other}}\nspec: {addresses: [10.1.200.1]}\n".to_owned(),
            gone("workload", "far"),
        ),
    ]
}

/// Ends the hammering, also where the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Hammers `addr` until it is over.
fn hammered(agent: &Agent, addr: SocketAddr, is_over: &AtomicBool) -> Outcomes {
    let mut outcomes = Outcomes::new();
    while !is_over.load(Ordering::Relaxed) {
        for (outcome, count) in agent.hammer(addr, 200).unwrap() {
            *outcomes.entry(outcome).or_insert(0) += count;
        }
    }
    outcomes
}

/// Everything changes, a number of times, but for what the connections are about.
fn churn(weir: &Weir<'_>, outside: &Pod, late: &Pod) {
    for _ in 0..TURNS {
        for (change, back) in changes(outside) {
            weir.apply(&change);
            for args in back {
                weir.ok(&args);
            }
        }
        // The client gets another class of rules, and the one it had.
        let tier = egress_rule(
            "tier",
            outside.ip(),
            &[(7004, "tcp")],
            "  source: {labels: {tier: t}}\n",
        );
        weir.apply(&tier);
        for turn in 0..RELABELLED {
            let label = if turn % 2 == 0 { r#""t""# } else { "null" };
            let patch = format!(r#"{{"metadata":{{"labels":{{"tier":{label}}}}}}}"#);
            weir.ok(&["patch", "workload", "client", "-p", &patch]);
        }
        weir.ok(&["delete", "egressrule", "tier"]);
        // One more endpoint, which leaves as the handbook says.
        weir.enroll(late, &["app=web", "version=v1"]);
        weir.ok(&[
            "patch",
            "workload",
            "late",
            "-p",
            r#"{"spec":{"ready":false}}"#,
        ]);
        weir.ok(&["unenroll", "late"]);
        weir.ok(&["delete", "workload", "late"]);
    }
}

#[test]
fn a_change_elsewhere_touches_no_connect() {
    let node = Node::new().unwrap();
    let (weir, client, server, outside) = guarded(&node);
    let late = node.pod("late").unwrap();
    for (pod, port) in [
        (&server, 8000),
        (&late, 8000),
        (&outside, 7000),
        (&outside, 7009),
    ] {
        let name = pod.name().to_owned();
        pod.agent()
            .serve(pod.at(port), Service::Whoami { name })
            .unwrap();
    }
    let (pod, version) = ("late".to_owned(), "v1".to_owned());
    late.agent()
        .serve(late.at(8080), Service::Http { pod, version })
        .unwrap();
    weir.apply(&web_service(&vip().ip().to_string(), &[]));
    weir.apply(&egress_rule("direct", outside.ip(), &[(7000, "tcp")], ""));
    weir.apply(&mesh_config("egress: deny"));
    let load = |addr| {
        let agent = client.new_agent().unwrap();
        let request = HttpRequest::get("web", "/");
        let begun = agent.start_load(Load {
            addr,
            request,
            count: 0,
            connections: 4,
            pause_ms: 1,
            pointer: String::new(),
        });
        begun.unwrap();
        agent
    };
    let loads = [load(vip()), load(outside.at(80))];
    let is_over = AtomicBool::new(false);
    let targets = [
        (web(81), "OK"),
        (web(82), "OK"),
        (outside.at(7000), "OK"),
        (outside.at(7009), "EPERM"),
    ];
    let agents = targets.map(|_| client.new_agent().unwrap());
    std::thread::scope(|scope| {
        let is_over = &is_over;
        let hammers: Vec<_> = targets
            .iter()
            .zip(&agents)
            .map(|((addr, _), agent)| scope.spawn(move || hammered(agent, *addr, is_over)))
            .collect();
        let over = Over(is_over);
        churn(&weir, &outside, &late);
        drop(over);
        for ((addr, outcome), hammer) in targets.iter().zip(hammers) {
            let outcomes = hammer.join().unwrap();
            assert_eq!(
                outcomes.keys().collect::<Vec<_>>(),
                [outcome],
                "{addr}: {outcomes:?}"
            );
        }
    });
    for agent in loads {
        let report = agent.stop_load().unwrap();
        assert!(report.ok > 0 && report.failed() == 0, "{report:?}");
    }
}

/// Enrolling and unenrolling a pod at work costs none of its connects: what goes
/// straight, and what is proxied while weir decides and goes straight before and after.
#[test]
fn a_pod_at_work_comes_and_goes_without_a_refused_connect() {
    let node = Node::new().unwrap();
    let weir = Weir::start(&node).unwrap();
    let [client, server] = node.pods(["client", "server"]).unwrap();
    let outside = node.outside("outside").unwrap();
    // Also without weir the service's address leads somewhere: to the server itself.
    let via = format!("route add {} via {}", vip().ip(), server.ip());
    client.netns().ip([via.as_str()]).unwrap();
    let own = format!("addr add {}/32 dev lo", vip().ip());
    server.netns().ip([own.as_str()]).unwrap();
    for (pod, at) in [
        (&server, server.at(8000)),
        (&server, web(82)),
        (&outside, outside.at(7000)),
    ] {
        let name = pod.name().to_owned();
        pod.agent().serve(at, Service::Whoami { name }).unwrap();
    }
    weir.enroll(&server, &["app=web"]);
    weir.apply(&web_service(&vip().ip().to_string(), &[]));
    weir.apply(&mesh_config("egress: allow"));
    let is_over = AtomicBool::new(false);
    let agents = [(); 2].map(|()| client.new_agent().unwrap());
    let outcomes = std::thread::scope(|scope| {
        let is_over = &is_over;
        let targets = [outside.at(7000), web(82)];
        let hammers: Vec<_> = targets
            .into_iter()
            .zip(&agents)
            .map(|(addr, agent)| scope.spawn(move || hammered(agent, addr, is_over)))
            .collect();
        let over = Over(is_over);
        for _ in 0..20 {
            weir.enroll(&client, &[]);
            weir.ok(&["unenroll", "client"]);
        }
        drop(over);
        let joined = hammers.into_iter().map(|hammer| hammer.join().unwrap());
        joined.collect::<Vec<_>>()
    });
    let metrics = weir.metrics();
    for outcome in ["direct", "proxied"] {
        let labels = [("outcome", outcome)];
        let governed = metrics.count("weir_kernel_connects_total", &labels);
        assert!(governed > 0, "none was {outcome} while it was enrolled");
    }
    for outcomes in outcomes {
        assert_eq!(outcomes.keys().collect::<Vec<_>>(), ["OK"], "{outcomes:?}");
    }
}

/// Killed and started again under load: what goes straight, what is balanced and what
/// is denied are so in every moment, of both families.
#[test]
fn policy_holds_over_every_kill_and_takeover() {
    let node = Node::new().unwrap();
    let mut weir = Weir::start(&node).unwrap();
    let [client, server] = node.pods(["client", "server"]).unwrap();
    let outside = node.outside("outside").unwrap();
    for (pod, port) in [(&server, 8000), (&outside, 7000), (&outside, 7009)] {
        let name = pod.name().to_owned();
        let all = SocketAddr::new("::".parse().unwrap(), port);
        let what = Service::Whoami { name };
        pod.agent().serve(all, what).unwrap();
    }
    weir.enroll_found(&server, &["app=web"]);
    weir.enroll_found(&client, &["app=c"]);
    let six: SocketAddr = "[fd00:96::1]:81".parse().unwrap();
    weir.apply(&web_service(
        &format!("{}, '{}'", vip().ip(), six.ip()),
        &[],
    ));
    weir.apply(&egress_rule("four", outside.ip(), &[(7000, "tcp")], ""));
    weir.apply(&egress_rule("six", outside.ip6(), &[(7000, "tcp")], ""));
    let targets = [
        (server.at(8000), "OK"),
        (server.at6(8000), "OK"),
        (outside.at(7000), "OK"),
        (outside.at6(7000), "OK"),
        (web(81), "OK"),
        (six, "OK"),
        (outside.at(7009), "EPERM"),
        (outside.at6(7009), "EPERM"),
    ];
    let agents = targets.map(|_| client.new_agent().unwrap());
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let is_over = &is_over;
        let hammers: Vec<_> = targets
            .iter()
            .zip(&agents)
            .map(|((addr, _), agent)| scope.spawn(move || hammered(agent, *addr, is_over)))
            .collect();
        let over = Over(is_over);
        for _ in 0..KILLS {
            weir.kill9().unwrap();
            std::thread::sleep(Duration::from_millis(100));
            weir.launch().unwrap();
        }
        drop(over);
        for ((addr, outcome), hammer) in targets.iter().zip(hammers) {
            let outcomes = hammer.join().unwrap();
            assert_eq!(
                outcomes.keys().collect::<Vec<_>>(),
                [outcome],
                "{addr}: {outcomes:?}"
            );
        }
    });
}
