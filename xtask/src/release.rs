//! `cargo xtask release`: weir as it ships, optimised by a profile of itself.
//!
//! A first build counts how often each of its branches is taken; it carries the
//! bench's loads through a proxy and applies a full node's configuration; a
//! second build is laid out by what was counted. Owns `target/profile` and
//! `target/dist`. Must never use a profile of another build than the present
//! sources': functions that changed would be taken for ones that never run.

use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::setup::{self, LLVM_PROFDATA, Need};
use crate::{process, workspace};

const BUILD_LIMIT: Duration = Duration::from_mins(30);
const TRAIN_LIMIT: Duration = Duration::from_mins(6);
const MERGE_LIMIT: Duration = Duration::from_mins(1);

/// Holds the build that counts, what it counted, and profiles made of that.
const PROFILE_DIR: &str = "target/profile";
/// Holds what is built by a profile.
const DIST_DIR: &str = "target/dist";

/// What is built by the profile.
#[derive(Clone, Copy)]
pub(crate) enum Variant {
    /// As it ships.
    Plain,
    /// With the feature that accepts what iptables redirects, for the bench.
    Redirect,
}

impl Variant {
    const fn features(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &[],
            Self::Redirect => &["--features", "redirect"],
        }
    }

    /// Where its program lies once it was built.
    pub(crate) fn program(self) -> PathBuf {
        let name = match self {
            Self::Plain => "weir",
            Self::Redirect => "weir-redirect",
        };
        workspace::root().join(DIST_DIR).join(name)
    }
}

/// Runs `cargo xtask release`.
pub(crate) fn run() -> Result<ExitCode> {
    setup::require_root("recording a profile of weir at work")?;
    setup::ensure(Need::Release)?;
    build(&[Variant::Plain])?;
    println!("{}", Variant::Plain.program().display());
    Ok(ExitCode::SUCCESS)
}

/// Brings the programs of `variants` up to date with the sources, and the
/// profile before them.
pub(crate) fn build(variants: &[Variant]) -> Result<()> {
    let host = host()?;
    let profile = profile(&host)?;
    let flags = format!("-Cprofile-use={}", profile.display());
    for variant in variants {
        let built = cargo(&host, DIST_DIR, &flags, variant.features())?;
        put(&built, &variant.program())?;
    }
    Ok(())
}

/// Builds one package as it is released elsewhere: apart from the others, since
/// their dependencies would get each other's features.
pub(crate) fn build_plain(package: &str, more: &[&str]) -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--locked", "--release", "--package", package]);
    process::run(cargo.args(more), BUILD_LIMIT)
}

/// The profile of the present sources; recorded if there is none.
fn profile(host: &str) -> Result<PathBuf> {
    let dir = workspace::root().join(PROFILE_DIR);
    let raw = dir.join("raw");
    let flags = format!("-Cprofile-generate={}", raw.display());
    let counting = cargo(host, PROFILE_DIR, &flags, &[])?;
    let profile = dir.join(format!("{:016x}.profdata", digest(&counting)?));
    if profile.is_file() {
        return Ok(profile);
    }
    for (package, more) in [
        ("weir-tests", &["--bin", "testbed-tool"][..]),
        ("xtask", &[]),
    ] {
        build_plain(package, more)?;
    }
    if raw.is_dir() {
        fs::remove_dir_all(&raw).with_context(|| format!("{} stays", raw.display()))?;
    }
    println!("recording a profile of weir at work (about a minute) …");
    let program = workspace::root().join("target/release/xtask");
    let mut train = Command::new(program);
    train.arg("bench-train").env("WEIR_BIN", &counting);
    process::run(&mut train, TRAIN_LIMIT)?;
    merge(&raw, &profile)?;
    Ok(profile)
}

/// Makes one profile of what every process of the counting build left behind.
fn merge(raw: &Path, profile: &Path) -> Result<()> {
    let counted = fs::read_dir(raw)
        .with_context(|| format!("weir left no counts in {}", raw.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    // Renamed at the end: half a profile must not pass for one.
    let unfinished = profile.with_extension("unfinished");
    let mut merge = Command::new(LLVM_PROFDATA);
    merge.args(["merge", "-o"]).arg(&unfinished).args(counted);
    process::capture(&mut merge, MERGE_LIMIT)?;
    fs::rename(&unfinished, profile)
        .with_context(|| format!("{} cannot be written", profile.display()))
}

/// Builds weir with flags of its own. Naming the target keeps them off build
/// scripts and macros.
fn cargo(host: &str, dir: &str, flags: &str, more: &[&str]) -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo
        .args(["build", "--locked", "--release", "--bin", "weir"])
        .args(["--package", "proxy-userspace", "--target", host])
        .args(["--target-dir", dir])
        .args(more)
        .env("CARGO_ENCODED_RUSTFLAGS", flags);
    process::run(&mut cargo, BUILD_LIMIT)?;
    Ok(workspace::root().join(dir).join(host).join("release/weir"))
}

/// The target that the toolchain builds for by itself.
fn host() -> Result<String> {
    let mut rustc = Command::new("rustc");
    rustc.current_dir(workspace::root());
    rustc.args(["--print", "host-tuple"]);
    let said = process::capture(&mut rustc, MERGE_LIMIT)?;
    Ok(said.trim().to_owned())
}

/// Tells one build from another.
fn digest(program: &Path) -> Result<u64> {
    let bytes = fs::read(program).with_context(|| format!("{} is gone", program.display()))?;
    let mut hasher = DefaultHasher::new();
    hasher.write(&bytes);
    Ok(hasher.finish())
}

/// Gives a program its place, under which another one may just be running.
fn put(built: &Path, place: &Path) -> Result<()> {
    let unfinished = place.with_extension("unfinished");
    fs::copy(built, &unfinished)
        .and_then(|_| fs::rename(&unfinished, place))
        .with_context(|| format!("{} cannot be written", place.display()))
}
