//! Becoming a process of a pod.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Error, Result};
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

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
    /// The kernel opens no `sock_diag` sockets, as one that was built without them.
    #[arg(long)]
    without_sock_diag: bool,
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
        if self.without_sock_diag {
            refuse_sock_diag().context("cannot refuse sock_diag")?;
        }
        let (program, args) = self.command.split_first().context("no program is named")?;
        let error = Command::new(program).args(args).exec();
        Err(Error::new(error).context(format!("cannot run {}", program.display())))
    }
}

/// For this process and all that it starts, `socket(AF_NETLINK, …, NETLINK_SOCK_DIAG)`
/// fails as it does where the kernel has nobody for that protocol.
fn refuse_sock_diag() -> Result<()> {
    let is = |argument, value: i32| {
        let value = u64::try_from(value).expect("a small number");
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
    };
    let sock_diag = SeccompRule::new(vec![
        is(0, libc::AF_NETLINK)?,
        is(2, libc::NETLINK_SOCK_DIAG)?,
    ])?;
    let refused = u32::try_from(libc::EPROTONOSUPPORT)?;
    let filter = SeccompFilter::new(
        [(libc::SYS_socket, vec![sock_diag])].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(refused),
        std::env::consts::ARCH.try_into()?,
    )?;
    seccompiler::apply_filter(&BpfProgram::try_from(filter)?)?;
    Ok(())
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
