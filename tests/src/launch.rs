//! Becoming a process of a pod.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Error, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

/// Where to go and what to become.
#[derive(Debug, clap::Args)]
pub struct Launch {
    /// A file of the network namespace to enter.
    #[arg(long)]
    netns: PathBuf,
    /// The cgroup to join.
    #[arg(long)]
    cgroup: PathBuf,
    /// What to see as /etc/hosts.
    #[arg(long)]
    hosts: Option<PathBuf>,
    /// The program and its arguments.
    #[arg(required = true, last = true)]
    command: Vec<std::ffi::OsString>,
}

impl Launch {
    /// Joins the cgroup, enters the namespace and becomes the program. Returns only if that fails.
    ///
    /// The cgroup comes first: a socket belongs to the cgroup in which it was made.
    pub fn run(self) -> Result<std::convert::Infallible> {
        let procs = self.cgroup.join("cgroup.procs");
        fs::write(&procs, "0").with_context(|| format!("cannot join {}", self.cgroup.display()))?;
        if let Some(hosts) = &self.hosts {
            show_as_hosts(hosts)?;
        }
        let netns = File::open(&self.netns)
            .with_context(|| format!("cannot open {}", self.netns.display()))?;
        setns(&netns, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("cannot enter {}", self.netns.display()))?;
        let (program, args) = self.command.split_first().context("no program is named")?;
        let error = Command::new(program).args(args).exec();
        Err(Error::new(error).context(format!("cannot run {}", program.display())))
    }
}

fn show_as_hosts(hosts: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    // Else the bind mount would be seen by the whole machine.
    let private = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .context("cannot make the mounts private")?;
    mount(
        Some(hosts),
        "/etc/hosts",
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .with_context(|| format!("cannot show {} as /etc/hosts", hosts.display()))
}
