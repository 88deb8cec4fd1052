//! cgroup v2: where it is mounted, what a directory's id is, weir's own cgroup,
//! by which alone it is exempt from its own hooks, and those of its canaries.
//!
//! Must never put a process into a cgroup that is somebody else's.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::error::KernelError;

/// Name of weir's own cgroup below the one that the hooks are attached to.
const OWN: &str = "weir-proxy";

/// Name of a canary's cgroup below its pod's.
const CANARY: &str = "weir-canary";

/// How long what a daemon left behind may take to end: a canary that was being
/// started leaves for its pod's, one in a pod dials for a moment, a killed process is about to be gone.
const EMPTY: Duration = Duration::from_secs(2);

/// Inode of the cgroup namespace that the kernel starts with (`PROC_CGROUP_INIT_INO`).
const HOST_NAMESPACE: u64 = 0xEFFF_FFFB;

/// An open cgroup v2 directory.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    dir: File,
    id: u64,
}

impl Cgroup {
    /// One that is none, for tests that never look at it.
    ///
    /// # Panics
    /// There is no root directory.
    #[cfg(test)]
    pub fn hollow() -> Self {
        let path = PathBuf::from("/");
        let dir = File::open(&path).expect("there is a root");
        Self { path, dir, id: 0 }
    }

    /// Opens `path`, which must lie in a cgroup v2 hierarchy.
    pub fn open(path: &Path) -> Result<Self, KernelError> {
        let named =
            |call| move |source| KernelError::call(call, path.display().to_string(), source);
        let dir = File::open(path).map_err(named("open"))?;
        let kind = statfs(path).map_err(|errno| named("statfs")(errno.into()))?;
        if kind.filesystem_type() != CGROUP2_SUPER_MAGIC {
            return Err(KernelError::NoCgroup2 { path: path.into() });
        }
        // On 64-bit kernels the id of a cgroup is the inode number of its directory.
        let id = dir.metadata().map_err(named("stat"))?.ino();
        Ok(Self {
            path: path.into(),
            dir,
            id,
        })
    }

    /// The mount point of the hierarchy, wherever it is: alone, or as `unified` beside v1.
    pub fn find_root() -> Result<PathBuf, KernelError> {
        let namespace = "/proc/self/ns/cgroup";
        let meta =
            fs::metadata(namespace).map_err(|error| KernelError::call("stat", namespace, error))?;
        if meta.ino() != HOST_NAMESPACE {
            return Err(KernelError::CgroupNamespace);
        }
        let mounts = "/proc/self/mountinfo";
        let text =
            fs::read_to_string(mounts).map_err(|error| KernelError::call("read", mounts, error))?;
        mount_point(&text).ok_or_else(|| KernelError::NoCgroup2 {
            path: PathBuf::from("/"),
        })
    }

    /// The kernel's id of this cgroup.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes weir's own cgroup below this one and moves this process into it.
    pub fn enter_own(&self) -> Result<Self, KernelError> {
        let path = self.path.join(OWN);
        let named = |call| {
            let path = path.display().to_string();
            move |source| KernelError::call(call, path, source)
        };
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(named("mkdir")(error));
            }
            _ => {}
        }
        join(&path).map_err(named("joining the cgroup"))?;
        Self::open(&path)
    }

    /// Removes weir's own cgroup. What a daemon started last may outlive it for a
    /// moment, which is waited for.
    ///
    /// # Errors
    /// `ResourceBusy`, if somebody is still in it: a daemon that runs.
    pub fn remove_own(&self) -> io::Result<()> {
        remove_when_empty(&self.path.join(OWN))
    }

    /// Removes what canaries that outlived their daemon left below this one.
    pub fn remove_canaries(&self) -> io::Result<()> {
        let mut dirs = vec![self.path.clone()];
        while let Some(dir) = dirs.pop() {
            let entries = match fs::read_dir(&dir) {
                // A pod that has gone meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            for entry in entries.flatten() {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                if entry.file_name() == CANARY {
                    remove_when_empty(&entry.path())?;
                } else {
                    dirs.push(entry.path());
                }
            }
        }
        Ok(())
    }
}

/// Moves this process, a canary, into a cgroup of its own below `pod`. What is in a
/// pod's cgroup itself keeps controllers from being enabled in it; where some are
/// the kernel takes nobody in; and in a container's the canary would live on that
/// one's limits, and die with it.
pub fn enter_canary(pod: &Path) -> io::Result<()> {
    let own = pod.join(CANARY);
    match fs::create_dir(&own) {
        // One that was left behind.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    match join(&own) {
        // Below a cgroup that shares out controllers among threads no other kind
        // can be; it takes processes in itself.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => join(pod),
        other => other,
    }
}

/// Removes what [`enter_canary`] made, when the canary has ended.
pub fn remove_canary(pod: &Path) -> io::Result<()> {
    remove_when_empty(&pod.join(CANARY))
}

fn join(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0")
}

/// Waits a moment for what is in a cgroup to be gone. One that is gone is no error.
fn remove_when_empty(cgroup: &Path) -> io::Result<()> {
    let until = Instant::now() + EMPTY;
    loop {
        match fs::remove_dir(cgroup) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// Where the whole hierarchy is mounted: a part of it, as a container's runtime
/// mounts one, is no root.
pub(crate) fn mount_point(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (fields, kind) = line.split_once(" - ")?;
        let mut fields = fields.split(' ').skip(3);
        let (root, at) = (fields.next()?, fields.next()?);
        (kind.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(at))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_wherever_it_is_mounted() {
        let alone = "25 1 0:23 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw";
        let hybrid = "24 1 0:22 / /sys/fs/cgroup ro shared:3 - tmpfs tmpfs ro
25 24 0:23 / /sys/fs/cgroup/memory rw shared:5 - cgroup cgroup rw,memory
26 24 0:24 / /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw";
        let part = "25 1 0:23 /docker/7 /sys/fs/cgroup ro - cgroup2 cgroup ro";
        let found = |text| mount_point(text).map(|path| path.display().to_string());
        assert_eq!(found(alone).as_deref(), Some("/sys/fs/cgroup"));
        assert_eq!(found(hybrid).as_deref(), Some("/sys/fs/cgroup/unified"));
        assert_eq!(found(part), None);
    }
}
