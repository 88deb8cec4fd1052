//! A node's private bpffs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::sweep::making;

/// A bpffs of its own: what is pinned elsewhere is not seen, and what is pinned here dies with it.
#[derive(Debug)]
pub(crate) struct Bpffs {
    path: PathBuf,
}

impl Bpffs {
    /// Mounts a bpffs at `path`, a directory that is made for it.
    pub(crate) fn new(path: PathBuf) -> Result<Self> {
        let _making = making();
        let what = || format!("cannot mount a bpffs at {}", path.display());
        fs::create_dir(&path).with_context(what)?;
        mount(
            Some("bpf"),
            &path,
            Some("bpf"),
            MsFlags::empty(),
            None::<&str>,
        )
        .with_context(what)?;
        Ok(Self { path })
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _making = making();
        if let Err(error) = unmount(&self.path) {
            eprintln!("testbed: {error:#}");
        }
    }
}

/// Takes away whatever is mounted at `path`; nothing mounted is no error.
pub(crate) fn unmount(path: &Path) -> Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot unmount {}", path.display())),
    }
}
