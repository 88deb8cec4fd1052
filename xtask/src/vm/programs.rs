//! The programs that run on an emulated machine: weir, the tests and their
//! tool as they are built for this machine, and what these need.
//!
//! Owns how they are built, found and made small. Must never build weir in a
//! way that a user would not: what is tried is what runs on a node.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;

use crate::{process, workspace};

const BUILD_LIMIT: Duration = Duration::from_mins(15);
const TOOL_LIMIT: Duration = Duration::from_mins(1);

/// Everything that was built.
pub(super) struct Programs {
    /// The daemon and its command line; `WEIR_BIN` names another one.
    pub(super) weir: PathBuf,
    /// The testbed's program inside pods.
    pub(super) tool: PathBuf,
    /// The tests, by the name of their file.
    pub(super) tests: BTreeMap<String, PathBuf>,
}

/// Builds weir and the tests.
pub(super) fn build() -> Result<Programs> {
    let mut built = cargo(&["test", "--no-run", "--package", "weir-tests"])?;
    let weir = match env::var_os("WEIR_BIN") {
        Some(path) => PathBuf::from(path),
        None => cargo(&[
            "build",
            "--release",
            "--package",
            "proxy-userspace",
            "--bin",
            "weir",
        ])?
        .binaries
        .remove("weir")
        .ok_or_else(|| anyhow!("cargo built no weir"))?,
    };
    let tool = built.binaries.remove("testbed-tool");
    Ok(Programs {
        weir,
        tool: tool.ok_or_else(|| anyhow!("cargo built no testbed-tool"))?,
        tests: built.tests,
    })
}

/// The executables of one run of cargo, by name.
#[derive(Default)]
struct Built {
    binaries: BTreeMap<String, PathBuf>,
    tests: BTreeMap<String, PathBuf>,
}

fn cargo(args: &[&str]) -> Result<Built> {
    let mut said = tempfile::tempfile().context("no room for a temporary file")?;
    let mut cargo = workspace::cargo();
    cargo.args(args);
    cargo.args(["--locked", "--message-format=json-render-diagnostics"]);
    cargo.stdin(Stdio::null()).stdout(said.try_clone()?);
    process::run(&mut cargo, BUILD_LIMIT)?;
    let mut text = String::new();
    said.rewind()?;
    said.read_to_string(&mut text)?;
    Ok(artifacts(&text))
}

/// What cargo says of a target that it has built.
#[derive(Deserialize)]
struct Artifact {
    executable: Option<PathBuf>,
    profile: Profile,
    target: Target,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// Reads cargo's messages, one a line; those of another kind are left out.
fn artifacts(messages: &str) -> Built {
    let mut built = Built::default();
    let lines = messages.lines();
    for artifact in lines.filter_map(|line| serde_json::from_str::<Artifact>(line).ok()) {
        let Some(executable) = artifact.executable else {
            continue;
        };
        let Target { name, kind } = artifact.target;
        // A binary's own unit tests are neither.
        match (kind.first().map(String::as_str), artifact.profile.test) {
            (Some("test"), true) => built.tests.insert(name, executable),
            (Some("bin"), false) => built.binaries.insert(name, executable),
            _ => None,
        };
    }
    built
}

/// The program without what only a debugger reads: nine tenths of it.
pub(super) fn stripped(program: &Path) -> Result<Vec<u8>> {
    let scratch = tempfile::NamedTempFile::new().context("no room for a temporary file")?;
    let mut strip = Command::new("strip");
    strip.arg("--strip-debug").arg("-o");
    strip.arg(scratch.path()).arg(program);
    process::capture(&mut strip, TOOL_LIMIT)?;
    fs::read(scratch.path()).with_context(|| format!("{} is lost", program.display()))
}

/// The shared libraries that a program loads; none, if it is static.
pub(super) fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let mut ldd = Command::new("ldd");
    match process::capture(ldd.arg(program), TOOL_LIMIT) {
        Ok(said) => Ok(library_paths(&said)),
        Err(error) if error.to_string().contains("not a dynamic executable") => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Lines like `libc.so.6 => /lib/libc.so.6 (0x7f…)`, or with the path alone.
fn library_paths(said: &str) -> Vec<PathBuf> {
    let words = said
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    words.map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_told_apart() {
        let message = |name: &str, kind: &str, test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"kind":["{kind}"],"name":"{name}"}},"profile":{{"test":{test}}},"executable":{executable}}}"#
            )
        };
        let messages = [
            message("testbed", "lib", false, "null"),
            message("testbed", "lib", true, r#""/t/testbed-1""#),
            message("testbed-tool", "bin", false, r#""/t/testbed-tool""#),
            message("testbed-tool", "bin", true, r#""/t/testbed-tool-2""#),
            message("capture", "test", true, r#""/t/capture-3""#),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
        ];
        let built = artifacts(&messages.join("\n"));
        let binaries: Vec<_> = built.binaries.into_iter().collect();
        assert_eq!(
            binaries,
            [("testbed-tool".into(), "/t/testbed-tool".into())]
        );
        let tests: Vec<_> = built.tests.into_iter().collect();
        assert_eq!(tests, [("capture".into(), "/t/capture-3".into())]);
    }

    #[test]
    fn libraries_are_found() {
        let said = "\tlinux-vdso.so.1 (0x7ffd)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x7f)\n\t/lib64/ld-linux-x86-64.so.2 (0x7f)\n";
        let expected = ["/lib/x/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(library_paths(said), expected.map(PathBuf::from));
    }
}
