//! The daemon's life: what `weir run` and `weir uninstall` do.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use nix::unistd::Gid;

/// The settings of `weir run`, all settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// Name of this node.
    pub node: String,
    /// Path of the admin socket; the observers' socket lies beside it.
    pub admin_socket: PathBuf,
    /// Group that may open the observers' socket; `None`: root alone.
    pub observers: Option<Gid>,
    /// The pods' cgroup parent; `None`: the root of the cgroup v2 hierarchy.
    pub cgroup: Option<PathBuf>,
    /// Directory for pins, on a bpffs.
    pub bpffs: PathBuf,
    /// Directory for the configuration and its history.
    pub state_dir: PathBuf,
    /// Address of `/metrics`; `None`: not served.
    pub metrics: Option<SocketAddr>,
    /// Threads that carry traffic; `None`: one per CPU.
    pub workers: Option<NonZeroUsize>,
    /// DNS servers for host names; empty: those of `/etc/resolv.conf`.
    pub resolvers: Vec<SocketAddr>,
}

/// The settings of `weir uninstall`, all settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UninstallOptions {
    /// The pods' cgroup parent; `None`: the root of the cgroup v2 hierarchy.
    pub cgroup: Option<PathBuf>,
    /// Directory of the pins.
    pub bpffs: PathBuf,
    /// Directory of the configuration.
    pub state_dir: PathBuf,
    /// Whether the configuration and its history go too.
    pub purge: bool,
}

/// Runs the daemon until it is told to stop.
pub fn run(options: RunOptions) -> anyhow::Result<()> {
    let RunOptions { node, .. } = options;
    anyhow::bail!("this build has no data plane: {node} stays as it is")
}

/// Removes links, pins and maps.
pub fn uninstall(options: UninstallOptions) -> anyhow::Result<()> {
    let UninstallOptions { bpffs, .. } = options;
    anyhow::bail!(
        "this build has no data plane: {} stays as it is",
        bpffs.display()
    )
}
