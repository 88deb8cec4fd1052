//! The hook and the daemon decide alike: what `weir explain` says of random
//! destinations under random configurations is what the kernel then does.
//!
//! A failure names its seed; `WEIR_AGREE_SEED=<seed>` repeats the same
//! configurations and dials. Which endpoint is drawn stays the kernel's choice.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use nix::errno::Errno;
use serde_json::Value;
use testbed::agent::proto::Service;
use testbed::dice::{self, Dice};
use testbed::explained::{self, AUDITS, DENIALS, Dialled, Refusal, TCP, UDP};
use testbed::{Agent, Fault, Node, Pod, Weir, eventually};

/// What a dial came to: who answered, if that was awaited.
type Dial = Result<Option<String>, Fault>;

const SEED: &str = "WEIR_AGREE_SEED";
const CONFIGURATIONS: usize = 6;
const DESTINATIONS: usize = 60;
const LIMIT: Duration = Duration::from_secs(5);

const OUTCOMES: [(&str, &str); 9] = [
    (TCP, "direct"),
    (TCP, "denied"),
    (TCP, "proxied"),
    (TCP, "balanced"),
    (TCP, "no_endpoint"),
    (UDP, "direct"),
    (UDP, "denied"),
    (UDP, "balanced"),
    (UDP, "no_endpoint"),
];

/// What is dialled, and what has to be told of it.
struct Scene<'a> {
    weir: &'a Weir<'a>,
    clients: &'a [Pod; 2],
    seed: u64,
    dice: Dice,
    refusals: BTreeMap<Refusal, u64>,
    outcomes: BTreeMap<(&'static str, &'static str), usize>,
    /// Lines of balanced connections that were held against their dials already.
    endings: usize,
    requests: usize,
}

impl Scene<'_> {
    /// One configuration, and many dials under it.
    fn round(&mut self) {
        let documents = dice::documents(&mut self.dice);
        let prune = ["apply", "-f", "-", "--prune", "-l", dice::LABEL];
        let applied = self.weir.cli_with(&prune, &documents).unwrap();
        let context = format!("{SEED}={}\n{documents}", self.seed);
        assert_eq!(applied.status, 0, "{applied:?}\n{context}");
        let mut endings = Vec::new();
        let mut requests = BTreeMap::new();
        for _ in 0..DESTINATIONS {
            let dialled = self.dial(&context);
            holds(dialled.hold_outcome(), &dialled, &Value::Null, &context);
            if let Some(refusal) = dialled.refusal() {
                *self.refusals.entry(refusal).or_default() += 1;
            }
            let outcome = (dialled.family(), dialled.outcome);
            *self.outcomes.entry(outcome).or_default() += 1;
            if dialled.has_ending() {
                endings.push(dialled);
            } else if dialled.outcome == "proxied" {
                requests.insert(path(self.requests), dialled);
                self.requests += 1;
            }
        }
        let lines = self.lines("connection", self.endings + endings.len());
        for (dialled, line) in endings.iter().zip(&lines[self.endings..]) {
            holds(dialled.hold_ending(line), dialled, line, &context);
        }
        self.endings += endings.len();
        for line in self.lines("request", self.requests) {
            if let Some(dialled) = requests.remove(line["path"].as_str().unwrap()) {
                holds(dialled.hold_request(&line), &dialled, &line, &context);
            }
        }
        let missing: Vec<_> = requests.keys().collect();
        assert!(missing.is_empty(), "{missing:?}\n{context}");
    }

    /// Dials a random destination as `weir explain` says that it will end.
    fn dial(&mut self, context: &str) -> Dialled {
        let client = &self.clients[usize::from(self.dice.one_in(3))];
        let to = dice::destination(&mut self.dice, client);
        let is_udp = self.dice.one_in(2);
        let connects = self.dice.one_in(2);
        let asked = format!("{to}{}", if is_udp { "/udp" } else { "" });
        let said = self.weir.json(&["explain", client.name(), &asked]);
        let before = outcomes(self.weir);
        let result = if is_udp {
            let awaits = said["verdict"] == "balance";
            datagram(client.agent(), to, connects, awaits)
        } else {
            stream(client.agent(), to, &said, &path(self.requests))
        };
        let counted = self.counted(before);
        let context = format!("{asked}: {result:?}\n{said}\n{context}");
        let [(family, outcome)] = counted[..] else {
            panic!("counted as {counted:?}\n{context}");
        };
        let fails = |errno| matches!(&result, Err(fault) if fault.is(errno));
        let (denied, refused) = (fails(Errno::EPERM), fails(Errno::ECONNREFUSED));
        assert_eq!(family == UDP, is_udp, "{context}");
        assert_eq!(outcome == "denied", denied, "{context}");
        assert!(refused || outcome != "no_endpoint", "{context}");
        assert!(result.is_ok() || denied || refused, "{context}");
        Dialled {
            workload: format!("default/{}", client.name()),
            to,
            is_udp,
            answered: result.ok().flatten(),
            outcome,
            said,
        }
    }

    /// What a dial was counted as. The canary's own dials are proxied, at any time.
    fn counted(&self, before: [u64; OUTCOMES.len()]) -> Vec<(&'static str, &'static str)> {
        let after = outcomes(self.weir);
        let mut counted = Vec::new();
        for ((outcome, before), after) in OUTCOMES.into_iter().zip(before).zip(after) {
            let times = usize::try_from(after - before).unwrap();
            counted.extend(std::iter::repeat_n(outcome, times));
        }
        let canary = |outcome: &(_, _)| *outcome == (TCP, "proxied");
        if counted.iter().all(canary) {
            counted.truncate(1);
        } else {
            counted.retain(|outcome| !canary(outcome));
        }
        counted
    }

    /// All lines of this type, once there are `count`.
    fn lines(&self, of_type: &str, count: usize) -> Vec<Value> {
        eventually("the log has all of them", LIMIT, || {
            let mut lines = self.weir.log_lines();
            lines.retain(|line| line["type"] == of_type);
            let found = lines.len();
            (found == count)
                .then_some(lines)
                .ok_or_else(|| format!("{found} of {count}: {of_type}, {SEED}={}", self.seed))
        })
    }

    /// Every refusal was told as often as there was one, and no other.
    fn hold_refusals(&self) {
        eventually("the refusals are counted", LIMIT, || {
            let metrics = self.weir.metrics();
            for (refusal, count) in &self.refusals {
                let [metric, source, destination, reason, rule] = refusal.each_ref();
                let labels = [
                    ("source", source.as_str()),
                    ("destination", destination),
                    ("reason", reason),
                    ("rule", rule),
                ];
                let counted = metrics.count(metric, &labels);
                if counted != *count {
                    let seed = self.seed;
                    return Err(format!(
                        "{refusal:?}: {counted}, not {count}: {SEED}={seed}"
                    ));
                }
            }
            let all = [DENIALS, AUDITS];
            let counted: u64 = all.map(|metric| metrics.count(metric, &[])).iter().sum();
            let count: u64 = self.refusals.values().sum();
            let shown = all.map(|metric| metrics.show(metric)).concat();
            (counted == count)
                .then_some(())
                .ok_or_else(|| format!("{counted}, not {count}: {SEED}={}\n{shown}", self.seed))
        });
    }
}

