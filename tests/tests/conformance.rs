//! "The app cannot tell": every case of [`testbed::conformance`], run without
//! weir and under each verdict; what differs is what `docs/conformance.md` lists.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use testbed::conformance::compare::{Seen, findings, table};
use testbed::conformance::expected::{Dial, VERDICTS, Verdict, as_markdown};
use testbed::conformance::{Case, Targets, cases};
use testbed::docs::service;
use testbed::{Netns, Node, Pod, Proc, Weir, eventually, tool_binary};

/// Longer than any case takes, whose every call is bounded.
const CASE_LIMIT: Duration = Duration::from_secs(30);
/// No route leads there from a pod.
const UNREACHABLE: &str = "203.0.113.1";
/// The node loses every packet to it.
const BLACKHOLE: &str = "192.0.2.1";

/// The other end of every case.
struct Peer {
    pod: Pod,
    socket: PathBuf,
    _process: Proc,
}

impl Peer {
    fn start(node: &Node) -> Self {
        let pod = node.pod("peer").unwrap();
        // Fast Open for every listener, without being asked.
        pod.netns().sysctl("ipv4/tcp_fastopen", "1027").unwrap();
        unlimited_errors(pod.netns());
        let socket = node.dir().join("peer.sock");
        let path = socket.display().to_string();
        let args = ["conformance", "peer", &path];
        let process = pod.spawn(&tool_binary().unwrap(), &args).unwrap();
        eventually("the peer listens", Duration::from_secs(5), || {
            if socket.exists() {
                Ok(())
            } else {
                Err(process.log())
            }
        });
        Self {
            pod,
            socket,
            _process: process,
        }
    }
}

/// The kernel answers only so many lost datagrams a second; the cases lose more.
fn unlimited_errors(netns: &Netns) {
    for limit in ["ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"] {
        netns.sysctl(limit, "0").unwrap();
    }
}

/// A pod with two devices, whose routes know a dead end, a mark that leads
/// nowhere, and a way through a router.
struct Client {
    pod: Pod,
    other_address: IpAddr,
}

impl Client {
    fn new(node: &Node, name: &str) -> Self {
        let pod = node.pod(name).unwrap();
        let other_address = node.second_home(&pod).unwrap();
        let netns = pod.netns();
        netns
            .ip([
                "route add throw 203.0.113.0/24",
                "route add unreachable default table 7",
                "rule add fwmark 7 table 7",
            ])
            .unwrap();
        // Answers to one device's address may come in on the other.
        for device in ["all", "eth0", "eth1"] {
            netns
                .sysctl(&format!("ipv4/conf/{device}/rp_filter"), "0")
                .unwrap();
        }
        Self { pod, other_address }
    }

    /// Runs the cases that are wanted; what each saw, and which did not come to their end.
    fn run(
        &self,
        targets: &Targets,
        wanted: impl Fn(&Case) -> bool,
    ) -> (Seen, BTreeMap<&'static str, String>) {
        let (mut seen, mut failed) = (Seen::new(), BTreeMap::new());
        for case in cases().filter(|case| wanted(case)) {
            let mut args = vec![
                "conformance".to_owned(),
                "case".to_owned(),
                case.name.to_owned(),
            ];
            args.extend(targets.args());
            let said = self.pod.run(&args, CASE_LIMIT);
            let observations = said.and_then(|said| Ok(serde_json::from_str(&said)?));
            match observations {
                Ok(observations) => drop(seen.insert(case.name.to_owned(), observations)),
                Err(error) => drop(failed.insert(case.name, format!("{error:#}"))),
            }
        }
        (seen, failed)
    }
}

/// The `index`-th run has ports of the peer, and virtual addresses, of its own.
fn targets(peer: &Peer, client: &Client, index: u8, dial: &Dial) -> Targets {
    let port = 7000 + 10 * u16::from(index);
    let virtual_ip = |host| IpAddr::from([10, 96, index, host]);
    let ([live, unreachable, blackhole], live6) = match dial {
        Dial::Workload => (
            [
                peer.pod.ip(),
                UNREACHABLE.parse().unwrap(),
                BLACKHOLE.parse().unwrap(),
            ],
            peer.pod.ip6(),
        ),
        Dial::Service(_) => {
            let virtual_ip6 = [0xfd00, 0x96, u16::from(index), 0, 0, 0, 0, 1];
            ([1, 2, 3].map(virtual_ip), IpAddr::from(virtual_ip6))
        }
    };
    Targets {
        live: SocketAddr::new(live, port),
        live6: SocketAddr::new(live6, port),
        second: SocketAddr::new(live, port + 1),
        closed: SocketAddr::new(live, port + 2),
        unreachable: SocketAddr::new(unreachable, port),
        blackhole: SocketAddr::new(blackhole, port),
        peer_at: peer.pod.at(port),
        peer_at6: peer.pod.at6(port),
        peer: peer.socket.clone(),
        own: client.pod.ip(),
        own6: client.pod.ip6(),
        other_own: client.other_address,
    }
}

