//! "The app cannot tell": every case of [`testbed::conformance`], run without
//! weir and under each verdict; what differs is what `docs/conformance.md` lists.
//! What is denied has nothing to be compared with, and is held against that page.

use std::net::SocketAddr;

use testbed::Weir;
use testbed::conformance::compare::{Seen, as_denied, findings, lacking, table};
use testbed::conformance::expected::{Dial, VERDICTS, Verdict, as_markdown, denied_as_markdown};
use testbed::conformance::stage::{Client, Stage, dead_ends};
use testbed::conformance::{Run, Way, denied_runs, runs};
use testbed::docs::service;

/// Each way in a pod of its own, so that no way finds what another has left; all at once.
fn without_weir(stage: &Stage) -> Seen {
    let off: Vec<Client> = Way::ALL
        .iter()
        .zip(0..)
        .map(|(way, index)| stage.client(&format!("off-{index}"), *way, index).unwrap())
        .collect();
    let ran: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = off
            .iter()
            .map(|client| scope.spawn(|| client.run(runs())))
            .collect();
        running.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let mut all = Seen::new();
    for (seen, failed) in ran {
        assert!(failed.is_empty(), "without weir: {failed:#?}");
        all.extend(seen);
    }
    let lacking = lacking(&all);
    assert!(lacking.is_empty(), "without weir: {lacking:#?}");
    all
}

/// The runs under a verdict, each way in a pod of its own: what is wrong with them.
fn judge(verdict: &Verdict, clients: &[Client], without: &Seen) -> String {
    let is_under = |run: &Run| run.is_under(verdict);
    let mut with = Seen::new();
    let mut wrong = Vec::new();
    for client in clients {
        let (seen, failed) = client.run(runs().filter(is_under));
        with.extend(seen);
        let told = |(case, error)| format!("{case}, {}: {error}", verdict.name);
        wrong.extend(failed.into_iter().map(told));
    }
    let mut without = without.clone();
    for run in runs().filter(|run| !is_under(run)) {
        without.remove(&run.name());
    }
    let findings = findings(verdict, &without, &with);
    if !findings.is_empty() {
        wrong.push(table(["without weir", verdict.name], &findings));
    }
    wrong.join("\n")
}

/// What weir's hooks decided, as the verdict's outcome: of TCP, and of UDP.
fn decided(weir: &Weir<'_>, verdict: &Verdict) -> [u64; 2] {
    let metrics = weir.metrics();
    ["weir_kernel_connects_total", "weir_kernel_udp_total"]
        .map(|name| metrics.count(name, &[("outcome", verdict.outcome)]))
}

/// Every case dials, so weir must have decided at least once for each of them: a
/// run that the hooks never saw would be equal too.
fn assert_decided(verdict: &Verdict, before: [u64; 2], after: [u64; 2]) {
    let under = runs().filter(|run| run.is_under(verdict));
    let (udp, tcp): (Vec<_>, Vec<_>) = under.partition(Run::is_datagrams);
    for ((kind, cases), (before, after)) in [("TCP", tcp), ("UDP", udp)]
        .into_iter()
        .zip(before.into_iter().zip(after))
    {
        let (cases, decided) = (cases.len() as u64, after - before);
        assert!(
            decided >= cases,
            "{}: {cases} cases of {kind}, but {decided} times {}",
            verdict.name,
            verdict.outcome
        );
    }
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
    let denied = denied_as_markdown();
    assert!(
        shown[..begin].contains(&denied),
        "docs/conformance.md has another list of what is denied than this:\n\n{denied}"
    );
    assert!(
        shown[begin..].trim() == listed.trim(),
        "docs/conformance.md ends with another list than this:\n\n{listed}"
    );
}

#[test]
fn the_application_cannot_tell() {
    let stage = Stage::new().unwrap();
    let without = without_weir(&stage);
    let weir = Weir::start(&stage.node).unwrap();
    weir.enroll_found(&stage.peer, &["app=peer"]);
    weir.apply(&dead_ends());
    let mut index = 3_u8;
    let mut clients = |verdict: &Verdict| -> Vec<Client> {
        let mut client = |way: &Way| {
            let name = format!("{}-{index}", verdict.name);
            let mut client = stage.client(&name, *way, index).unwrap();
            index += 1;
            client.enroll(&weir, "");
            if let Dial::Service(prefix) = verdict.dial {
                client.dial_services();
                weir.apply(&client.services(prefix));
            }
            client
        };
        Way::ALL.iter().map(&mut client).collect()
    };
    let prepared: Vec<(&Verdict, Vec<Client>)> = VERDICTS
        .iter()
        .map(|verdict| (verdict, clients(verdict)))
        .collect();
    let before = VERDICTS.iter().map(|verdict| decided(&weir, verdict));
    let before: Vec<[u64; 2]> = before.collect();
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let without = &without;
        let judging: Vec<_> = prepared
            .iter()
            .map(|(verdict, clients)| scope.spawn(move || judge(verdict, clients, without)))
            .collect();
        judging.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert!(wrong.iter().all(String::is_empty), "\n{}", wrong.join("\n"));
    for (verdict, before) in VERDICTS.iter().zip(before) {
        assert_decided(verdict, before, decided(&weir, verdict));
    }
}

/// Twice: what no rule opens outside of the mesh, and a port that a service does not have.
#[test]
fn what_is_denied_is_refused_alike_in_every_form() {
    let stage = Stage::new().unwrap();
    let outside = stage.node.outside("outside").unwrap();
    let weir = Weir::start(&stage.node).unwrap();
    weir.enroll_found(&stage.peer, &["app=peer"]);
    let address = "10.96.0.1, 'fd00:96::1'";
    weir.apply(&service("s", address, "peer", &["port: 80"]));
    let no_port: [SocketAddr; 2] =
        ["10.96.0.1:81", "[fd00:96::1]:81"].map(|at| at.parse().unwrap());
    let mut wrong = Vec::new();
    let targets = [
        ("outside", [outside.at(80), outside.at6(80)]),
        ("no-port", no_port),
    ];
    for (index, (name, denied)) in (0..).zip(targets) {
        for (way, index) in Way::ALL.iter().zip(3 * index..) {
            let name = format!("{name}-{index}");
            let mut client = stage.client(&name, *way, index).unwrap();
            [client.targets.denied, client.targets.denied6] = denied;
            client.enroll(&weir, "");
            let (seen, failed) = client.run(denied_runs());
            wrong.extend(
                failed
                    .into_iter()
                    .map(|(case, error)| format!("{name}, {case}: {error}")),
            );
            let findings = as_denied(*way, &seen);
            if !findings.is_empty() {
                wrong.push(table(["expected", &name], &findings));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
