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

use nix::sched::{CloneFlags, setns};

use super::pod::{CANARY_ADDRS, CANARY_PORT, Enrolment, Pod};
use crate::kernel::cgroup::{enter_canary, remove_canary};

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
    rounds: Sender<Round>,
}

/// The pods to verify from now on, and those to verify at once.
struct Round {
    all: Vec<Weak<Pod>>,
    fresh: Vec<Weak<Pod>>,
}

impl Canaries {
    /// Starts the thread; it ends with this handle.
    pub fn start() -> io::Result<Self> {
        let (rounds, inbox) = channel();
        std::thread::Builder::new()
            .name("weir-canary".into())
            .spawn(move || watch(&inbox))?;
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

fn watch(inbox: &Receiver<Round>) {
    let mut all: Vec<Weak<Pod>> = Vec::new();
    let mut due = Instant::now() + PERIOD;
    loop {
        let now = Instant::now();
        match inbox.recv_timeout(due.saturating_duration_since(now)) {
            Ok(round) => {
                all = round.all;
                round
                    .fresh
                    .iter()
                    .filter_map(Weak::upgrade)
                    .for_each(|pod| verify(&pod));
            }
            Err(RecvTimeoutError::Timeout) => {
                all.iter()
                    .filter_map(Weak::upgrade)
                    .for_each(|pod| verify(&pod));
                due = Instant::now() + PERIOD;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Sends one canary and notes what it found.
fn verify(pod: &Pod) {
    let enrolment = match send(pod) {
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

fn send(pod: &Pod) -> Result<(), String> {
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
        Ok(false) => Err(said.trim().to_owned()),
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
    let mut stream = TcpStream::connect_timeout(&to, CONNECT).map_err(|error| {
        format!("the connect of a canary to {to} failed ({error}): weir's hooks do not run in this cgroup, or not before another program's")
    })?;
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
