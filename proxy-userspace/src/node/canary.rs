//! Verified, not assumed: a canary is a process of weir's own that goes into a
//! cgroup below the pod's, and into its namespace, and dials an address that nobody
//! has, one for each family that the pod has. If the hooks see it, it ends at weir's
//! listener and is greeted; if not, it fails.
//!
//! Must never send anything to an address that could be somebody's.

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::pod::{CANARY_ADDRS, CANARY_PORT, Enrolment, Pod};
use super::{SharedKernel, lock};
use crate::kernel::cgroup::{enter_canary, remove_canary};
use nix::sched::{CloneFlags, setns};

/// How often every pod is verified again.
const PERIOD: Duration = Duration::from_mins(1);

/// How long a canary may take in all.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long its connect may take.
const CONNECT: Duration = Duration::from_secs(1);

/// What weir's listener says to a canary.
const GREETING: &[u8] = b"weir\n";

/// The thread that sends canaries.
pub struct Canaries {
    rounds: Sender<Round<Pod>>,
}

/// The pods to verify from now on, and those to verify at once.
struct Round<P> {
    all: Vec<Weak<P>>,
    fresh: Vec<Weak<P>>,
}

impl Canaries {
    /// Starts the thread; it ends with this handle.
    pub fn start(kernel: SharedKernel) -> io::Result<Self> {
        let (rounds, inbox) = channel();
        std::thread::Builder::new()
            .name("weir-canary".into())
            .spawn(move || watch(&inbox, PERIOD, |pod| verify(pod, &kernel)))?;
        Ok(Self { rounds })
    }

    /// Verifies `fresh` at once and `all` regularly. Never waits.
    pub fn watch(&self, all: Vec<Arc<Pod>>, fresh: Vec<Arc<Pod>>) {
        let weak = |pods: Vec<Arc<Pod>>| pods.iter().map(Arc::downgrade).collect();
        let round = Round {
            all: weak(all),
            fresh: weak(fresh),
        };
        if self.rounds.send(round).is_err() {
            tracing::error!("the canary thread has ended: capture is not verified any more");
        }
    }
}

