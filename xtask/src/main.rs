//! The project's own commands.
mod demo;
use clap::Parser;
use std::process::ExitCode;
#[derive(Parser)]
enum Cli {
    /// Play weir's main job on one node with real pods.
    Demo(demo::Args),
}
fn main() -> ExitCode {
    let Cli::Demo(args) = Cli::parse();
    demo::run(&args).unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