/// Says of what it was not so.
fn holds(result: Result<()>, dialled: &Dialled, line: &Value, context: &str) {
    if let Err(what) = result {
        let (from, to) = (&dialled.workload, dialled.destination());
        panic!(
            "{what}: {from} to {to}: {}\n{line}\n{context}",
            dialled.said
        );
    }
}

fn path(number: usize) -> String {
    format!("/{number}")
}

/// A connection, and who answered it if it was balanced. It ends with a reset, so that
/// its end is told before the next one begins.
fn stream(agent: &Agent, to: SocketAddr, said: &Value, path: &str) -> Dial {
    let sock = agent.dial(to)?;
    let is_balanced = said["verdict"] == "balance";
    let mut answered = None;
    if is_balanced || said["verdict"] == "proxy" {
        sock.send(explained::ask(path))?;
        let (answer, _) = sock.recv_to_end()?;
        answered = answer.split(' ').next().map(str::to_owned);
    }
    sock.abort()?;
    Ok(answered.filter(|_| is_balanced))
}

/// By `connect`, or with its address; who answered it, if somebody has to.
fn datagram(agent: &Agent, to: SocketAddr, connects: bool, awaits: bool) -> Dial {
    let sock = if to.is_ipv4() {
        agent.udp4()?
    } else {
        agent.udp6()?
    };
    if connects {
        sock.connect(to)?;
    }
    let answer = match (connects, awaits) {
        (true, false) => return Ok(None),
        (true, true) => sock.send("x").and_then(|()| sock.recv_from()),
        (false, _) => sock.send_to(to, "x").and_then(|()| {
            if awaits {
                sock.recv_from()
            } else {
                Ok((String::new(), to))
            }
        }),
    };
    let (said, from) = answer?;
    assert_eq!(from, to, "{said}");
    Ok(said.split(' ').next().filter(|_| awaits).map(str::to_owned))
}

/// How often the hook came to each outcome so far.
fn outcomes(weir: &Weir<'_>) -> [u64; OUTCOMES.len()] {
    let metrics = weir.metrics();
    OUTCOMES.map(|(family, outcome)| metrics.count(family, &[("outcome", outcome)]))
}

/// On each address somebody answers datagrams with it; on every second one, also
/// connections, and on the others these are refused.
fn serve(node: &Node) -> Agent {
    let agent = node.agent().unwrap();
    for (index, ip) in dice::endpoints().enumerate() {
        if ip.is_ipv6() {
            let add = format!("addr add {ip}/128 dev lo nodad");
            node.netns().ip([add]).unwrap();
        }
        for port in dice::TARGETS {
            let addr = SocketAddr::new(ip, port);
            let name = addr.to_string();
            let what = Service::Datagrams { name: name.clone() };
            agent.serve(addr, what).unwrap();
            if index % 4 < 2 {
                agent.serve(addr, Service::Whoami { name }).unwrap();
            }
        }
    }
    agent
}

#[test]
fn the_hook_does_what_explain_says() {
    let seed = env::var(SEED).map_or_else(
        |_| RandomState::new().hash_one(0),
        |seed| seed.parse().unwrap(),
    );
    let node = Node::new().unwrap();
    node.netns()
        .ip([
            "route add local 203.0.113.0/24 dev lo",
            "route add local fd00:113::/32 dev lo",
        ])
        .unwrap();
    let _endpoints = serve(&node);
    let weir = Weir::start(&node).unwrap();
    let clients = node.pods(["client", "other"]).unwrap();
    weir.enroll(&clients[0], &["app=c"]);
    weir.enroll(&clients[1], &["app=o"]);
    let mut scene = Scene {
        weir: &weir,
        clients: &clients,
        seed,
        dice: Dice::new(seed),
        refusals: BTreeMap::new(),
        outcomes: BTreeMap::new(),
        endings: 0,
        requests: 0,
    };
    for _ in 0..CONFIGURATIONS {
        scene.round();
    }
    scene.hold_refusals();
    let seen: Vec<_> = scene.outcomes.keys().copied().collect();
    let all: BTreeSet<_> = OUTCOMES.into_iter().collect();
    assert_eq!(seen, Vec::from_iter(all), "{SEED}={seed}");
    weir.finish().unwrap();
}
