//! Where things lie: the workspace, the tools below `target/`, the toolchain.
//!
//! Owns paths. Must never create or change anything.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process;

/// The directory of the workspace's `Cargo.toml`.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace")
}

/// Where setup installs the tools that the build needs; `build.rs` looks here first.
pub(crate) fn tools() -> PathBuf {
    root().join("target/tools")
}

/// The cargo that called us, so that the pinned toolchain is used throughout.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The sysroot of the pinned toolchain.
pub(crate) fn sysroot() -> Result<PathBuf> {
    let mut rustc = Command::new("rustc");
    rustc.current_dir(root()).args(["--print", "sysroot"]);
    let output = process::capture(&mut rustc, Duration::from_mins(1))
        .context("the toolchain's rustc does not answer")?;
    Ok(PathBuf::from(output.trim()))
}

/// Where `name` would be found as a command; root's directories are searched
/// even where the PATH lacks them.
pub(crate) fn command_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}
