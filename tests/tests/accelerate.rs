//! Acceleration, really: bytes go from socket to socket, whoever does not want
//! it gets what he always had, and what breaks is what the self-test says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::Value;
use testbed::agent::proto::{Service, SockOption};
use testbed::agent::{HttpRequest, Load};
use testbed::mesh::{accelerating, acceleration, ask, broken, counted};
use testbed::{Node, Weir};

/// What membership among the accelerated is known to break, on one kernel or another.
const KNOWN: [&str; 20] = [
    "back-pressure",
    "before-accept",
    "blocked-read",
    "early-read",
    "fionread",
    "ktls",
    "memory",
    "notsent-lowat",
    "oob",
    "rcvlowat",
    "reset-told-once",
    "reset-unread",
    "rounds-half-close",
    "splice-out",
    "tcp-inq",
    "trunc",
    "user-timeout",
    "uring-multishot",
    "waitall",
    "zerocopy",
];

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 96, 0, 1], port))
}

/// Broken on a kernel where two things happen at the same moment: one run of the
/// self-test may not meet it.
const RACE: &str = "rounds-half-close";

/// The table of docs/acceleration.md: the kernel that it is about, and each case with
/// whether it is broken there.
fn documented() -> (String, BTreeMap<String, bool>) {
    const HEAD: &str = "| case | what must hold | on Linux ";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/acceleration.md");
    let shown = std::fs::read_to_string(path).unwrap();
    let mut lines = shown.lines().skip_while(|line| !line.starts_with(HEAD));
    let head = lines.next().expect("a table of cases");
    let kernel = head[HEAD.len()..].trim_end_matches(" |").to_owned();
    let mut cases = BTreeMap::new();
    for row in lines.skip(1).take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [names, _, found] = cells[..] else {
            panic!("{row} has other cells than its head");
        };
        let is_broken = found.starts_with("**broken**");
        let names = names.trim_start_matches("| ").split(", ");
        cases.extend(names.map(|name| (name.trim_matches('`').to_owned(), is_broken)));
    }
    (kernel, cases)
}

/// Every case of the self-test, as it remembers them.
fn tried(weir: &Weir<'_>) -> BTreeSet<String> {
    let text = std::fs::read_to_string(weir.state_dir().join("acceleration.json")).unwrap();
    let remembered: Value = serde_json::from_str(&text).unwrap();
    let cases = remembered["verdict"]["cases"].as_array().unwrap();
    let name = |case: &Value| case["name"].as_str().unwrap().to_owned();
    cases.iter().map(name).collect()
}

/// Whether this machine runs a kernel of that version, whoever built it.
fn runs(kernel: &str) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let rest = release.trim().strip_prefix(kernel);
    rest.is_some_and(|rest| !rest.starts_with(|next: char| next == '.' || next.is_ascii_digit()))
}

#[test]
fn a_balanced_and_a_proxied_connection_are_accelerated() {
    let node = Node::new().unwrap();
    let (weir, client, server) = accelerating(&node, "force");
    let listener = server.agent().listen(server.at(8000), 16).unwrap();
    for (port, legs) in [(81, 1), (80, 2)] {
        let before = counted(&weir, "accelerated");
        let _ends = ask(&client, &listener, at(port));
        assert_eq!(counted(&weir, "accelerated") - before, legs, "{port}");
        assert_eq!(counted(&weir, "passed"), 0);
        assert_eq!(counted(&weir, "refused"), 0);
    }
}

/// Nobody is seated, and nothing hangs anywhere.
#[test]
fn off_costs_nothing() {
    let node = Node::new().unwrap();
    let (weir, client, server) = accelerating(&node, "off");
    let listener = server.agent().listen(server.at(8000), 16).unwrap();
    for port in [80, 81] {
        let _ends = ask(&client, &listener, at(port));
    }
    for outcome in ["accelerated", "passed", "refused"] {
        assert_eq!(counted(&weir, outcome), 0, "{outcome}");
    }
    let status = acceleration(&weir);
    assert_eq!(status["inForceFor"], "nobody", "{status}");
    assert!(!node.bpffs().join("weir/links/accelerate").exists());
}

