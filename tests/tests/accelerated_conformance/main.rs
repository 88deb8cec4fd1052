//! What an application can tell of acceleration: every case of TCP of
//! [`testbed::conformance`] under `balance` and `proxy`, by a client that refuses
//! acceleration and by one that forces it. What differs is listed here, each with
//! the case of the self-test that says so.

mod differences;

use std::collections::{BTreeMap, BTreeSet};

use differences::Because::{Broken, Said};
use differences::DIFFERENCES;
use testbed::conformance::compare::Seen;
use testbed::conformance::expected::{Dial, VERDICTS};
use testbed::conformance::stage::{Client, Stage, dead_ends};
use testbed::conformance::{Run, Way, runs};
use testbed::mesh::{broken, counted};
use testbed::{Weir, WeirOptions};

/// Cases that acceleration makes unfit to be run. In the first a writer that nobody
/// holds back takes all memory that TCP may have, and the rest of the machine's
/// connections with it; the self-test stops at 48 MiB, and calls it `back-pressure`.
/// In the second a thread waits in a read while another writes: where `blocked-read`
/// is broken it is told [`WOKEN`] more often than not, and reads no more, so that the
/// other end stands still.
const UNFIT: [&str; 2] = ["transfer/full", "transfer/both-ways"];

/// What a read that waits says where `blocked-read` is broken, instead of the end, a
/// reset or a time-out: now and then, as something else may have woken it just before.
const WOKEN: &str = "EAGAIN";

/// The same in words.
const BROKE_OFF: &str = "Resource temporarily unavailable";

/// How often a case is run that a read of [`WOKEN`] broke off.
const ATTEMPTS: usize = 5;

/// What each case saw, and what became of those that did not come to their end.
/// Where reads that wait may fail, one that broke off for that is run again.
fn run(client: &Client, may_fail: bool) -> (Seen, Vec<String>) {
    let (mut seen, mut failed) = client.run(runs().filter(is_wanted));
    for _ in 1..if may_fail { ATTEMPTS } else { 1 } {
        failed.retain(|name, error| {
            let broke_off = error.contains(BROKE_OFF);
            if broke_off {
                let (again, still) = client.run(runs().filter(|run| run.name() == *name));
                seen.extend(again);
                if let Some(now) = still.into_values().next() {
                    *error = now;
                }
            }
            !seen.contains_key(name)
        });
    }
    let told = |(case, error)| format!("{case}: {error}");
    (seen, failed.into_iter().map(told).collect())
}

/// Whether it is run here. UDP is never accelerated.
fn is_wanted(run: &Run) -> bool {
    run.way == Way::V4 && !run.is_datagrams() && !UNFIT.contains(&run.name().as_str())
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
    let ends = ["FIN", "ECONNRESET", "ETIMEDOUT"];
    ends.iter().any(|end| one.ends_with(end)) && other.ends_with(WOKEN)
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
    let stage = Stage::new().unwrap();
    let weir = Weir::start_with(&stage.node, forcing()).unwrap();
    let found = broken(&weir);
    let may_fail = found.contains("blocked-read");
    weir.enroll_found(&stage.peer, &["app=peer"]);
    weir.apply(&dead_ends());
    let services = VERDICTS.iter().filter_map(|verdict| match verdict.dial {
        Dial::Workload => None,
        Dial::Service(prefix) => Some((verdict.name, prefix)),
    });
    let both: Vec<(&str, [Client; 2])> = services
        .zip([1, 3])
        .map(|((verdict, prefix), index)| {
            let clients = [(0, "off"), (1, "force")].map(|(more, accelerate)| {
                let name = format!("{verdict}-{accelerate}");
                let mut client = stage.client(&name, Way::V4, index + more).unwrap();
                client.enroll(&weir, &format!(", accelerate: {accelerate}"));
                client.dial_services();
                weir.apply(&client.services(prefix));
                client
            });
            (verdict, clients)
        })
        .collect();
    assert_eq!(both.len(), 2, "each verdict that is accelerated");
    let before = counted(&weir, "accelerated");
    let mut wrong = Vec::new();
    std::thread::scope(|scope| {
        let running: Vec<_> = both
            .iter()
            .map(|(verdict, [off, force])| {
                let off = scope.spawn(|| run(off, false));
                let force = scope.spawn(|| run(force, may_fail));
                (*verdict, [off, force])
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
    let count = runs().filter(is_wanted).count() as u64;
    assert!(
        accelerated > count,
        "{accelerated} connections of {count} cases"
    );
}
