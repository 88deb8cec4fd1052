//! The project's own commands: `cargo xtask setup` and `cargo xtask test`.
//!
//! Owns everything a developer or a CI machine calls. Must never become part of
//! the product, and must build on a bare machine: what the other crates need
//! first is brought from here.

mod process;
mod setup;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::Test(args) => test::run(&args),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