/// Until nobody can send a round any more: `verify` on what is fresh, and on all once
/// in each period, however often a round comes.
fn watch<P>(inbox: &Receiver<Round<P>>, period: Duration, mut verify: impl FnMut(&P)) {
    let mut all: Vec<Weak<P>> = Vec::new();
    let mut due = Instant::now() + period;
    let mut each = |pods: &[Weak<P>]| {
        let alive = pods.iter().filter_map(Weak::upgrade);
        alive.for_each(|pod| verify(&pod));
    };
    loop {
        match inbox.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(round) => {
                all = round.all;
                each(&round.fresh);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if Instant::now() >= due {
            each(&all);
            due = Instant::now() + period;
        }
    }
}

/// Sends one canary and notes what it found.
fn verify(pod: &Pod, kernel: &SharedKernel) {
    let enrolment = match send(pod, kernel) {
        Ok(()) => Enrolment {
            captured: true,
            why: format!("a canary came through over {}", families(pod)),
        },
        Err(why) => Enrolment {
            captured: false,
            why,
        },
    };
    if !enrolment.captured {
        tracing::warn!(workload = %pod.name(), why = enrolment.why, "not captured");
    }
    pod.set_enrolment(enrolment);
}

fn send(pod: &Pod, kernel: &SharedKernel) -> Result<(), String> {
    let mut child = Command::new("/proc/self/exe")
        .arg("canary")
        .arg(&pod.spec().netns)
        .arg(&pod.spec().cgroup)
        .args(dialled(pod).map(|addr| addr.to_string()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("a canary does not start: {error}"))?;
    let ended = wait(&mut child);
    if let Err(error) = remove_canary(&pod.spec().cgroup) {
        tracing::warn!(%error, workload = %pod.name(), "the canary's cgroup could not be removed");
    }
    let mut said = String::new();
    if let Some(stdout) = &mut child.stdout {
        // What a killed canary did not say is not needed.
        let _partial = stdout.read_to_string(&mut said);
    }
    match ended {
        Ok(true) => Ok(()),
        Ok(false) => {
            let around = lock(kernel).surroundings(pod.cgroup());
            Err(format!("{}; {around}", said.trim()))
        }
        Err(error) => Err(format!("a canary was lost: {error}")),
    }
}

/// What a canary in this pod dials: an address of each family that it has.
fn dialled(pod: &Pod) -> impl Iterator<Item = IpAddr> {
    CANARY_ADDRS
        .into_iter()
        .filter(|addr| pod.face(*addr).is_some())
}

/// The families of a pod, for people.
fn families(pod: &Pod) -> String {
    let named = dialled(pod).map(|addr| if addr.is_ipv4() { "IPv4" } else { "IPv6" });
    named.collect::<Vec<_>>().join(" and ")
}

/// Waits for the canary, not for ever. Returns whether it was greeted.
fn wait(child: &mut Child) -> io::Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The canary itself, in a process of its own: joins the pod and dials.
pub fn run(netns: &Path, cgroup: &Path, dialled: &[IpAddr]) -> Result<(), String> {
    enter_canary(cgroup)
        .map_err(|error| format!("joining the pod's cgroup {}: {error}", cgroup.display()))?;
    let file =
        std::fs::File::open(netns).map_err(|error| format!("opening the pod's netns: {error}"))?;
    setns(file, CloneFlags::CLONE_NEWNET)
        .map_err(|error| format!("entering the pod's netns: {error}"))?;
    dialled
        .iter()
        .try_for_each(|addr| dial(SocketAddr::new(*addr, CANARY_PORT.0)))
}

/// One connect, which must come to weir and look as if it came to `to`.
fn dial(to: SocketAddr) -> Result<(), String> {
    let mut stream = TcpStream::connect_timeout(&to, CONNECT)
        .map_err(|error| format!("the connect of a canary to {to} failed ({error})"))?;
    let timeout = stream.set_read_timeout(Some(CONNECT));
    timeout.map_err(|error| format!("the canary's socket: {error}"))?;
    let mut said = [0; GREETING.len()];
    let greeted = stream.read_exact(&mut said).is_ok() && said == GREETING;
    if !greeted {
        return Err("the canary reached somebody who is not weir".into());
    }
    match stream.peer_addr() {
        Ok(peer) if peer == to => Ok(()),
        Ok(peer) => Err(format!(
            "getpeername showed {peer} instead of {to}: the getpeername hook does not run"
        )),
        Err(error) => Err(format!("getpeername: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands for a pod.
    struct Named(&'static str);

    /// A watch with a period of its own, and whom it verifies.
    fn watching(period: Duration) -> (Sender<Round<Named>>, Receiver<&'static str>) {
        let (rounds, inbox) = channel();
        let (verified, seen) = channel();
        std::thread::spawn(move || {
            watch(&inbox, period, |pod: &Named| {
                // The test may have seen enough.
                let _gone = verified.send(pod.0);
            });
        });
        (rounds, seen)
    }

    fn round(all: &[&Arc<Named>], fresh: &[&Arc<Named>]) -> Round<Named> {
        let weak = |pods: &[&Arc<_>]| pods.iter().map(|pod| Arc::downgrade(pod)).collect();
        Round {
            all: weak(all),
            fresh: weak(fresh),
        }
    }

    #[test]
    fn the_fresh_are_verified_at_once_and_all_of_them_in_each_period() {
        let (one, two) = (Arc::new(Named("one")), Arc::new(Named("two")));
        let (rounds, seen) = watching(Duration::from_millis(20));
        let begun = Instant::now();
        rounds.send(round(&[&one, &two], &[&two])).unwrap();
        let next = || seen.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(
            [next(), next(), next(), next(), next()],
            ["two", "one", "two", "one", "two"]
        );
        assert!(begun.elapsed() >= Duration::from_millis(40));
        // Who is gone is verified no more.
        drop(one);
        let mut last = next();
        let alone = (0..100).any(|_| {
            let before = std::mem::replace(&mut last, next());
            (before, last) == ("two", "two")
        });
        assert!(alone, "it is verified for ever");
        // And with the handle the thread ends.
        drop(rounds);
        while seen.recv().is_ok() {}
    }

    #[test]
    fn nobody_waits_longer_for_those_that_come_all_the_time() {
        let (old, new) = (Arc::new(Named("old")), Arc::new(Named("new")));
        let (rounds, seen) = watching(Duration::from_millis(20));
        let comes = || rounds.send(round(&[&old, &new], &[&new])).unwrap();
        // Some are always waiting.
        (0..8).for_each(|_| comes());
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            if seen.recv_timeout(Duration::from_secs(10)).unwrap() == "old" {
                return;
            }
            comes();
        }
        panic!("the old one is never verified");
    }
}
