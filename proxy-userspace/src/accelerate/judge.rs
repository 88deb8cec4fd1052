//! The daemon's side of the self-test: starts it, bounds it, remembers what it
//! found, and allows acceleration where nothing speaks against it.
//!
//! Must never wait for it where anybody else would wait too.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use proxy_common::{Acceleration, Extent};

use super::memory::Memory;
use super::trial::CGROUP;
use super::{CaseResult, Outcome, Said, Verdict, pace};
use crate::control::{AccelerationCase, AccelerationStatus};
use crate::kernel::Kernel;
use crate::node::{SharedKernel, lock};

/// How long the whole self-test may take on a usual machine: a few seconds are
/// usual. A slower one says so first, and gets as many times more.
const LIMIT: Duration = Duration::from_secs(30);

/// How long the self-test's cgroup may need to become empty.
const EMPTY: Duration = Duration::from_secs(1);

/// Results that may wait to be read.
const RESULTS_MAX: usize = 256;

/// Where the self-test is to run.
#[derive(Clone, Debug)]
pub struct SelfTest {
    /// The pods' cgroup parent.
    pub cgroup: PathBuf,
    /// A directory to mount a private bpffs over.
    pub bpffs: PathBuf,
    /// Where its verdict is remembered.
    pub state_dir: PathBuf,
}

/// What is known of this kernel.
enum State {
    /// Nobody may accelerate, so nothing is tried.
    Unneeded,
    /// It is being tried.
    Running,
    /// It was tried, now or at an earlier start.
    Judged { verdict: Verdict, earlier: bool },
    /// It could not be tried.
    Failed(String),
}

/// Decides for whom the kernel half accelerates.
pub struct Accelerator {
    mode: Acceleration,
    state: Mutex<State>,
    stop: AtomicBool,
}

impl Accelerator {
    /// One that has not begun.
    pub fn new(mode: Acceleration) -> Arc<Self> {
        let state = match mode {
            Acceleration::Off => State::Unneeded,
            Acceleration::Auto | Acceleration::Force => State::Running,
        };
        Arc::new(Self {
            mode,
            state: Mutex::new(state),
            stop: AtomicBool::new(false),
        })
    }

    /// What the daemon was started with.
    pub fn mode(&self) -> Acceleration {
        self.mode
    }

    /// Begins the self-test on a thread of its own, unless nobody may accelerate.
    pub fn begin(self: &Arc<Self>, kernel: &SharedKernel, test: SelfTest) -> io::Result<Judge> {
        let mut judge = Judge {
            accelerator: Arc::clone(self),
            thread: None,
        };
        if self.mode != Acceleration::Off {
            let (this, kernel) = (Arc::clone(self), Arc::clone(kernel));
            let thread = std::thread::Builder::new().name("weir-self-test".into());
            judge.thread = Some(thread.spawn(move || this.judge(&kernel, &test))?);
        }
        Ok(judge)
    }

    fn judge(&self, kernel: &SharedKernel, test: &SelfTest) {
        let memory = Memory::new(&test.state_dir);
        let found = match memory.recall() {
            Some(verdict) => Ok((verdict, true)),
            None => self.run(test).map(|verdict| (verdict, false)),
        };
        let (verdict, earlier) = match found {
            Ok(found) => found,
            Err(why) => {
                if !self.stop.load(Ordering::Relaxed) {
                    tracing::warn!(
                        why,
                        "the self-test of acceleration could not run: nobody accelerates unless forced to"
                    );
                }
                return self.set(State::Failed(why));
            }
        };
        if !earlier && let Err(error) = memory.keep(&verdict) {
            tracing::warn!(%error, "what the self-test found cannot be kept: the next start tries again");
        }
        let summary = verdict.summary();
        if verdict.holds() {
            tracing::info!(summary, earlier, "self-test of acceleration");
            lock(kernel).allow_acceleration(Extent::All);
        } else {
            tracing::info!(
                summary,
                earlier,
                "self-test of acceleration: off unless forced"
            );
        }
        self.set(State::Judged { verdict, earlier });
    }

