//! `cargo xtask test`: every check and every test, cheapest first, so that it
//! fails fast.
//!
//! Owns the list of steps and how each is run. Must never skip a step without
//! saying so, and never pass because something could not be run.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::setup::{self, CARGO_DENY, Need};
use crate::{process, workspace};

const CHECK_LIMIT: Duration = Duration::from_mins(15);
const PRIVILEGED_LIMIT: Duration = Duration::from_mins(15);
const DEMO_LIMIT: Duration = Duration::from_mins(5);
const FETCH_LIMIT: Duration = Duration::from_mins(1);

/// What `cargo xtask test` can be told.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only this step; may be given more than once.
    #[arg(long, value_enum, value_name = "STEP")]
    only: Vec<Step>,
    /// Leave out what needs root or a network.
    #[arg(long, conflicts_with = "only")]
    fast: bool,
}

/// The steps, in the order in which they are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Formatting.
    Fmt,
    /// The style test: lengths, headers, banned words, `unsafe`.
    Style,
    /// Clippy on everything but the kernel half.
    Clippy,
    /// Clippy on the kernel half, for its own target.
    ClippyEbpf,
    /// Unit and property tests; no privileges needed.
    Unit,
    /// The documentation builds without a warning.
    Doc,
    /// Dependencies: licences, bans, sources, advisories.
    Deny,
    /// The daemon.
    Build,
    /// Tests in real network namespaces and cgroups; root needed.
    Privileged,
    /// The demo: weir's main job on one node; root needed.
    Demo,
}

impl Step {
    fn is_fast(self) -> bool {
        !matches!(self, Self::Deny | Self::Privileged | Self::Demo)
    }

    fn run(self) -> Result<()> {
        match self {
            Self::Fmt => cargo(&["fmt", "--all", "--check"]),
            Self::Style => cargo(&["test", "--locked", "--package", "xtask", "--test", "style"]),
            Self::Clippy => cargo(&[
                "clippy",
                "--locked",
                "--workspace",
                "--exclude",
                "proxy-ebpf",
                "--all-targets",
                "--",
                "-Dwarnings",
            ]),
            Self::ClippyEbpf => clippy_ebpf(),
            Self::Unit => cargo(&[
                "test",
                "--locked",
                "--workspace",
                "--exclude",
                "proxy-ebpf",
                "--exclude",
                "weir-tests",
            ]),
            Self::Doc => doc(),
            Self::Deny => deny(),
            Self::Build => cargo(&["build", "--locked", "--package", "proxy-userspace"]),
            Self::Privileged => privileged(),
            Self::Demo => demo(),
        }
    }
}

/// Runs `cargo xtask test`.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let steps: Vec<Step> = Step::value_variants()
        .iter()
        .copied()
        .filter(|step| args.only.is_empty() || args.only.contains(step))
        .filter(|step| !args.fast || step.is_fast())
        .collect();
    if steps.contains(&Step::Privileged) {
        // Before the long steps, not after them.
        setup::require_root("the step `privileged`").context("`--fast` leaves such steps out")?;
    }
    setup::ensure(if args.fast { Need::Build } else { Need::Test })?;
    let begun = Instant::now();
    let mut times = Vec::new();
    for step in steps {
        let name = name(step);
        println!("── {name}");
        let started = Instant::now();
        step.run()
            .with_context(|| format!("step `{name}` (again: `cargo xtask test --only {name}`)"))?;
        println!("── {name}: passed in {}", seconds(started.elapsed()));
        times.push(format!("{name} {}", seconds(started.elapsed())));
    }
    let total = seconds(begun.elapsed());
    println!("── all passed in {total}: {}", times.join(", "));
    Ok(ExitCode::SUCCESS)
}

fn name(step: Step) -> String {
    let value = step.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn cargo(args: &[&str]) -> Result<()> {
    process::run(workspace::cargo().args(args), CHECK_LIMIT)
}

/// The kernel half is linted for its own target: for the host, its panic
/// handler would meet that of the standard library.
fn clippy_ebpf() -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args([
        "clippy",
        "--locked",
        "--release",
        "--package",
        "proxy-ebpf",
        "--bins",
    ]);
    cargo.args([
        "--target",
        "bpfel-unknown-none",
        "-Zbuild-std=core",
        "--target-dir",
    ]);
    cargo.arg(workspace::root().join("target/clippy-ebpf"));
    cargo.args(["--", "-Dwarnings"]);
    // `build-std` is not for a stable toolchain otherwise.
    cargo.env("RUSTC_BOOTSTRAP", "1");
    process::run(&mut cargo, CHECK_LIMIT)
}

fn doc() -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args([
        "doc",
        "--locked",
        "--no-deps",
        "--workspace",
        "--exclude",
        "proxy-ebpf",
    ]);
    cargo.env("RUSTDOCFLAGS", "-Dwarnings");
    process::run(&mut cargo, CHECK_LIMIT)
}

fn deny() -> Result<()> {
    let Some(tool) = CARGO_DENY.find() else {
        bail!("{} is gone: `cargo xtask setup` brings it", CARGO_DENY.name);
    };
    let command = || {
        let mut command = Command::new(&tool);
        command.current_dir(workspace::root()).arg("--locked");
        command
    };
    let mut check = command();
    check.args(["check", "bans", "licenses", "sources"]);
    process::run(&mut check, CHECK_LIMIT)?;
    match process::capture(command().args(["fetch", "db"]), FETCH_LIMIT) {
        Ok(_) => process::run(command().args(["check", "advisories"]), CHECK_LIMIT),
        Err(error) => {
            println!("NOT CHECKED: advisories; their database cannot be fetched here ({error:#})");
            Ok(())
        }
    }
}

/// One test after the other: they share the kernel.
fn privileged() -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--locked", "--package", "weir-tests", "--"]);
    cargo.arg("--test-threads=1");
    process::run(&mut cargo, PRIVILEGED_LIMIT)
}

/// In a process of its own, so that its limit holds.
fn demo() -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args([
        "run",
        "--quiet",
        "--locked",
        "--package",
        "xtask",
        "--",
        "demo",
    ]);
    process::run(&mut cargo, DEMO_LIMIT)
}
