//! `cargo xtask bench`: what weir costs, beside no mesh and beside iptables
//! with other proxies. It measures and is no test.
//!
//! Owns the order: every row stands from the start, each round runs every load
//! on every row in turn, so that whatever the machine does besides hits all of
//! them. Only ratios within one run mean anything.

mod acceleration;
mod chart;
mod connect;
mod hook;
mod load;
mod machine;
mod memory;
mod meter;
mod peer;
mod plot;
mod readme;
mod report;
mod result;
mod rival;
mod row;
mod scale;
mod target;
mod train;
mod udp;
mod wrk;

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result};
use clap::ValueEnum;
use testbed::Node;

use acceleration::Verdict;
use load::Load;
use memory::Memory;
use report::Report;
use result::Results;
use row::{Kind, Plan, Row};

use crate::release::{self, Variant};
use crate::setup::{self, Need};
use crate::workspace;

pub(crate) use peer::{Peer, run as run_peer};
pub(crate) use train::run as train;

/// What `cargo xtask bench` can be told.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often everything is measured; medians are shown.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long each load runs on each row in each round.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// One round of one second, everything but the full node in it, in under 3 minutes
    /// once built: to see that it works. One round is too few to judge a target by.
    #[arg(long, conflicts_with_all = ["rounds", "seconds"])]
    quick: bool,
    /// Only this part; all if absent.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Only how long applies take on a full node: `--only scale`.
    #[arg(long, conflicts_with_all = ["rounds", "seconds", "quick", "rows", "only"])]
    scale: bool,
    /// Only these rows; all if absent.
    #[arg(long, value_enum, value_name = "ROW", value_delimiter = ',')]
    rows: Vec<Kind>,
    /// Where the results go as JSON; the report and its plots go beside it.
    #[arg(long, value_name = "FILE", default_value = "target/bench/bench.json")]
    json: PathBuf,
}

/// A part of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Loads through every row, the proxies' memory, and the self-test of acceleration.
    Loads,
    /// UDP there and back, with weir and without, and what its hooks take.
    Udp,
    /// What one connect costs, beside no mesh and while the configuration grows.
    Connect,
    /// How long applies take on a node that is as full as it may be; not in a quick run.
    Scale,
}

impl Args {
    fn only(&self) -> Option<Part> {
        self.scale.then_some(Part::Scale).or(self.only)
    }

    fn wants(&self, part: Part) -> bool {
        let is_in_all = part != Part::Scale || !self.quick;
        self.only().map_or(is_in_all, |only| only == part)
    }

    /// Whether this is the run that a quick one promises to be short.
    fn is_whole_quick(&self) -> bool {
        self.quick && self.only().is_none() && self.rows.is_empty()
    }

    fn rounds(&self) -> (u32, u64) {
        if self.quick {
            (1, 1)
        } else {
            (self.rounds, self.seconds)
        }
    }

    fn rows(&self) -> Vec<Kind> {
        let all = Kind::value_variants().iter().copied();
        all.filter(|kind| self.rows.is_empty() || self.rows.contains(kind))
            .collect()
    }
}

