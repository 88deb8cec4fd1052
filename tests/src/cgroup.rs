//! cgroup v2 directories: found, made, emptied and removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
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

    /// The cgroup at `path` below this one; those between are made where they are missing.
    pub fn below(&self, path: &Path) -> Result<Self> {
        let _making = making();
        if let Some(parent) = path.parent() {
            let between = self.path.join(parent);
            fs::create_dir_all(&between)
                .with_context(|| format!("cannot make cgroup {}", between.display()))?;
        }
        self.child(&path.to_string_lossy())
    }

    /// Lets the cgroups on the way from `self` to `path` below it, both included, give
    /// what is in them the controller. None of them may hold a process from then on.
    pub fn control(&self, path: &Path, controller: &Controller) -> Result<()> {
        let mut at = self.path.clone();
        enable(&at, controller.name)?;
        for part in path {
            at.push(part);
            enable(&at, controller.name)?;
        }
        Ok(())
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

/// A controller of cgroup v2, enabled for the whole machine; not any more on drop,
/// where it was not before. A pod's cgroup of a real node has some. One at a time.
#[derive(Debug)]
pub struct Controller {
    name: &'static str,
    was_enabled: bool,
    _only: MutexGuard<'static, ()>,
}

/// Held by whoever has a [`Controller`].
static ONLY: Mutex<()> = Mutex::new(());

impl Controller {
    /// Those that the kernel gives to no thread alone, but the last two: a cgroup that
    /// has one for its children holds no process of its own.
    const CANDIDATES: [&str; 7] = ["memory", "io", "hugetlb", "rdma", "misc", "pids", "cpu"];

    /// The first that this machine has.
    ///
    /// # Errors
    /// All are with cgroup v1 here.
    pub fn enable() -> Result<Self> {
        let only = ONLY.lock().unwrap_or_else(PoisonError::into_inner);
        let root = mount_point()?;
        let has = |file: &str, name| -> Result<bool> {
            let text = fs::read_to_string(root.join(file)).context("cannot read controllers")?;
            Ok(text.split_whitespace().any(|one| one == name))
        };
        for name in Self::CANDIDATES {
            if has("cgroup.controllers", name)? {
                let was_enabled = has("cgroup.subtree_control", name)?;
                enable(&root, name)?;
                return Ok(Self {
                    name,
                    was_enabled,
                    _only: only,
                });
            }
        }
        bail!("cgroup v2 has no controller on this machine: boot it with `cgroup_no_v1=all`")
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _making = making();
        if self.was_enabled {
            return;
        }
        let off = mount_point().and_then(|root| set(&root, &format!("-{}", self.name)));
        if let Err(error) = off {
            eprintln!("testbed: {error:#}");
        }
    }
}

fn enable(cgroup: &Path, controller: &str) -> Result<()> {
    set(cgroup, &format!("+{controller}"))
}

fn set(cgroup: &Path, change: &str) -> Result<()> {
    let file = cgroup.join("cgroup.subtree_control");
    fs::write(&file, change).with_context(|| format!("cannot write {change} to {}", file.display()))
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
