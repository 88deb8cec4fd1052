//! `cargo xtask fuzz`: everything that reads bytes of others, under a fuzzer,
//! for a while.
//!
//! Owns how `fuzz/` is built and run: a workspace of its own, with coverage and
//! the address sanitizer compiled in, laid out so that `cargo fuzz` runs it too.
//! Must never pass because a target was not run.

use std::env::consts::ARCH;
use std::fs;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::setup::{self, Need};
use crate::{process, workspace};

const BUILD_LIMIT: Duration = Duration::from_mins(30);

/// What the fuzzer may take beyond its time, to start and to write down.
const PATIENCE: Duration = Duration::from_mins(2);

/// What libFuzzer needs to see which way the code went, and the address sanitizer.
const FLAGS: [&str; 8] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Zsanitizer=address",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];

/// What every input must keep to: a slow one is a finding, and so is a greedy one.
const BOUNDS: [&str; 3] = ["-timeout=10", "-rss_limit_mb=2048", "-max_len=16384"];

/// What `cargo xtask fuzz` can be told.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The targets to run; all, if none is named.
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// How long each runs. What it learns is kept below `target/fuzz`, so that
    /// the next run goes on from there.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

/// Runs `cargo xtask fuzz`.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let targets = targets()?;
    if let Some(unknown) = args.targets.iter().find(|name| !targets.contains(*name)) {
        bail!("no target {unknown}: there are {}", targets.join(", "));
    }
    setup::ensure(Need::Build)?;
    build()?;
    for target in targets {
        if args.targets.is_empty() || args.targets.contains(&target) {
            println!("── {target}");
            fuzz(&target, args.seconds).with_context(|| {
                format!("fuzz target `{target}`; the input that did it lies in target/fuzz/artifacts/{target}, and belongs into fuzz/seeds/{target} once it is mended")
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Their names, which are those of their files.
fn targets() -> Result<Vec<String>> {
    let dir = workspace::root().join("fuzz/fuzz_targets");
    let files = fs::read_dir(&dir).with_context(|| dir.display().to_string())?;
    let mut names = Vec::new();
    for file in files {
        let path = file?.path();
        let name = path.file_stem().context("a file has a name")?;
        names.push(name.to_string_lossy().into_owned());
    }
    names.sort();
    ensure!(!names.is_empty(), "{} is empty", dir.display());
    Ok(names)
}

fn triple() -> String {
    format!("{ARCH}-unknown-linux-gnu")
}

fn build() -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.current_dir(workspace::root().join("fuzz"));
    // With a target named, the flags are not those of build scripts too.
    cargo.args(["build", "--locked", "--release", "--bins", "--target"]);
    cargo.arg(triple()).arg("--target-dir");
    cargo.arg(workspace::root().join("target/fuzz"));
    // The sanitizer is not for a stable toolchain otherwise.
    cargo.env("RUSTC_BOOTSTRAP", "1");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    process::run(&mut cargo, BUILD_LIMIT)
        .context("building the fuzz targets (this takes a C++ compiler)")
}

/// Runs one target, from the seeds and from what earlier runs learned.
fn fuzz(target: &str, seconds: u64) -> Result<()> {
    let out = workspace::root().join("target/fuzz");
    let (corpus, artifacts) = (
        out.join("corpus").join(target),
        out.join("artifacts").join(target),
    );
    for dir in [&corpus, &artifacts] {
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    let mut fuzzer = Command::new(out.join(triple()).join("release").join(target));
    fuzzer
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(BOUNDS)
        .arg("-print_final_stats=1")
        .arg("-verbosity=0")
        .arg(corpus)
        .arg(workspace::root().join("fuzz/seeds").join(target));
    process::run(&mut fuzzer, Duration::from_secs(seconds) + PATIENCE)
}
