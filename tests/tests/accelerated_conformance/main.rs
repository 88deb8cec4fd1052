//! What an application can tell of acceleration: every case of TCP of
//! [`testbed::conformance`] under `balance` and `proxy`, by a client that refuses
//! acceleration and by one that forces it. What differs is listed here, each with
//! the case of the self-test that says so.

mod differences;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use differences::Because::{Broken, Said};
use differences::DIFFERENCES;
use testbed::conformance::compare::Seen;
use testbed::conformance::expected::{Dial, VERDICTS};
use testbed::conformance::{Case, Targets, cases};
use testbed::docs::service;
use testbed::mesh::counted;
use testbed::{Netns, Node, Pod, Proc, Weir, WeirOptions, eventually, tool_binary};

/// Longer than any case takes, whose every call is bounded.
const CASE_LIMIT: Duration = Duration::from_secs(30);
/// No route leads there from a pod.
const UNREACHABLE: &str = "203.0.113.1";
/// The node loses every packet to it.
const BLACKHOLE: &str = "192.0.2.1";

/// Cases that acceleration makes unfit to be run. In the first a writer that nobody
/// holds back takes all memory that TCP may have, and the rest of the machine's
/// connections with it; the self-test stops at 48 MiB, and calls it `back-pressure`.
/// In the second a thread waits in a read while another writes: where `blocked-read`
/// is broken it is told [`WOKEN`] more often than not, and reads no more, so that the
/// other end stands still.
const UNFIT: [&str; 2] = ["transfer/full", "transfer/both-ways"];

/// What a read that waits says where `blocked-read` is broken, instead of the end or
/// a reset: now and then, as something else may have woken it just before.
const WOKEN: &str = "EAGAIN";

/// The same in words.
const BROKE_OFF: &str = "Resource temporarily unavailable";

/// How often a case is run that a read of [`WOKEN`] broke off.
const ATTEMPTS: usize = 5;

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
        let args = ["conformance", "peer", socket.to_str().unwrap()];
        let process = pod.spawn(&tool_binary().unwrap(), &args).unwrap();
        eventually("the peer listens", Duration::from_secs(5), || {
            let listens = socket.exists().then_some(());
            listens.ok_or_else(|| process.log())
        });
        Self {
            pod,
            socket,
            _process: process,
        }
    }
}

/// The kernel answers only so many lost packets a second; the cases lose more.
fn unlimited_errors(netns: &Netns) {
    for limit in ["ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"] {
        netns.sysctl(limit, "0").unwrap();
    }
}

/// A pod with two devices, whose routes know a dead end and a mark that leads
/// nowhere; what it dials, and what it wants of acceleration.
struct Client {
    pod: Pod,
    accelerate: &'static str,
    targets: Targets,
}

impl Client {
    /// The `index`-th has ports of the peer, and virtual addresses, of its own.
    fn new(node: &Node, peer: &Peer, name: &str, index: u8, accelerate: &'static str) -> Self {
        let pod = node.pod(name).unwrap();
        let other_own = node.second_home(&pod).unwrap();
        let netns = pod.netns();
        let routes = [
            "route add throw 203.0.113.0/24",
            "route add unreachable default table 7",
            "rule add fwmark 7 table 7",
        ];
        netns.ip(routes).unwrap();
        // Answers to one device's address may come in on the other.
        for device in ["all", "eth0", "eth1"] {
            let filter = format!("ipv4/conf/{device}/rp_filter");
            netns.sysctl(&filter, "0").unwrap();
        }
        let port = 7000 + 10 * u16::from(index);
        let [live, unreachable, blackhole] =
            [1, 2, 3].map(|host| IpAddr::from([10, 96, index, host]));
        let live6 = IpAddr::from([0xfd00, 0x96, u16::from(index), 0, 0, 0, 0, 1]);
        let targets = Targets {
            live: SocketAddr::new(live, port),
            live6: SocketAddr::new(live6, port),
            second: SocketAddr::new(live, port + 1),
            closed: SocketAddr::new(live, port + 2),
            unreachable: SocketAddr::new(unreachable, port),
            blackhole: SocketAddr::new(blackhole, port),
            peer_at: peer.pod.at(port),
            peer_at6: peer.pod.at6(port),
            peer: peer.socket.clone(),
            own: pod.ip(),
            own6: pod.ip6(),
            other_own,
        };
        Self {
            pod,
            accelerate,
            targets,
        }
    }