/// What makes the run's addresses those of its verdict.
fn documents(targets: &Targets, dial: &Dial) -> String {
    let Dial::Service(prefix) = dial else {
        return String::new();
    };
    let ports = |addrs: &[SocketAddr]| -> Vec<String> {
        let both = |addr: &SocketAddr| {
            let port = addr.port();
            [
                format!("name: {prefix}-{port}, port: {port}"),
                format!("name: udp-{port}, port: {port}, protocol: UDP"),
            ]
        };
        addrs.iter().flat_map(both).collect()
    };
    let text = |name: &str, app: &str, addresses: String, at: &[SocketAddr]| {
        let ports = ports(at);
        let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
        service(&format!("{prefix}-{name}"), addresses, app, &ports)
    };
    let live = format!("{}, '{}'", targets.live.ip(), targets.live6.ip());
    let of_peer = [targets.live, targets.second, targets.closed];
    let elsewhere = |name: &str, at: SocketAddr| text(name, name, at.ip().to_string(), &[at]);
    [
        text("live", "peer", live, &of_peer),
        elsewhere("unreachable", targets.unreachable),
        elsewhere("blackhole", targets.blackhole),
    ]
    .concat()
}

/// A Workload on another node.
fn elsewhere(name: &str, address: &str) -> String {
    format!(
        "---\napiVersion: weir.dev/v1\nkind: Workload\nmetadata: {{name: {name}, labels: \
         {{app: {name}}}}}\nspec: {{addresses: [{address}], node: elsewhere}}\n"
    )
}

fn enroll(weir: &Weir<'_>, client: &Client) {
    let pod = &client.pod;
    weir.apply(&format!(
        "apiVersion: weir.dev/v1\nkind: Workload\nmetadata: {{name: {}, labels: {{app: c}}}}\n\
         spec: {{addresses: [{}, '{}', {}], netns: {}, cgroup: {}}}\n",
        pod.name(),
        pod.ip(),
        pod.ip6(),
        client.other_address,
        pod.netns().path().display(),
        pod.cgroup().display(),
    ));
}

/// One run under a verdict: what is wrong with it.
fn judge(verdict: &Verdict, client: &Client, targets: &Targets, without: &Seen) -> String {
    let is_under = |case: &Case| case.is_under(verdict);
    let (with, failed) = client.run(targets, is_under);
    let mut without = without.clone();
    for case in cases().filter(|case| !is_under(case)) {
        without.remove(case.name);
    }
    let told = |(case, error)| format!("{case}, {}: {error}", verdict.name);
    let mut wrong: Vec<String> = failed.into_iter().map(told).collect();
    let findings = findings(verdict, &without, &with);
    if !findings.is_empty() {
        wrong.push(table(verdict.name, &findings));
    }
    wrong.join("\n")
}

#[test]
fn the_documentation_lists_every_difference() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/conformance.md");
    let shown = std::fs::read_to_string(path).unwrap();
    for verdict in VERDICTS {
        let row = format!("\n| {} |", verdict.name);
        assert!(shown.contains(&row), "docs/conformance.md has no row{row}");
    }
    let begin = shown.find("### ").expect("a list of differences");
    let listed = as_markdown();
    assert!(
        shown[begin..].trim() == listed.trim(),
        "docs/conformance.md ends with another list than this:\n\n{listed}"
    );
}

#[test]
fn the_application_cannot_tell() {
    let node = Node::new().unwrap();
    node.netns()
        .ip(["route add blackhole 192.0.2.1/32"])
        .unwrap();
    node.netns().sysctl("ipv4/conf/all/rp_filter", "0").unwrap();
    unlimited_errors(node.netns());
    let peer = Peer::start(&node);
    let off = Client::new(&node, "off");
    let clients: Vec<Client> = VERDICTS
        .iter()
        .map(|verdict| Client::new(&node, verdict.name))
        .collect();
    let (without, failed) = off.run(&targets(&peer, &off, 0, &Dial::Workload), |_| true);
    assert!(failed.is_empty(), "without weir: {failed:#?}");

    let weir = Weir::start(&node).unwrap();
    weir.enroll_found(&peer.pod, &["app=peer"]);
    weir.apply(&elsewhere("unreachable", UNREACHABLE));
    weir.apply(&elsewhere("blackhole", BLACKHOLE));
    let runs: Vec<(&Verdict, &Client, Targets)> = VERDICTS
        .iter()
        .zip(&clients)
        .zip(1..)
        .map(|((verdict, client), index)| {
            let targets = targets(&peer, client, index, &verdict.dial);
            enroll(&weir, client);
            let documents = documents(&targets, &verdict.dial);
            if !documents.is_empty() {
                weir.apply(&documents);
            }
            (verdict, client, targets)
        })
        .collect();
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let without = &without;
        let judging: Vec<_> = runs
            .iter()
            .map(|(verdict, client, targets)| {
                scope.spawn(move || judge(verdict, client, targets, without))
            })
            .collect();
        judging.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert!(wrong.iter().all(String::is_empty), "\n{}", wrong.join("\n"));
}