/// Both ends must take part, and a workload's own word counts.
#[test]
fn each_workload_chooses_for_itself() {
    let node = Node::new().unwrap();
    let (weir, client, server) = accelerating(&node, "force");
    let listener = server.agent().listen(server.at(8000), 16).unwrap();
    let choose = |name: &str, mode: &str| {
        let patch = format!(r#"{{"spec":{{"accelerate":{mode}}}}}"#);
        weir.ok(&["patch", "workload", name, "-p", &patch]);
    };
    let grown = |before: (u64, u64)| {
        let now = (counted(&weir, "accelerated"), counted(&weir, "passed"));
        (now.0 - before.0, now.1 - before.1)
    };
    for (at_client, at_server, wanted) in [
        ("null", r#""off""#, (0, 1)),
        (r#""off""#, "null", (0, 0)),
        (r#""force""#, "null", (1, 0)),
    ] {
        choose("client", at_client);
        choose("server", at_server);
        let before = grown((0, 0));
        let _ends = ask(&client, &listener, at(81));
        assert_eq!(grown(before), wanted, "{at_client} {at_server}");
    }
    let refused = weir.cli(&[
        "patch",
        "workload",
        "client",
        "-p",
        r#"{"spec":{"accelerate":"on"}}"#,
    ]);
    let refused = refused.unwrap();
    assert!(
        refused.stderr.contains("one of `auto`, `force`, `off`"),
        "{refused:?}"
    );
}

/// `auto` says what kept it off, or is in force; and a restart remembers.
#[test]
fn auto_follows_the_self_test() {
    let node = Node::new().unwrap();
    let (mut weir, client, server) = accelerating(&node, "auto");
    let listener = server.agent().listen(server.at(8000), 16).unwrap();
    // Enforcement did not wait for it.
    let _ends = ask(&client, &listener, at(80));
    let found = broken(&weir);
    let told = weir.ok(&["status"]);
    for case in &found {
        assert!(
            told.contains(&format!("acceleration breaks {case}: ")),
            "{told}"
        );
    }
    let before = counted(&weir, "accelerated");
    let _ends = ask(&client, &listener, at(81));
    let legs = counted(&weir, "accelerated") - before;
    assert_eq!(legs, u64::from(found.is_empty()), "{found:?}");
    if !found.is_empty() {
        let status = acceleration(&weir);
        assert_eq!(status["inForceFor"], "nobody", "{status}");
        weir.await_log(&["self-test of acceleration: off unless forced"]);
    }
    weir.stop().unwrap();
    weir.launch().unwrap();
    assert_eq!(broken(&weir), found);
    let said = acceleration(&weir)["selfTest"].to_string();
    assert!(said.contains("earlier start"), "{said}");
}

/// A workload can force what `auto` does not do, for itself alone.
#[test]
fn one_workload_forces_it_under_auto() {
    let node = Node::new().unwrap();
    let (weir, client, server) = accelerating(&node, "auto");
    let all = broken(&weir).is_empty();
    let listener = server.agent().listen(server.at(8000), 16).unwrap();
    let before = counted(&weir, "accelerated");
    let _ends = ask(&client, &listener, at(81));
    assert_eq!(counted(&weir, "accelerated") - before, u64::from(all));
    let before = counted(&weir, "accelerated");
    for name in ["client", "server"] {
        let force = r#"{"spec":{"accelerate":"force"}}"#;
        weir.ok(&["patch", "workload", name, "-p", force]);
    }
    let _ends = ask(&client, &listener, at(81));
    assert_eq!(counted(&weir, "accelerated") - before, 1);
}

/// What the self-test finds here is what the documentation says: of the kernel that
/// it is about exactly, of others nothing that is not known.
#[test]
fn the_documentation_says_what_is_broken() {
    let node = Node::new().unwrap();
    let (weir, _client, _server) = accelerating(&node, "auto");
    let found = broken(&weir);
    let (kernel, cases) = documented();
    assert_eq!(tried(&weir), cases.keys().cloned().collect());
    let listed: BTreeSet<String> = cases
        .into_iter()
        .filter_map(|(name, is_broken)| is_broken.then_some(name))
        .collect();
    if runs(&kernel) {
        let with_race = |mut names: BTreeSet<String>| {
            names.insert(RACE.to_owned());
            names
        };
        assert!(listed.contains(RACE), "{listed:?}");
        assert_eq!(with_race(found), listed, "on {kernel}");
    } else {
        let known = |name: &String| KNOWN.contains(&name.as_str());
        assert!(found.iter().all(known), "{found:?}");
    }
}

/// Under `force` nothing fails but what is known, and said.
#[test]
fn forced_the_named_failures_are_the_only_ones() {
    const LEN: u64 = 40 << 20;
    let node = Node::new().unwrap();
    let (weir, client, server) = accelerating(&node, "force");
    let found = broken(&weir);
    let unknown: Vec<_> = found
        .iter()
        .filter(|name| !KNOWN.contains(&name.as_str()))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    let listener = server.agent().listen(server.at(8000), 16).unwrap();
    for port in [80, 81] {
        let (near, far) = ask(&client, &listener, at(port));
        for sock in [&near, &far] {
            sock.set(SockOption::Timeout(60_000)).unwrap();
        }
        let (at_client, at_server) = std::thread::scope(|scope| {
            let server = scope.spawn(|| far.bulk(7, LEN, LEN).unwrap());
            let client = near.bulk(1_000_003, LEN, LEN).unwrap();
            (client, server.join().unwrap())
        });
        assert_eq!(
            (at_client.received, at_server.received),
            (LEN, LEN),
            "{port}"
        );
        assert_eq!(at_client.sent_hash, at_server.received_hash, "{port}");
        assert_eq!(at_server.sent_hash, at_client.received_hash, "{port}");
        // Each half ends on its own.
        near.shutdown_write().unwrap();
        assert_eq!(far.recv(10).unwrap(), b"");
        far.send("late answer").unwrap();
        drop(far);
        let (said, fault) = near.recv_to_end().unwrap();
        assert!(
            said == "late answer" || found.contains("rounds-half-close"),
            "{said} {fault:?}"
        );
        // A reset stays one.
        let (near, far) = ask(&client, &listener, at(port));
        near.abort().unwrap();
        let (_, fault) = far.recv_to_end().unwrap();
        assert!(fault.is_some(), "{port}: a reset was due");
    }
    drop(listener);
    let what = Service::Http {
        pod: "server".to_owned(),
        version: "v1".to_owned(),
    };
    server.agent().serve(server.at(8000), what).unwrap();
    for port in [80, 81] {
        let load = Load {
            addr: at(port),
            request: HttpRequest::get("s", "/"),
            count: 2_000,
            connections: 8,
            pause_ms: 0,
            pointer: String::new(),
        };
        let report = client.agent().load(load).unwrap();
        assert_eq!(
            (report.sent, report.failed()),
            (2_000, 0),
            "{port}: {report:?}"
        );
    }
    assert!(counted(&weir, "accelerated") > 30);
}
