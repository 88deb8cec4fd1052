//! The self-test itself, in a process of its own: a private node of one
//! workload, itself, with the kernel half that the daemon would use.
//!
//! Everything it makes goes with the process: the network namespace, the mount
//! namespace with its bpffs, the programs. The cgroup is its parent's to remove.
//! Must never do anything in the daemon's own namespaces or cgroup.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use proxy_common::{
    Acceleration, Addr, AddressKey, Extent, NetnsCookie, NetworkId, Workload, WorkloadId,
};

use super::arena::{Family, Fault, Road};
use super::cases::{CASES, Case, Effort};
use super::{CaseResult, Outcome, Said, change, pace};
use crate::kernel::{Cgroup, Kernel, Limits, LoadOptions, MapLimit, Pins, TableMap, calls};
use crate::socket::Netns;
use crate::tables::TableSet;

/// Name of the self-test's cgroup below the pods'.
pub const CGROUP: &str = "weir-self-test";

/// How long one case may take on one road, on a usual machine.
const CASE_LIMIT: Duration = Duration::from_millis(4_500);

/// What shuts IPv6 on the loopback interface of this process's namespace.
const IPV6_SHUT: &str = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";

/// Runs every case and prints a line of JSON for each.
pub fn run(root: &Path, bpffs: &Path) -> anyhow::Result<()> {
    calls::end_with_parent()?;
    let place = root.join(CGROUP);
    fs::create_dir_all(&place)?;
    let cgroup = Cgroup::open(&place)?;
    let own = cgroup.enter_own()?;
    let families = Family::here()?;
    let mut kernel = private_node(&cgroup, &own, bpffs, families)?;
    tell(&Said::Pace(pace::measure()?));
    let waiting: Vec<_> = CASES
        .iter()
        .filter(|case| case.effort == Effort::Waits)
        .map(|case| std::thread::spawn(move || tried(case, families)))
        .collect();
    for case in CASES.iter().filter(|case| case.effort != Effort::Waits) {
        if case.effort == Effort::Works {
            tell(&Said::Pace(pace::measure()?));
        }
        tell(&Said::Case(tried(case, families)));
    }
    for case in waiting {
        if let Ok(result) = case.join() {
            tell(&Said::Case(result));
        }
    }
    tell(&Said::Case(CaseResult {
        name: "accelerated".to_owned(),
        must: "the connections of the other cases were accelerated at all".to_owned(),
        outcome: outcome(change::were_accelerated(&kernel, families)),
    }));
    tell(&Said::Case(CaseResult {
        name: "policy-change".to_owned(),
        must: "a connection outlives a change of what is accelerated, and of who is enrolled"
            .to_owned(),
        outcome: outcome(change::outlived(&mut kernel, families)),
    }));
    Ok(())
}

/// Namespaces of its own, and the kernel half in them.
fn private_node(
    cgroup: &Cgroup,
    own: &Cgroup,
    bpffs: &Path,
    families: &[Family],
) -> anyhow::Result<Kernel> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    let nothing = None::<&PathBuf>;
    mount(
        nothing,
        "/",
        nothing,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        nothing,
    )?;
    mount(Some("bpf"), bpffs, Some("bpf"), MsFlags::empty(), nothing)?;
    calls::loopback_up()?;
    if families.contains(&Family::V6) {
        // A node may have shut IPv6 for namespaces that nobody opens it in.
        fs::write(IPV6_SHUT, "0").with_context(|| IPV6_SHUT.to_owned())?;
        calls::loopback_address(Road::PLAIN_V6).context("a second address of IPv6")?;
    }
    let mut limits = Limits::default();
    for map in TableMap::ALL {
        let entries = std::num::NonZeroU32::new(64).expect("64 is not 0");
        limits.set(MapLimit { map: *map, entries });
    }
    let options = LoadOptions {
        limits,
        debug: false,
        accelerate: true,
    };
    let pins = Pins::new(&bpffs.join("self-test"))?;
    let (mut kernel, _streams) = Kernel::load(&pins, cgroup, own, &options)?;
    kernel.write(&tables(Netns::current()?.cookie()))?;
    kernel.accelerate(Extent::All)?;
    Ok(kernel)
}

/// One workload, whose address of one road of each family is nearby.
pub(super) fn tables(netns: NetnsCookie) -> TableSet {
    let mut tables = TableSet::default();
    let workload = Workload {
        id: WorkloadId(1),
        accelerate: Acceleration::Force as u8,
        ..Workload::default()
    };
    tables.workloads.insert(netns, workload);
    for family in Family::ALL {
        let nearby = AddressKey {
            network: NetworkId::default(),
            addr: Addr::from(Road::accelerated(*family).addr()),
        };
        tables.nearby.insert(nearby, netns);
    }
    tables
}