    /// Enrols it, and makes its addresses those of services.
    fn enroll(&self, weir: &Weir<'_>, prefix: &str) {
        let (pod, to) = (&self.pod, &self.targets);
        let workload = format!(
            "apiVersion: weir.dev/v1\nkind: Workload\nmetadata: {{name: {}, labels: {{app: c}}}}\n\
             spec: {{addresses: [{}, '{}', {}], netns: {}, cgroup: {}, accelerate: {}}}\n",
            pod.name(),
            pod.ip(),
            pod.ip6(),
            to.other_own,
            pod.netns().path().display(),
            pod.cgroup().display(),
            self.accelerate,
        );
        let named = |name: &str, app: &str, addresses: String, at: &[SocketAddr]| {
            let port = |addr: &SocketAddr| format!("name: {prefix}-{0}, port: {0}", addr.port());
            let ports: Vec<String> = at.iter().map(port).collect();
            let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
            service(&format!("{}-{name}", pod.name()), addresses, app, &ports)
        };
        let live = format!("{}, '{}'", to.live.ip(), to.live6.ip());
        let elsewhere = |name, at: SocketAddr| named(name, name, at.ip().to_string(), &[at]);
        weir.apply(&format!(
            "{workload}{}{}{}",
            named("live", "peer", live, &[to.live, to.second, to.closed]),
            elsewhere("unreachable", to.unreachable),
            elsewhere("blackhole", to.blackhole),
        ));
    }

    /// What each case saw, and what became of those that did not come to their end.
    /// Where reads that wait may fail, one that broke off for that is run again.
    fn run(&self, may_fail: bool) -> (Seen, Vec<String>) {
        let (mut seen, mut failed) = (Seen::new(), Vec::new());
        for case in cases().filter(|case| is_wanted(case)) {
            let mut args = vec![
                "conformance".to_owned(),
                "case".to_owned(),
                case.name.to_owned(),
            ];
            args.extend(self.targets.args());
            let mut attempts = if may_fail { ATTEMPTS } else { 1 };
            let said = loop {
                attempts -= 1;
                let said = self.pod.run(&args, CASE_LIMIT);
                let broke_off = |error| format!("{error:#}").contains(BROKE_OFF);
                if attempts == 0 || !said.as_ref().is_err_and(broke_off) {
                    break said;
                }
            };
            match said.and_then(|said| Ok(serde_json::from_str(&said)?)) {
                Ok(observations) => drop(seen.insert(case.name.to_owned(), observations)),
                Err(error) => failed.push(format!("{}, {}: {error:#}", case.name, self.pod.name())),
            }
        }
        (seen, failed)
    }
}

/// Whether it is run here. UDP is never accelerated.
fn is_wanted(case: &Case) -> bool {
    !case.name.starts_with("udp") && !UNFIT.contains(&case.name)
}

/// A Workload on another node.
fn elsewhere(name: &str, address: &str) -> String {
    format!(
        "---\napiVersion: weir.dev/v1\nkind: Workload\nmetadata: {{name: {name}, labels: \
         {{app: {name}}}}}\nspec: {{addresses: [{address}], node: elsewhere}}\n"
    )
}

/// What the self-test found broken, once it is done.
fn broken(weir: &Weir<'_>) -> BTreeSet<String> {
    eventually("a verdict", Duration::from_secs(50), || {
        let status = weir.json(&["status"])["dataplane"]["acceleration"].clone();
        let said = status["selfTest"].as_str().unwrap_or_default();
        if !said.contains("known cases") {
            return Err(said.to_owned());
        }
        let cases = status["broken"].as_array().cloned().unwrap_or_default();
        let names = cases.iter().filter_map(|case| case["name"].as_str());
        Ok(names.map(str::to_owned).collect())
    })
}

