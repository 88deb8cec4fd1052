//! The daemon's settings: flags first, then the environment, then the file of
//! `--config`, then the defaults.
//!
//! Owns where each setting comes from. Must never accept a setting that the
//! daemon does not enforce, and never a rule: rules come over the admin socket.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use nix::unistd::{Gid, Group};
use proxy_common::Acceleration;
use serde::Deserialize;

use super::args::ADMIN_SOCKET;
use crate::daemon::{RunOptions, UninstallOptions};
use crate::kernel::{Limits, MapLimit, TableMap};

/// Where pins go unless something else is said.
const BPFFS: &str = "/sys/fs/bpf/weir";
/// Where the configuration is kept unless something else is said.
const STATE_DIR: &str = "/var/lib/weir";
/// Where metrics are served unless something else is said: this node alone.
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15090);
/// A settings file is a screenful; a larger one is a mistake.
const FILE_MAX: u64 = 1 << 20;

/// Arguments of `weir run`.
#[derive(Debug, Default, Args)]
pub(super) struct RunArgs {
    /// File with these settings, as YAML in camelCase (never rules); flags win over it
    #[arg(long, value_name = "FILE", env = "WEIR_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// Name of this node [default: the host name]
    #[arg(long, value_name = "NAME", env = "WEIR_NODE")]
    pub(super) node: Option<String>,
    /// The pods' cgroup parent [default: the root of the cgroup v2 hierarchy]
    #[arg(long, value_name = "PATH", env = "WEIR_CGROUP")]
    pub(super) cgroup: Option<PathBuf>,
    /// Directory for pins, on a bpffs [default: /sys/fs/bpf/weir]
    #[arg(long, value_name = "PATH", env = "WEIR_BPFFS")]
    pub(super) bpffs: Option<PathBuf>,
    /// Directory for the configuration in force and its history [default: /var/lib/weir]
    #[arg(long, value_name = "PATH", env = "WEIR_STATE_DIR")]
    pub(super) state_dir: Option<PathBuf>,
    /// Address of /metrics, or off [default: 127.0.0.1:15090]
    #[arg(long, value_name = "ADDR:PORT", env = "WEIR_METRICS")]
    pub(super) metrics: Option<Metrics>,
    /// Threads that carry traffic [default: one per CPU]
    #[arg(long, value_name = "N", env = "WEIR_WORKERS")]
    pub(super) workers: Option<NonZeroUsize>,
    /// Socket-to-socket acceleration: where the self-test finds nothing against it,
    /// whatever it finds, or never; a Workload may choose for itself [default: auto]
    #[arg(long, value_name = "auto|force|off", env = "WEIR_ACCELERATE")]
    pub(super) accelerate: Option<Accelerate>,
    /// DNS server for host names in egress rules, open to every workload; may be repeated [default: /etc/resolv.conf]
    #[arg(
        long = "resolver",
        value_name = "ADDR[:PORT]",
        env = "WEIR_RESOLVERS",
        value_delimiter = ','
    )]
    pub(super) resolvers: Vec<Resolver>,
    /// Group that may open the read-only socket beside the admin socket [default: root alone]
    #[arg(long, value_name = "GROUP", env = "WEIR_OBSERVER_GROUP")]
    pub(super) observer_group: Option<ObserverGroup>,
    /// Entries that a kernel map holds; may be repeated, `weir status` shows the maps
    #[arg(
        long = "map-limit",
        value_name = "MAP=ENTRIES",
        env = "WEIR_MAP_LIMITS",
        value_delimiter = ','
    )]
    pub(super) map_limits: Vec<MapLimit>,
    /// Let the kernel hooks write debug lines to the log
    #[arg(long)]
    pub(super) debug_hooks: bool,
    /// Also accept what an iptables REDIRECT rule sends to this port of each pod
    #[cfg(feature = "redirect")]
    #[arg(long, value_name = "PORT")]
    pub(super) redirect_listener: Option<u16>,
}

/// Arguments of `weir uninstall`.
#[derive(Debug, Default, Args)]
pub(super) struct UninstallArgs {
    /// The pods' cgroup parent, as given to `weir run` [default: the root of the cgroup v2 hierarchy]
    #[arg(long, value_name = "PATH", env = "WEIR_CGROUP")]
    pub(super) cgroup: Option<PathBuf>,
    /// Directory of the pins, as given to `weir run` [default: /sys/fs/bpf/weir]
    #[arg(long, value_name = "PATH", env = "WEIR_BPFFS")]
    pub(super) bpffs: Option<PathBuf>,
    /// Directory of the configuration, as given to `weir run` [default: /var/lib/weir]
    #[arg(long, value_name = "PATH", env = "WEIR_STATE_DIR")]
    pub(super) state_dir: Option<PathBuf>,
    /// Also remove the configuration and its history
    #[arg(long)]
    pub(super) purge: bool,
}

/// Where metrics are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) enum Metrics {
    /// Nowhere.
    Off,
    /// At this address, over plain HTTP.
    On(SocketAddr),
}

/// A mode of acceleration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Accelerate(pub(super) Acceleration);

impl FromStr for Accelerate {
    type Err = String;

    fn from_str(mode: &str) -> Result<Self, String> {
        match mode {
            "off" => Ok(Self(Acceleration::Off)),
            "auto" => Ok(Self(Acceleration::Auto)),
            "force" => Ok(Self(Acceleration::Force)),
            _ => Err("no such mode: want auto, force or off".to_owned()),
        }
    }
}

/// A DNS server; port 53 unless given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Resolver(pub(super) SocketAddr);

