//! Processes that the testbed starts.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::binaries::tool_binary;
use crate::patience::patiently;
use crate::sweep::making;

/// Where a process runs.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// A file of the network namespace.
    pub(crate) netns: PathBuf,
    /// The cgroup's directory.
    pub(crate) cgroup: PathBuf,
    /// What the process sees as `/etc/hosts`.
    pub(crate) hosts: Option<PathBuf>,
    /// Whether the kernel is to be one without `sock_diag`.
    pub(crate) without_sock_diag: bool,
}

impl Place {
    /// A command that joins the cgroup, then the namespace, then becomes `program`.
    pub(crate) fn command(&self, program: &Path) -> Result<Command> {
        let mut command = Command::new(tool_binary()?);
        command
            .arg("exec")
            .arg("--netns")
            .arg(&self.netns)
            .arg("--cgroup")
            .arg(&self.cgroup);
        if let Some(hosts) = &self.hosts {
            command.arg("--hosts").arg(hosts);
        }
        if self.without_sock_diag {
            command.arg("--without-sock-diag");
        }
        command.arg("--").arg(program);
        Ok(command)
    }
}

/// A running process; killed and reaped on drop.
#[derive(Debug)]
pub struct Proc {
    child: Child,
    what: String,
    log: PathBuf,
}

impl Proc {
    /// Starts `command` with its output appended to `log`.
    pub(crate) fn start(mut command: Command, log: &Path) -> Result<Self> {
        let what = format!("{command:?}");
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let err = out.try_clone().context("cannot duplicate a file")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .with_context(|| format!("{what} does not start"))?;
        Ok(Self {
            child,
            what,
            log: log.to_path_buf(),
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .with_context(|| format!("cannot wait for {}", self.what))
    }

    /// Sends a signal. A process that has ended already is no error.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        // The child is ours and not reaped: its number cannot belong to another.
        if self.ended()?.is_none() {
            let pid = i32::try_from(self.child.id()).context("a process id fits i32")?;
            kill(Pid::from_raw(pid), signal)
                .with_context(|| format!("cannot signal {}", self.what))?;
        }
        Ok(())
    }

    /// Waits for its end, at most for `limit`, [`patiently`].
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let limit = patiently(limit);
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() > end {
                bail!("{} does not end within {limit:?}", self.what);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGTERM, and the time to finish what is in flight.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(limit)
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        let _making = making();
        if let Ok(None) = self.child.try_wait()
            && let Err(error) = self.child.kill()
        {
            eprintln!("testbed: cannot end {}: {error}", self.what);
        }
        if let Err(error) = self.child.wait() {
            eprintln!("testbed: cannot reap {}: {error}", self.what);
        }
    }
}