/// What differs, but for what is listed; and what is listed but gone, though the
/// self-test found its case broken.
fn judge(
    verdict: &str,
    without: &Seen,
    with: &Seen,
    found: &BTreeSet<String>,
) -> BTreeMap<(String, String), String> {
    let flat = |seen: &Seen| -> BTreeMap<(String, String), String> {
        let of_case = |(case, observations): (&String, &BTreeMap<String, String>)| {
            let case = case.clone();
            let named = move |(what, value): (&String, &String)| {
                ((case.clone(), what.clone()), value.clone())
            };
            observations.iter().map(named).collect::<Vec<_>>()
        };
        seen.iter().flat_map(of_case).collect()
    };
    let (without, with) = (flat(without), flat(with));
    let may_fail = found.contains("blocked-read");
    let nothing = "(not seen)".to_owned();
    let mut wrong = BTreeMap::new();
    let keys: BTreeSet<_> = without.keys().chain(with.keys()).collect();
    for key in keys {
        let [one, other] = [&without, &with].map(|seen| seen.get(key).unwrap_or(&nothing));
        let listed = DIFFERENCES.iter().find(|listed| {
            listed.verdicts.contains(&verdict) && (listed.case, listed.what) == (&*key.0, &*key.1)
        });
        let is_due = listed.is_some_and(|listed| match listed.because {
            Broken(case) => found.contains(case),
            Said(_) => true,
        });
        let is_as_it_must = match listed.filter(|_| is_due) {
            Some(listed) => {
                (one.as_str(), other.as_str()) == (listed.without, listed.with)
                    || !listed.is_sure && one == other
            }
            None => one == other || may_fail && is_woken(one, other),
        };
        if !is_as_it_must {
            let why = if is_due {
                "listed otherwise"
            } else {
                "not due"
            };
            wrong.insert(key.clone(), format!("{verdict}: {one} -> {other}: {why}"));
        }
    }
    wrong
}

/// Whether a read that waited was told [`WOKEN`] instead of what woke it.
fn is_woken(one: &str, other: &str) -> bool {
    (one.ends_with("FIN") || one.ends_with("ECONNRESET")) && other.ends_with(WOKEN)
}

fn forcing() -> WeirOptions {
    WeirOptions {
        args: vec!["--accelerate".to_owned(), "force".to_owned()],
        ..WeirOptions::default()
    }
}

#[test]
fn the_documentation_says_what_is_listed() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/acceleration.md");
    let shown = std::fs::read_to_string(path).unwrap();
    for listed in DIFFERENCES {
        let text = match listed.because {
            Broken(case) => format!("`{case}`"),
            Said(text) => text.to_owned(),
        };
        assert!(shown.contains(&text), "{}: {text}", listed.case);
    }
}

#[test]
fn the_application_can_tell_only_what_the_self_test_says() {
    let node = Node::new().unwrap();
    let blackhole = [format!("route add blackhole {BLACKHOLE}/32")];
    node.netns().ip(blackhole).unwrap();
    node.netns().sysctl("ipv4/conf/all/rp_filter", "0").unwrap();
    unlimited_errors(node.netns());
    let peer = Peer::start(&node);
    let weir = Weir::start_with(&node, forcing()).unwrap();
    let found = broken(&weir);
    weir.enroll_found(&peer.pod, &["app=peer"]);
    weir.apply(&elsewhere("unreachable", UNREACHABLE));
    weir.apply(&elsewhere("blackhole", BLACKHOLE));
    let services = VERDICTS.iter().filter_map(|verdict| match verdict.dial {
        Dial::Workload => None,
        Dial::Service(prefix) => Some((verdict.name, prefix)),
    });
    let runs: Vec<(&str, [Client; 2])> = services
        .zip([1, 3])
        .map(|((verdict, prefix), index)| {
            let clients = [(0, "off"), (1, "force")].map(|(more, accelerate)| {
                let name = format!("{verdict}-{accelerate}");
                let client = Client::new(&node, &peer, &name, index + more, accelerate);
                client.enroll(&weir, prefix);
                client
            });
            (verdict, clients)
        })
        .collect();
    assert_eq!(runs.len(), 2, "each verdict that is accelerated");
    let before = counted(&weir, "accelerated");
    let mut wrong = Vec::new();
    std::thread::scope(|scope| {
        let running: Vec<_> = runs
            .iter()
            .map(|(verdict, clients)| {
                (
                    *verdict,
                    clients.each_ref().map(|client| {
                        scope.spawn(|| {
                            client
                                .run(client.accelerate == "force" && found.contains("blocked-read"))
                        })
                    }),
                )
            })
            .collect();
        for (verdict, running) in running {
            let [(without, failed), (with, also)] = running.map(|run| run.join().unwrap());
            wrong.extend(failed.into_iter().chain(also));
            let judged = judge(verdict, &without, &with, &found);
            wrong.extend(
                judged
                    .into_iter()
                    .map(|(key, why)| format!("{key:?} {why}")),
            );
        }
    });
    assert!(wrong.is_empty(), "\n{}\n{found:?}", wrong.join("\n"));
    let accelerated = counted(&weir, "accelerated") - before;
    let count = cases().filter(|case| is_wanted(case)).count() as u64;
    assert!(
        accelerated > count,
        "{accelerated} connections of {count} cases"
    );
}