/// Runs `cargo xtask bench`.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    // The loads' own ends must not be slower than need be.
    if cfg!(debug_assertions) {
        return build_and_become_release(args);
    }
    let begun = Instant::now();
    let kinds = args.rows();
    let load = machine::load();
    let verdict = (args.wants(Part::Loads) && kinds.iter().any(|kind| kind.is_accelerated()))
        .then(|| {
            println!("self-test of acceleration …");
            Verdict::of_auto()
        })
        .transpose()?;
    let plan = Plan::new(verdict)?;
    let mut memory = Vec::new();
    let mut results = Results::default();
    if args.wants(Part::Loads) {
        memory = measure_memory(&kinds, &plan)?;
        results = measure_loads(args, &kinds, &plan)?;
    }
    let (rounds, seconds) = args.rounds();
    let datagrams = args
        .wants(Part::Udp)
        .then(|| udp::measure(rounds, seconds))
        .transpose()?;
    let costs = args
        .wants(Part::Connect)
        .then(|| connect::measure(rounds, args.quick))
        .transpose()?;
    let scale = args.wants(Part::Scale).then(scale::measure).transpose()?;
    let took = begun.elapsed();
    let of_weir = memory.iter().find(|(kind, _)| *kind == Kind::Weir);
    let mut targets = target::all(&results, of_weir.map(|(_, memory)| *memory));
    targets.extend(connect::targets(costs.as_ref()));
    targets.extend(scale::targets(scale.as_ref()));
    targets.extend(args.is_whole_quick().then(|| target::of_quick_run(took)));
    let report = Report {
        machine: machine::describe(&testbed::weir_binary()?, load),
        rounds: args.rounds(),
        took,
        targets,
        rows: if args.wants(Part::Loads) {
            kinds
        } else {
            Vec::new()
        },
        results,
        memory,
        datagrams,
        costs,
        scale,
        verdict: plan.verdict,
    };
    println!("\n{}", report.text());
    write(&args.json, &report)?;
    Ok(ExitCode::SUCCESS)
}

/// Builds everything as it is released, then goes on as the release build of
/// this program. Returns only if that fails.
fn build_and_become_release(args: &Args) -> Result<ExitCode> {
    setup::require_root("the bench")?;
    setup::ensure(Need::Bench)?;
    println!("building in release …");
    let redirected = args.wants(Part::Loads) && args.rows().contains(&Kind::Redirect);
    let variants: &[Variant] = if redirected {
        &[Variant::Redirect, Variant::Plain]
    } else {
        &[Variant::Plain]
    };
    release::build(variants)?;
    release::build_plain("weir-tests", &["--bin", "testbed-tool"])?;
    release::build_plain("xtask", &[])?;
    let program = workspace::root().join("target/release/xtask");
    let mut become_release = Command::new(&program);
    become_release.args(std::env::args_os().skip(1));
    // The testbed would build its own, without the profile.
    become_release.env("WEIR_BIN", Variant::Plain.program());
    let error = become_release.exec();
    Err(Error::new(error).context(format!("{} does not start", program.display())))
}

fn measure_memory(kinds: &[Kind], plan: &Plan) -> Result<Vec<(Kind, Memory)>> {
    let asked = [Kind::Haproxy, Kind::Nginx, Kind::Envoy, Kind::Weir]
        .into_iter()
        .filter(|kind| kinds.contains(kind));
    asked
        .map(|kind| {
            println!("memory, {} …", kind.title());
            let memory = memory::measure(kind, plan);
            Ok((
                kind,
                memory.with_context(|| format!("memory, {}", kind.title()))?,
            ))
        })
        .collect()
}

fn measure_loads(args: &Args, kinds: &[Kind], plan: &Plan) -> Result<Results> {
    let (rounds, seconds) = args.rounds();
    let nodes = kinds
        .iter()
        .map(|_| Node::new())
        .collect::<Result<Vec<_>>>()?;
    let mut rows = Vec::new();
    for (kind, node) in kinds.iter().zip(&nodes) {
        println!("setting up, {} …", kind.title());
        rows.push((*kind, Row::new(node, *kind, plan)?));
    }
    let mut results = Results::default();
    for round in 1..=rounds {
        for load in Load::ALL {
            println!("round {round} of {rounds}, {} …", load.key());
            for (kind, row) in &rows {
                let (measured, cpu) = load
                    .run(row, Duration::from_secs(seconds))
                    .with_context(|| format!("{}, {}\n{}", load.key(), kind.title(), row.log()))?;
                results.add(load, *kind, measured, cpu);
            }
        }
    }
    Ok(results)
}

fn write(file: &Path, report: &Report) -> Result<()> {
    let file = workspace::root().join(file);
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    }
    let json = serde_json::to_string_pretty(&report.json())?;
    put(&file, &(json + "\n"))?;
    put(&file.with_extension("md"), &report.text())?;
    for (name, plot) in report.plots() {
        put(&file.with_file_name(name), &plot)?;
    }
    println!("written to {}", file.display());
    Ok(())
}

fn put(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
}
