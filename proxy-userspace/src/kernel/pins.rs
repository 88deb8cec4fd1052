//! Where the pins of links and maps lie, and how they are removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::error::KernelError;

/// The pins below one bpffs.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

impl Pins {
    /// The pins in `root`, a directory on a bpffs that need not exist yet.
    pub fn new(root: &Path) -> Result<Self, KernelError> {
        let existing = root
            .ancestors()
            .find(|path| path.exists())
            .unwrap_or(Path::new("/"));
        let kind = statfs(existing).map_err(|_| KernelError::NoBpffs { path: root.into() })?;
        if kind.filesystem_type() != BPF_FS_MAGIC {
            return Err(KernelError::NoBpffs { path: root.into() });
        }
        Ok(Self { root: root.into() })
    }

    /// Pin of a map.
    pub fn map(&self, name: &str) -> PathBuf {
        self.root.join("maps").join(name)
    }

    /// Pin of a node-wide link.
    pub fn link(&self, name: &str) -> PathBuf {
        self.root.join("links").join(name)
    }

    /// Directory of the fences' pins.
    pub fn fences(&self) -> PathBuf {
        self.root.join("fences")
    }

    /// Pin of one hook of the fence on a cgroup.
    pub fn fence(&self, cgroup: u64, hook: &str) -> PathBuf {
        self.fences().join(format!("{cgroup}-{hook}"))
    }

    /// Whether no weir has pinned anything here, or its pins were removed.
    pub fn is_empty(&self) -> Result<bool, KernelError> {
        let links = read_dir(&self.root.join("links"))?;
        Ok(links.is_empty() && read_dir(&self.root.join("maps"))?.is_empty())
    }

    /// Makes the directories.
    pub fn make(&self) -> Result<(), KernelError> {
        for dir in [
            self.root.join("maps"),
            self.root.join("links"),
            self.fences(),
        ] {
            fs::create_dir_all(&dir)
                .map_err(|error| KernelError::call("mkdir", dir.display().to_string(), error))?;
        }
        Ok(())
    }

    /// Removes every pin. The connect hooks go first: without them nothing is
    /// captured, so that nothing is captured by half. Returns how many went.
    pub fn remove(&self) -> Result<usize, KernelError> {
        let mut removed = 0;
        let mut pins = read_dir(&self.root.join("links"))?;
        pins.sort_by_key(|path| !path.to_string_lossy().contains("connect"));
        pins.extend(read_dir(&self.fences())?);
        pins.extend(read_dir(&self.root.join("maps"))?);
        for path in pins {
            fs::remove_file(&path)
                .map_err(|error| KernelError::call("unlink", path.display().to_string(), error))?;
            removed += 1;
        }
        for dir in ["links", "fences", "maps"].map(|dir| self.root.join(dir)) {
            match fs::remove_dir(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(KernelError::call("rmdir", dir.display().to_string(), error));
                }
                _ => {}
            }
        }
        // It may be a mount point or hold what others put there: then it stays.
        let _stays = fs::remove_dir(&self.root);
        Ok(removed)
    }
}

/// The files of a directory; none if it does not exist.
pub fn read_dir(dir: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let named = |error| KernelError::call("readdir", dir.display().to_string(), error);
    match fs::read_dir(dir) {
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()
            .map_err(named),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(named(error)),
    }
}
