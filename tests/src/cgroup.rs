//! cgroup v2 directories: found, made, emptied and removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::patience::patiently;
use crate::sweep::making;

/// A cgroup of the testbed; removed, with all that is in it, on drop.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes a cgroup directly below the mount of cgroup v2.
    pub fn at_root(name: &str) -> Result<Self> {
        Self::make(mount_point()?.join(name))
    }

    /// Makes a cgroup in this one.
    pub fn child(&self, name: &str) -> Result<Self> {
        Self::make(self.path.join(name))
    }

    fn make(path: PathBuf) -> Result<Self> {
        let _making = making();
        fs::create_dir(&path).with_context(|| format!("cannot make cgroup {}", path.display()))?;
        Ok(Self { path })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _making = making();
        if let Err(error) = remove(&self.path) {
            eprintln!("testbed: {error:#}");
        }
    }
}

/// Where cgroup v2 is mounted: `/sys/fs/cgroup`, or beside v1 as `unified`.
pub(crate) fn mount_point() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read mountinfo")?;
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        if right.starts_with("cgroup2 ") {
            let mount = left
                .split(' ')
                .nth(4)
                .context("a line of mountinfo is too short")?;
            return Ok(PathBuf::from(mount));
        }
    }
    bail!("cgroup v2 is not mounted: `mount -t cgroup2 none /sys/fs/cgroup/unified` brings it")
}

/// Kills what runs in the cgroup at `path` and below, and removes it.
pub(crate) fn remove(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    kill(path)?;
    remove_tree(path).with_context(|| format!("cannot remove cgroup {}", path.display()))
}

/// Kills every process in the cgroup and below it, and waits until they are gone.
pub(crate) fn kill(path: &Path) -> Result<()> {
    let what = || format!("cannot end the processes of cgroup {}", path.display());
    fs::write(path.join("cgroup.kill"), "1").with_context(what)?;
    let end = Instant::now() + patiently(Duration::from_secs(5));
    while fs::read_to_string(path.join("cgroup.events"))
        .with_context(what)?
        .contains("populated 1")
    {
        if Instant::now() > end {
            bail!("the processes of cgroup {} do not end", path.display());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn remove_tree(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}
