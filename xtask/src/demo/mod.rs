//! `cargo xtask demo`: weir's main job, shown on one node with real pods.
//!
//! Owns the story: what is done, what is expected, what was measured. Must
//! leave nothing behind, however it ends.

mod mesh;
mod report;
mod steps;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use testbed::Node;

use mesh::Mesh;
use report::{Outcome, Report};

/// Arguments of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave everything running at the end until Ctrl-C, and say what to try
    #[arg(long)]
    keep: bool,
    /// Also write the results to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Plays all steps; fails if one of them does.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let begun = Instant::now();
    let mut report = Report::default();
    play(args, &mut report)?;
    let left = testbed::leftovers()?;
    report.add("nothing is left on the machine", || {
        let names: Vec<_> = left.iter().map(|path| path.display().to_string()).collect();
        Ok(Outcome {
            expected: "no process, namespace, cgroup, pin or file".to_owned(),
            measured: if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            },
            passed: names.is_empty(),
        })
    });
    report.conclude(begun.elapsed());
    write(args, &report, begun)?;
    Ok(if report.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn write(args: &Args, report: &Report, begun: Instant) -> Result<()> {
    let Some(file) = &args.json else {
        return Ok(());
    };
    let text = serde_json::to_string_pretty(&report.json(begun.elapsed()))?;
    std::fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))
}

/// Sets the node up, plays the steps, and takes it down again.
fn play(args: &Args, report: &mut Report) -> Result<()> {
    println!("building weir and the demo's applications …");
    testbed::weir_binary()?;
    testbed::tool_binary()?;
    let begun = Instant::now();
    let node = Node::new()?;
    let mut mesh = Mesh::new(&node)?;
    for (title, step) in steps::ALL {
        report.add(title, || step(&mut mesh));
    }
    if args.keep {
        write(args, report, begun)?;
        mesh.say_what_to_try()?;
        // Ctrl-C takes everything down and ends the process.
        loop {
            std::thread::park();
        }
    }
    mesh.end()?;
    drop(node);
    ensure!(!testbed::cancelled(), "cancelled");
    Ok(())
}
