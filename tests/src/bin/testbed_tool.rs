//! The testbed's program inside pods: launcher, agent, and the demo's applications.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use testbed::app::{Listen, msgd, svca, svcb};
use testbed::conformance::Conformance;
use testbed::launch::Launch;

#[derive(Parser)]
struct Tool {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Becomes a program in a cgroup and a network namespace.
    Exec(Launch),
    /// Does what comes on standard input.
    Agent,
    /// Is one end of a case of the conformance suite.
    #[command(subcommand)]
    Conformance(Conformance),
    /// Makes a node with a pod, says `ready`, and waits for its end by a signal.
    Hold,
    /// The demo's svca.
    Svca {
        #[command(flatten)]
        listen: Listen,
        /// URL of svcb.
        #[arg(long)]
        svcb: String,
    },
    /// The demo's svcb.
    Svcb {
        #[command(flatten)]
        listen: Listen,
        /// URL of msgd.
        #[arg(long)]
        msgd: String,
    },
    /// The demo's msgd.
    Msgd {
        #[command(flatten)]
        listen: Listen,
    },
}

fn main() -> ExitCode {
    match run(Tool::parse().what) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("testbed-tool: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(what: What) -> Result<()> {
    match what {
        What::Exec(launch) => launch.run().map(|never| match never {}),
        What::Agent => testbed::agent::run(),
        What::Conformance(part) => part.run(),
        What::Hold => hold(),
        What::Svca { listen, svcb } => block_on(svca::run(listen, svcb)),
        What::Svcb { listen, msgd } => block_on(svcb::run(listen, msgd)),
        What::Msgd { listen } => block_on(msgd::run(listen)),
    }
}

fn hold() -> Result<()> {
    let node = testbed::Node::new()?;
    let pod = node.pod("held")?;
    // An answer: then it runs.
    drop(pod.agent().tcp4()?);
    println!("ready");
    loop {
        std::thread::park();
    }
}

fn block_on(app: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?
        .block_on(app)
}