impl FromStr for Resolver {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let with_port = text.parse::<SocketAddr>();
        let address = with_port.or_else(|_| text.parse::<IpAddr>().map(|ip| (ip, 53).into()));
        address.map(Self).map_err(|_| {
            "want an address with or without port, such as 10.96.0.10 or [fd00::a]:53".to_owned()
        })
    }
}

/// A group of this machine, by name or number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct ObserverGroup(pub(super) Gid);

impl FromStr for ObserverGroup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse() {
            return Ok(Self(Gid::from_raw(number)));
        }
        match Group::from_name(text) {
            Ok(Some(group)) => Ok(Self(group.gid)),
            Ok(None) => Err("this machine has no such group".to_owned()),
            Err(errno) => Err(format!(
                "the groups of this machine cannot be read: {errno}"
            )),
        }
    }
}

macro_rules! try_from_string {
    ($($name:ty),*) => { $(
        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
    )* };
}
try_from_string!(Accelerate, Resolver, ObserverGroup, Metrics);

impl FromStr for Metrics {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let address = text.parse().map(Self::On);
        address
            .map_err(|_| "want an address and a port, such as 127.0.0.1:15090, or off".to_owned())
    }
}

/// The file of `--config`: the same settings as the flags.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Settings {
    node: Option<String>,
    admin_socket: Option<PathBuf>,
    cgroup: Option<PathBuf>,
    bpffs: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    metrics: Option<Metrics>,
    workers: Option<NonZeroUsize>,
    accelerate: Option<Accelerate>,
    resolvers: Vec<Resolver>,
    observer_group: Option<ObserverGroup>,
    map_limits: BTreeMap<TableMap, NonZeroU32>,
}

/// Why the daemon's settings could not be taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum SettingsError {
    /// The file of `--config` cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The file is far larger than settings can be.
    #[error("{0}: larger than {FILE_MAX} bytes, so it is no file of settings")]
    TooLarge(PathBuf),
    /// The file does not parse.
    #[error(
        "{path}: {what} (only the daemon's settings belong here; rules are given with `weir apply -f`)"
    )]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        what: String,
    },
    /// No name was given and the machine has none that can be used.
    #[error("the host name cannot be used as the node's name ({0}): give one with --node")]
    Node(String),
}

impl RunArgs {
    /// Settles every setting. `admin_socket` is that of the command line or the environment.
    pub(super) fn options(
        self,
        admin_socket: Option<PathBuf>,
    ) -> Result<RunOptions, SettingsError> {
        let file = match &self.config {
            Some(path) => Settings::read(path)?,
            None => Settings::default(),
        };
        let Accelerate(accelerate) = self
            .accelerate
            .or(file.accelerate)
            .unwrap_or(Accelerate(Acceleration::Auto));
        let resolvers = if self.resolvers.is_empty() {
            file.resolvers
        } else {
            self.resolvers
        };
        let path = |flag: Option<PathBuf>, file: Option<PathBuf>, default: &str| {
            flag.or(file).unwrap_or_else(|| default.into())
        };
        Ok(RunOptions {
            node: match self.node.or(file.node) {
                Some(name) => name,
                None => host_name()?,
            },
            admin_socket: path(admin_socket, file.admin_socket, ADMIN_SOCKET),
            observers: self
                .observer_group
                .or(file.observer_group)
                .map(|group| group.0),
            cgroup: self.cgroup.or(file.cgroup),
            bpffs: path(self.bpffs, file.bpffs, BPFFS),
            state_dir: path(self.state_dir, file.state_dir, STATE_DIR),
            metrics: match self
                .metrics
                .or(file.metrics)
                .unwrap_or(Metrics::On(METRICS))
            {
                Metrics::On(address) => Some(address),
                Metrics::Off => None,
            },
            workers: self.workers.or(file.workers),
            resolvers: resolvers.into_iter().map(|resolver| resolver.0).collect(),
            accelerate,
            map_limits: limits(file.map_limits, self.map_limits),
            debug_hooks: self.debug_hooks,
            #[cfg(feature = "redirect")]
            redirect_listener: self.redirect_listener,
        })
    }
}

impl UninstallArgs {
    /// Settles every setting.
    pub(super) fn options(self) -> UninstallOptions {
        UninstallOptions {
            cgroup: self.cgroup,
            bpffs: self.bpffs.unwrap_or_else(|| BPFFS.into()),
            state_dir: self.state_dir.unwrap_or_else(|| STATE_DIR.into()),
            purge: self.purge,
        }
    }
}

impl Settings {
    fn read(path: &Path) -> Result<Self, SettingsError> {
        let failed = |source| SettingsError::Read {
            path: path.to_path_buf(),
            source,
        };
        let mut text = String::new();
        let file = fs::File::open(path).map_err(failed)?;
        file.take(FILE_MAX + 1)
            .read_to_string(&mut text)
            .map_err(failed)?;
        if text.len() as u64 > FILE_MAX {
            return Err(SettingsError::TooLarge(path.to_path_buf()));
        }
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(&text).map_err(|error| SettingsError::Parse {
            path: path.to_path_buf(),
            what: error.to_string(),
        })
    }
}

/// The limits of the file, then those of the flags.
fn limits(file: BTreeMap<TableMap, NonZeroU32>, flags: Vec<MapLimit>) -> Limits {
    let file = file
        .into_iter()
        .map(|(map, entries)| MapLimit { map, entries });
    let mut limits = Limits::default();
    file.chain(flags).for_each(|limit| limits.set(limit));
    limits
}

fn host_name() -> Result<String, SettingsError> {
    let name =
        nix::unistd::gethostname().map_err(|errno| SettingsError::Node(errno.to_string()))?;
    match name.into_string() {
        Ok(name) if !name.is_empty() => Ok(name),
        _ => Err(SettingsError::Node("it is empty or not UTF-8".to_owned())),
    }
}
