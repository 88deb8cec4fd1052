//! The project's own commands: `cargo xtask setup`, `test`, `fuzz`, `demo`,
//! `release`, `bench` and `vm`.
//!
//! Owns everything a developer or a CI machine calls. Must never become part of
//! the product, and must build on a bare machine: what the other crates need
//! first is brought from here.

mod bench;
mod demo;
mod fuzz;
mod process;
mod release;
mod setup;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use setup::Need;

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring what is missing to build and test: sources, tools, packages.
    Setup(setup::Args),
    /// Run every check and every test.
    Test(test::Args),
    /// Run everything that reads bytes of others under a fuzzer, for a while.
    Fuzz(fuzz::Args),
    /// Show weir's main job on one node with pods and services.
    Demo(demo::Args),
    /// Build weir as it ships, optimised by a profile of itself at work. Takes
    /// about ten minutes, and root.
    Release,
    /// Measure weir, accelerated and not, against no mesh and against iptables with
    /// other proxies: HTTP, TCP, UDP, and what one connect costs.
    Bench(bench::Args),
    /// Run the privileged tests on other kernels, on emulated machines. Takes a
    /// quarter of an hour for each kernel, so `cargo xtask test` leaves it out.
    Vm(vm::Args),
    /// One end of a load of `bench`, inside a pod.
    #[command(hide = true, subcommand)]
    BenchPeer(bench::Peer),
    /// The work that `release` records a profile of.
    #[command(hide = true)]
    BenchTrain,
}

fn main() -> ExitCode {
    run(Cli::parse().command).unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Setup(args) => setup::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Demo(args) => {
            setup::require_root("the demo")?;
            setup::ensure(Need::Demo)?;
            demo::run(&args)
        }
        Command::Release => release::run(),
        Command::Bench(args) => bench::run(&args),
        Command::Vm(args) => vm::run(&args),
        Command::BenchTrain => bench::train().map(|()| ExitCode::SUCCESS),
        Command::BenchPeer(peer) => bench::run_peer(&peer).map(|()| ExitCode::SUCCESS),
    }
}
