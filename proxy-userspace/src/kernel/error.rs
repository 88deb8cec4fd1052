//! What can go wrong between weir and the kernel: which call, on what, and
//! what the operator can do about it.

use std::io;
use std::path::PathBuf;

use aya::maps::MapError;
use nix::libc;

/// A failed step of loading, attaching, writing or reading the kernel half.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A bpf(2) or file system call failed.
    #[error("{call} failed for {what}: {cause}")]
    Call {
        /// The system call or command.
        call: &'static str,
        /// What it was asked for.
        what: String,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// aya could not load the object; its message carries the verifier's log.
    #[error(
        "the kernel did not accept weir's programs: {0} (weir needs Linux 6.1 or newer with BTF)"
    )]
    Load(String),
    /// A map operation failed.
    #[error("map {map}: {cause}", cause = chain(cause))]
    Map {
        /// The map's name.
        map: &'static str,
        /// aya's account.
        cause: MapError,
    },
    /// A map takes no more, although what was to be written was counted to fit.
    #[error(
        "map {map} is full, though there was room for all that weir would write: somebody else's entries are in it; `weir uninstall`, with the same --bpffs, clears it"
    )]
    Full {
        /// The map's name.
        map: &'static str,
    },
    /// Pins of another version lie where ours should go.
    #[error("{path} belongs to another version of weir, or to somebody else ({found}; this one needs {wanted}): run `weir uninstall` first, with the same --bpffs", path = path.display())]
    ForeignPin {
        /// The pin.
        path: PathBuf,
        /// What was found.
        found: String,
        /// What this version writes.
        wanted: String,
    },
    /// A pinned map was made with another limit.
    #[error("{path} was made for {found} entries, this start asks for {wanted}, and a pinned map keeps its size: start weir with --map-limit {name}={found}, or run `weir uninstall` first, with the same --bpffs", path = path.display())]
    OtherLimit {
        /// The pin.
        path: PathBuf,
        /// What `--map-limit` calls it.
        name: &'static str,
        /// Entries that fit.
        found: u32,
        /// Entries that are asked for.
        wanted: u32,
    },
    /// A pinned map holds what this version would not write into it.
    #[error(
        "map {map}: {cause}: somebody else changed it; run `weir uninstall` first, with the same --bpffs"
    )]
    Unsound {
        /// The map's name.
        map: &'static str,
        /// What is wrong with an entry.
        cause: proxy_common::Impossible,
    },
    /// The configuration does not fit the kernel's tables.
    #[error(
        "{map} would need {wanted} entries, the limit is {limit}: nothing was changed; start weir with --map-limit {name}={wanted} or more"
    )]
    TooLarge {
        /// The map's name.
        map: &'static str,
        /// What `--map-limit` calls it.
        name: &'static str,
        /// Entries wanted.
        wanted: usize,
        /// Entries that fit.
        limit: usize,
    },
    /// A write failed, and so did the way back.
    #[error("{0}; the former tables could not be restored either")]
    Closed(Box<KernelError>),
    /// No cgroup v2 hierarchy.
    #[error("no cgroup v2 hierarchy is mounted at or above {path}: mount one (`mount -t cgroup2 none /sys/fs/cgroup`) or name it with --cgroup", path = path.display())]
    NoCgroup2 {
        /// What was asked for.
        path: PathBuf,
    },
    /// Only a part of the hierarchy can be seen.
    #[error(
        "this process is in a cgroup namespace of its own, so what looks like the root of the hierarchy is not: run weir in the host's cgroup namespace, or mount the host's hierarchy and name the pods' parent in it with --cgroup"
    )]
    CgroupNamespace,
    /// No bpffs.
    #[error("{path} is no bpffs: run `mount -t bpf bpf {path}` or name one with --bpffs", path = path.display())]
    NoBpffs {
        /// What was asked for.
        path: PathBuf,
    },
    /// Somebody else's program forbids ours.
    #[error("weir's `{hook}` hook is forbidden on {cgroup} by {rival}: have its owner attach it with BPF_F_ALLOW_MULTI, or start weir with a --cgroup that it does not cover", cgroup = cgroup.display())]
    Forbidden {
        /// Where ours should go.
        cgroup: PathBuf,
        /// Which hook.
        hook: &'static str,
        /// Whose program forbids it.
        rival: String,
    },
}

impl KernelError {
    /// A failed call.
    pub(crate) fn call(call: &'static str, what: impl Into<String>, cause: io::Error) -> Self {
        Self::Call {
            call,
            what: what.into(),
            cause,
        }
    }

    /// For `map_err` on map operations.
    pub(crate) fn map(map: &'static str) -> impl Fn(MapError) -> Self {
        move |cause| {
            if full(&cause) {
                Self::Full { map }
            } else {
                Self::Map { map, cause }
            }
        }
    }
}

/// Whether the kernel says by this that a map is full, as a hash map is.
fn full(error: &MapError) -> bool {
    let MapError::SyscallError(error) = error else {
        return false;
    };
    error.io_error.raw_os_error() == Some(libc::E2BIG)
}

/// An error with all its causes: aya keeps the verifier's log in one of them.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
