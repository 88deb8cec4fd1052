//! Taking everything away: what this process made, and what a killed one left.
//!
//! Works by name alone ([`crate::names`]), so it needs no list that could be
//! lost. The guards' drops are the usual way; this is the one for signals,
//! kills, and for the proof that nothing is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Once, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::{cgroup, mount, names, netns};

/// Held to read while something is made or removed, to write while everything
/// is swept: nothing appears behind the sweeper's back, and nobody else's
/// removal comes between it and its work.
static MAKING: RwLock<()> = RwLock::new(());
static CANCELLED: AtomicBool = AtomicBool::new(false);

/// Held while something is made that outlives the process, or removed. Blocks
/// for ever once the process was told to end: whoever asks is about to be gone.
pub(crate) fn making() -> RwLockReadGuard<'static, ()> {
    MAKING
        .read()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Whether a signal told this process to end; what fails now fails for that.
pub fn cancelled() -> bool {
    CANCELLED.load(Ordering::Relaxed)
}

/// From now on SIGINT, SIGTERM and SIGHUP clean up before they end the process.
pub(crate) fn on_signals() -> Result<()> {
    static INSTALL: Once = Once::new();
    let mut result = Ok(());
    INSTALL.call_once(|| {
        result = Signals::new([SIGINT, SIGTERM, SIGHUP])
            .map(|signals| {
                std::thread::spawn(move || end_on_signal(signals));
            })
            .context("cannot install the signal handlers");
    });
    result
}

fn end_on_signal(mut signals: Signals) {
    let Some(signal) = signals.forever().next() else {
        return;
    };
    CANCELLED.store(true, Ordering::Relaxed);
    let _nothing_is_made = MAKING
        .write()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let own = std::process::id();
    if let Err(error) = remove_all(|pid| pid == own) {
        eprintln!("testbed: {error:#}");
    }
    reap();
    std::process::exit(128 + signal);
}

/// Takes the children that were killed off the process table: whoever inherits
/// them may not.
fn reap() {
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(5)),
            Ok(_) => {}
            // No child is left.
            Err(_) => return,
        }
    }
}

/// Removes what runs left behind that were killed.
pub fn sweep() -> Result<()> {
    remove_all(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

/// What is on the machine that this process made: namespaces, cgroups, directories.
pub fn leftovers() -> Result<Vec<PathBuf>> {
    leftovers_of(std::process::id())
}

/// What is on the machine that the process `owner` made.
pub fn leftovers_of(owner: u32) -> Result<Vec<PathBuf>> {
    let mut left = Vec::new();
    for place in places()? {
        left.extend(entries(&place, |pid| pid == owner)?);
    }
    Ok(left)
}

fn places() -> Result<[PathBuf; 3]> {
    Ok([
        cgroup::mount_point()?,
        PathBuf::from(netns::NETNS_DIR),
        names::files_root(),
    ])
}

/// First the processes, then what they ran in, then the files.
fn remove_all(of: impl Fn(u32) -> bool) -> Result<()> {
    let [cgroups, namespaces, files] = places()?;
    for path in entries(&cgroups, &of)? {
        cgroup::remove(&path)?;
    }
    for path in entries(&namespaces, &of)? {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .context("names are ASCII")?;
        netns::remove(name)?;
    }
    for path in entries(&files, &of)? {
        remove_files(&path)?;
    }
    Ok(())
}

/// Unmounts a node's bpffs and removes its directory.
pub(crate) fn remove_files(dir: &Path) -> Result<()> {
    mount::unmount(&dir.join("bpf"))?;
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

fn entries(place: &Path, of: impl Fn(u32) -> bool) -> Result<Vec<PathBuf>> {
    // A namespace directory that was never made holds nothing.
    let Ok(listing) = fs::read_dir(place) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in listing {
        let entry = entry.with_context(|| format!("cannot list {}", place.display()))?;
        if entry
            .file_name()
            .to_str()
            .and_then(names::owner)
            .is_some_and(&of)
        {
            found.push(entry.path());
        }
    }
    Ok(found)
}