    /// Tries, now.
    fn run(&self, test: &SelfTest) -> Result<Verdict, String> {
        let said = |error: io::Error| error.to_string();
        remove_cgroup(&test.cgroup).map_err(said)?;
        let mut child = Command::new("/proc/self/exe")
            .arg("self-test")
            .arg(&test.cgroup)
            .arg(&test.bpffs)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(said)?;
        let read = self.results(&mut child);
        // Whatever it still does, it ends here, and all that it made goes with it.
        let _ended = child.kill();
        let ended = child.wait_with_output();
        if let Err(error) = remove_cgroup(&test.cgroup) {
            tracing::warn!(%error, "the self-test's cgroup cannot be removed");
        }
        match read {
            Ok(cases) if !cases.is_empty() => Ok(Verdict { cases }),
            Ok(_) => Err(ended.map_or_else(said, |output| {
                String::from_utf8_lossy(&output.stderr).trim().to_owned()
            })),
            Err(why) => Err(why),
        }
    }

    /// The results up to the end of the process.
    fn results(&self, child: &mut Child) -> Result<Vec<CaseResult>, String> {
        let inbox = lines(child)?;
        let (begun, mut limit) = (Instant::now(), LIMIT);
        let mut cases = Vec::new();
        loop {
            match inbox.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => match serde_json::from_str(&line) {
                    Ok(Said::Case(case)) => cases.push(case),
                    Ok(Said::Pace(times)) => {
                        limit = limit.max(LIMIT * times.clamp(1, pace::SLOWEST));
                    }
                    Err(error) => return Err(format!("the self-test said {line:?}: {error}")),
                },
                Err(RecvTimeoutError::Disconnected) => return Ok(cases),
                Err(RecvTimeoutError::Timeout) if self.stop.load(Ordering::Relaxed) => {
                    return Err("weir was stopped meanwhile".to_owned());
                }
                Err(RecvTimeoutError::Timeout) if begun.elapsed() > limit => {
                    return Err(format!("it was not done within {limit:?}"));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State) {
        *self.state() = state;
    }

    /// For `weir status`.
    pub fn status(&self, kernel: &Kernel) -> AccelerationStatus {
        let (self_test, broken) = match &*self.state() {
            State::Unneeded => ("not needed".to_owned(), Vec::new()),
            State::Running => ("running".to_owned(), Vec::new()),
            State::Failed(why) => (format!("could not run: {why}"), Vec::new()),
            State::Judged { verdict, earlier } => {
                let when = if *earlier {
                    " (tried at an earlier start)"
                } else {
                    ""
                };
                let broken = verdict.broken().map(told).collect();
                (format!("{}{when}", verdict.summary()), broken)
            }
        };
        AccelerationStatus {
            mode: self.mode.name().to_owned(),
            in_force_for: match kernel.extent() {
                Extent::Nobody => "nobody",
                Extent::Forced => "workloads that force it",
                Extent::All => "all workloads but those that refuse it",
            }
            .to_owned(),
            self_test,
            broken,
            fault: kernel.acceleration_fault().map(str::to_owned),
        }
    }
}

fn told(case: &CaseResult) -> AccelerationCase {
    let seen = match &case.outcome {
        Outcome::Held => String::new(),
        Outcome::Absent { why } | Outcome::Broken { why } => why.clone(),
    };
    AccelerationCase {
        name: case.name.clone(),
        must: case.must.clone(),
        seen,
    }
}

/// The running self-test; ends it on drop.
pub struct Judge {
    accelerator: Arc<Accelerator>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Judge {
    fn drop(&mut self) {
        self.accelerator.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the self-test of acceleration ended by a panic");
        }
    }
}

/// The lines that a child prints, on a thread that ends with its pipe.
fn lines(child: &mut Child) -> Result<Receiver<String>, String> {
    let stdout = child.stdout.take().ok_or("the self-test has no output")?;
    let (sender, inbox) = sync_channel(RESULTS_MAX);
    let reader = std::thread::Builder::new().name("weir-self-test-r".into());
    reader
        .spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        })
        .map_err(|error| error.to_string())?;
    Ok(inbox)
}

/// Removes what a self-test left of its cgroup below `root`.
pub fn remove_cgroup(root: &Path) -> io::Result<()> {
    let top = root.join(CGROUP);
    let until = Instant::now() + EMPTY;
    for path in [top.join("weir-proxy"), top] {
        loop {
            match fs::remove_dir(&path) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) if Instant::now() > until => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
    Ok(())
}