/// A case in each of its families that this kernel has.
fn tried(case: &Case, here: &[Family]) -> CaseResult {
    let families: Vec<Family> = case
        .families
        .iter()
        .filter(|family| here.contains(family))
        .copied()
        .collect();
    let run = case.run;
    let try_in = |family: &Family| tried_in(run, *family);
    let outcomes: Vec<Outcome> = if case.effort == Effort::Works {
        // What plain TCP can do here it has shown in the first: this takes long.
        let accelerated = |family: &Family| outcome(limited(run, Road::accelerated(*family)));
        let first = families.iter().take(1).map(try_in);
        first
            .chain(families.iter().skip(1).map(accelerated))
            .collect()
    } else {
        std::thread::scope(|scope| {
            let running: Vec<_> = families
                .iter()
                .map(|family| scope.spawn(move || try_in(family)))
                .collect();
            let ended = running.into_iter().map(ScopedJoinHandle::join);
            let known = |outcome: std::thread::Result<Outcome>| {
                outcome.unwrap_or_else(|_| Outcome::Broken {
                    why: "it ended by a panic".to_owned(),
                })
            };
            ended.map(known).collect()
        })
    };
    CaseResult {
        name: case.name.to_owned(),
        must: case.must.to_owned(),
        outcome: in_all(&families, outcomes),
    }
}

/// On plain TCP, and if it holds there, accelerated.
fn tried_in(run: fn(Road) -> Result<(), Fault>, family: Family) -> Outcome {
    match limited(run, Road::plain(family)) {
        Ok(()) => outcome(limited(run, Road::accelerated(family))),
        Err(Fault::Call(error)) if is_absent(&error) => Outcome::Absent {
            why: error.to_string(),
        },
        Err(fault) => Outcome::Broken {
            why: format!("it does not hold on plain TCP here either: {fault}"),
        },
    }
}

/// One outcome for all families: broken where it is in any, and then it says in
/// which; absent where nothing could be tried in any.
fn in_all(families: &[Family], outcomes: Vec<Outcome>) -> Outcome {
    let faults: Vec<(Family, &str)> = families
        .iter()
        .zip(&outcomes)
        .filter_map(|(family, outcome)| match outcome {
            Outcome::Broken { why } => Some((*family, why.as_str())),
            Outcome::Held | Outcome::Absent { .. } => None,
        })
        .collect();
    if let Some((_, first)) = faults.first() {
        let everywhere = faults.len() == families.len();
        let why = if everywhere && faults.iter().all(|(_, why)| why == first) {
            (*first).to_owned()
        } else {
            let told: Vec<String> = faults
                .iter()
                .map(|(family, why)| format!("over {}: {why}", family.name()))
                .collect();
            told.join("; ")
        };
        return Outcome::Broken { why };
    }
    let held = outcomes.contains(&Outcome::Held);
    let absent = outcomes
        .into_iter()
        .find(|outcome| *outcome != Outcome::Held);
    absent.filter(|_| !held).unwrap_or(Outcome::Held)
}

fn outcome(result: Result<(), Fault>) -> Outcome {
    match result {
        Ok(()) => Outcome::Held,
        Err(fault) => Outcome::Broken {
            why: fault.to_string(),
        },
    }
}

/// What a kernel says of something that it does not have, or does not let anybody use.
fn is_absent(error: &std::io::Error) -> bool {
    let absent = [
        libc::ENOENT,
        libc::ENOSYS,
        libc::ENOPROTOOPT,
        libc::EOPNOTSUPP,
        libc::EINVAL,
        libc::EPERM,
    ];
    error
        .raw_os_error()
        .is_some_and(|errno| absent.contains(&errno))
}

/// Runs a case on a thread that is left behind if it hangs: it ends with the process.
fn limited(run: fn(Road) -> Result<(), Fault>, road: Road) -> Result<(), Fault> {
    let (done, inbox) = channel();
    std::thread::spawn(move || {
        // Nobody listens any more if it took too long.
        let _late = done.send(run(road));
    });
    match inbox.recv_timeout(pace::paced(CASE_LIMIT)) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => Err(Fault::Wrong("it hangs".to_owned())),
        Err(RecvTimeoutError::Disconnected) => Err(Fault::Wrong("it ended by a panic".to_owned())),
    }
}

/// One line for the parent.
fn tell(said: &Said) {
    if let Ok(line) = serde_json::to_string(said) {
        let mut out = std::io::stdout().lock();
        // A parent that is gone needs no result, and has ended this process.
        let _gone = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(why: &str) -> Outcome {
        Outcome::Broken {
            why: why.to_owned(),
        }
    }

    #[test]
    fn one_family_is_enough_to_break_a_case_and_is_named() {
        let absent = || Outcome::Absent {
            why: "none".to_owned(),
        };
        let held = || Outcome::Held;
        for (outcomes, wanted) in [
            ([held(), held(), held()], held()),
            ([held(), absent(), held()], held()),
            ([absent(), absent(), absent()], absent()),
            ([broken("a"), broken("a"), broken("a")], broken("a")),
            ([held(), broken("a"), held()], broken("over IPv6: a")),
            (
                [broken("a"), broken("b"), absent()],
                broken("over IPv4: a; over IPv6: b"),
            ),
        ] {
            assert_eq!(
                in_all(Family::ALL, outcomes.to_vec()),
                wanted,
                "{outcomes:?}"
            );
        }
        assert_eq!(in_all(&[Family::V4], vec![broken("a")]), broken("a"));
    }
}
