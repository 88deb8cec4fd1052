//! The self-test itself, in a process of its own: a private node of one
//! workload, itself, with the kernel half that the daemon would use.
//!
//! Everything it makes goes with the process: the network namespace, the mount
//! namespace with its bpffs, the programs. The cgroup is its parent's to remove.
//! Must never do anything in the daemon's own namespaces or cgroup.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use proxy_common::{
    Acceleration, Addr, AddressKey, Counter, Extent, NetnsCookie, NetworkId, Workload, WorkloadId,
};

use super::arena::{Fault, Pair, Road, expect, numbered, read_some, write};
use super::cases::{CASES, Case};
use super::{CaseResult, Outcome, Said, pace};
use crate::kernel::{Cgroup, Kernel, Limits, LoadOptions, MapLimit, Pins, TableMap, calls};
use crate::socket::Netns;
use crate::tables::TableSet;

/// Name of the self-test's cgroup below the pods'.
pub const CGROUP: &str = "weir-self-test";

/// How long one case may take on one road, on a usual machine.
const CASE_LIMIT: Duration = Duration::from_millis(4_500);

/// The name under which it is told what a change in mid-connection does.
const CHANGE: &str = "policy-change";

/// Runs every case and prints a line of JSON for each.
pub fn run(root: &Path, bpffs: &Path) -> anyhow::Result<()> {
    calls::end_with_parent()?;
    let place = root.join(CGROUP);
    fs::create_dir_all(&place)?;
    let cgroup = Cgroup::open(&place)?;
    let own = cgroup.enter_own()?;
    let mut kernel = private_node(&cgroup, &own, bpffs)?;
    tell(&Said::Pace(pace::measure()?));
    let waiting: Vec<_> = CASES
        .iter()
        .filter(|case| case.waits)
        .map(|case| std::thread::spawn(move || tried(case)))
        .collect();
    for case in CASES.iter().filter(|case| !case.waits) {
        tell(&Said::Case(tried(case)));
    }
    for case in waiting {
        if let Ok(result) = case.join() {
            tell(&Said::Case(result));
        }
    }
    let count = |kernel: &Kernel| {
        let counters = kernel.counters();
        let found = counters
            .iter()
            .find(|(counter, _)| *counter == Counter::Accelerated);
        found.map_or(0, |(_, total)| *total)
    };
    let accelerated = count(&kernel);
    tell(&Said::Case(CaseResult {
        name: "accelerated".to_owned(),
        must: "the connections of the other cases were accelerated at all".to_owned(),
        outcome: outcome(expect(accelerated > 1_000, || {
            format!("{accelerated} connections were")
        })),
    }));
    tell(&Said::Case(CaseResult {
        name: CHANGE.to_owned(),
        must: "a connection outlives a change of what is accelerated".to_owned(),
        outcome: outcome(change(&mut kernel)),
    }));
    Ok(())
}

/// Namespaces of its own, and the kernel half in them.
fn private_node(cgroup: &Cgroup, own: &Cgroup, bpffs: &Path) -> anyhow::Result<Kernel> {
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

/// One workload, whose address of one road is nearby.
fn tables(netns: NetnsCookie) -> TableSet {
    let mut tables = TableSet::default();
    let workload = Workload {
        id: WorkloadId(1),
        accelerate: Acceleration::Force as u8,
        ..Workload::default()
    };
    tables.workloads.insert(netns, workload);
    let nearby = AddressKey {
        network: NetworkId::default(),
        addr: Addr::from(std::net::IpAddr::from(Road::Accelerated.addr())),
    };
    tables.nearby.insert(nearby, netns);
    tables
}

/// A case on plain TCP, and if it holds there, accelerated.
fn tried(case: &Case) -> CaseResult {
    let outcome = match limited(case.run, Road::Plain) {
        Ok(()) => outcome(limited(case.run, Road::Accelerated)),
        Err(Fault::Call(error)) if is_absent(&error) => Outcome::Absent {
            why: error.to_string(),
        },
        Err(fault) => Outcome::Broken {
            why: format!("it does not hold on plain TCP here either: {fault}"),
        },
    };
    CaseResult {
        name: case.name.to_owned(),
        must: case.must.to_owned(),
        outcome,
    }
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

/// Takes the programs away while bytes are under way, and brings them back.
fn change(kernel: &mut Kernel) -> Result<(), Fault> {
    const WORDS: u32 = 10_000;
    let Pair { near, far } = Road::Accelerated.pair()?;
    let failed = |error: crate::kernel::KernelError| Fault::Wrong(error.to_string());
    for (turn, extent) in [Extent::Nobody, Extent::All, Extent::Forced]
        .into_iter()
        .enumerate()
    {
        let bytes = numbered(u32::try_from(turn).unwrap_or(0) * WORDS, WORDS);
        let (before, after) = bytes.split_at(bytes.len() / 2);
        let ends: [(&TcpStream, &TcpStream); 2] = [(&near, &far), (&far, &near)];
        for (from, _) in ends {
            write(from, before)?;
        }
        kernel.accelerate(extent).map_err(failed)?;
        for (from, to) in ends {
            write(from, after)?;
            let read = read_some(to, bytes.len())?;
            expect(read == bytes, || {
                "bytes are missing or out of order".to_owned()
            })?;
        }
    }
    Ok(())
}

/// One line for the parent.
fn tell(said: &Said) {
    if let Ok(line) = serde_json::to_string(said) {
        let mut out = std::io::stdout().lock();
        // A parent that is gone needs no result, and has ended this process.
        let _gone = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}
