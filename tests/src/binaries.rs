//! Where the programs under test are.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

/// `testbed-tool`, which runs inside pods: `TESTBED_TOOL_BIN` if that is set, else
/// built when first asked for.
pub fn tool_binary() -> Result<PathBuf> {
    static TOOL: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    once(&TOOL, || {
        given("TESTBED_TOOL_BIN").map_or_else(|| built("weir-tests", "testbed-tool"), Ok)
    })
}

/// The daemon and its command line: `WEIR_BIN` if that is set, else built when first asked for.
pub fn weir_binary() -> Result<PathBuf> {
    static WEIR: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    once(&WEIR, || {
        given("WEIR_BIN").map_or_else(|| built("proxy-userspace", "weir"), Ok)
    })
}

/// A program that somebody has built already; it has to be the one to test.
fn given(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).map(PathBuf::from)
}

fn once(
    cell: &OnceLock<Result<PathBuf, String>>,
    find: impl FnOnce() -> Result<PathBuf>,
) -> Result<PathBuf> {
    cell.get_or_init(|| find().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(anyhow::Error::msg)
}

/// Builds a binary of the workspace beside the one that runs now, in the same
/// profile: a test never meets a stale daemon.
fn built(package: &str, name: &str) -> Result<PathBuf> {
    let own = env::current_exe().context("cannot tell which program runs")?;
    // target/<profile>/[deps/]<program>
    let dir = own
        .ancestors()
        .skip(1)
        .find(|dir| !dir.ends_with("deps"))
        .context("the program lies in no directory")?;
    let target = dir.parent().context("the target directory is missing")?;
    let profile = dir
        .file_name()
        .and_then(|name| name.to_str())
        .context("a profile's name is UTF-8")?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the crate lies in the workspace")?;
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(root)
        .args([
            "build",
            "--quiet",
            "--locked",
            "--package",
            package,
            "--bin",
            name,
        ])
        .args([
            "--profile",
            if profile == "debug" { "dev" } else { profile },
        ])
        .arg("--target-dir")
        .arg(target)
        .status()
        .context("cargo does not start")?;
    if !status.success() {
        bail!("cannot build {name}: cargo ended with {status}");
    }
    Ok(dir.join(name))
}
