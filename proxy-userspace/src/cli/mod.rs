//! The command line: everything but `weir run` and `weir uninstall` is a
//! question to the daemon, over its socket.
//!
//! Owns what people see. Must never decide what the daemon decides: documents
//! go to it as they were written.

pub mod args;
mod client;
mod enroll;
mod files;
mod look;
mod print;
mod run_args;
mod show;
mod table;
#[cfg(test)]
mod tests;
mod write;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use self::args::{ADMIN_SOCKET, CanaryArgs, Cli, Command};
use self::client::{Client, ClientError};
use self::run_args::UninstallArgs;
use crate::admin::problem::Problem;
use crate::admin::socket::holder;
use crate::daemon;
use crate::node::run_canary;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// As asked.
    Done,
    /// `weir diff` found something.
    Differs,
}

/// Why a command did not end as asked.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// weir was asked and refused.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
    /// weir could not be asked.
    #[error("{0}")]
    Unasked(String),
    /// The daemon could not start or go on, or the uninstall failed.
    #[error("{0:#}")]
    Daemon(anyhow::Error),
    /// Whoever reads the output has enough of it.
    #[error("standard output was closed")]
    Unread,
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(problem) => Self::Refused(problem),
            error => Self::Unasked(error.to_string()),
        }
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is left to tell if this cannot be written.
            let _ = error.print();
            let asked = matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            );
            return ExitCode::from(if asked { 0 } else { 2 });
        }
    };
    match dispatch(cli) {
        Ok(Outcome::Done) | Err(Failure::Unread) => ExitCode::SUCCESS,
        Ok(Outcome::Differs) => ExitCode::from(1),
        Err(Failure::Refused(problem)) => {
            print::problem(&problem);
            ExitCode::from(1)
        }
        Err(error @ Failure::Daemon(_)) => {
            eprintln!("error: {error}");
            ExitCode::from(1)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn dispatch(cli: Cli) -> Result<Outcome, Failure> {
    let socket = cli
        .admin_socket
        .clone()
        .unwrap_or_else(|| ADMIN_SOCKET.into());
    let ask =
        || Client::new(&socket).map_err(|error| Failure::Unasked(format!("no runtime: {error}")));
    match cli.command {
        Command::Run(args) => {
            let options = args.options(cli.admin_socket);
            let options = options.map_err(|error| Failure::Unasked(error.to_string()))?;
            daemon::run(options).map_err(Failure::Daemon)?;
        }
        Command::Canary(args) => canary(&args)?,
        Command::Uninstall(args) => uninstall(args, &socket)?,
        Command::Apply(args) => write::apply(&ask()?, args)?,
        Command::Create(args) => write::create(&ask()?, args)?,
        Command::Replace(args) => write::replace(&ask()?, args)?,
        Command::Delete(args) => write::delete(&ask()?, args)?,
        Command::Diff(args) => return write::diff(&ask()?, &args),
        Command::Patch(args) => write::patch(&ask()?, args)?,
        Command::Undo(args) => write::undo(&ask()?, args)?,
        Command::Enroll(args) => enroll::enroll(&ask()?, args)?,
        Command::Unenroll(args) => enroll::unenroll(&ask()?, args)?,
        Command::Get(args) => show::get(&ask()?, &args)?,
        Command::History(args) => look::history(&ask()?, &args)?,
        Command::Workloads(args) => look::workloads(&ask()?, &args)?,
        Command::Explain(args) => look::explain(&ask()?, &args)?,
        Command::Status(args) => look::status(&ask()?, &args)?,
        Command::Tap => look::tap(&ask()?)?,
        Command::Top(args) => look::top(&ask()?, &args)?,
        Command::Graph(args) => look::graph(&ask()?, &args)?,
    }
    Ok(Outcome::Done)
}

/// Refuses while a daemon runs: it would go on without its kernel half.
/// Says on standard output why not, because that is what the daemon reads.
fn canary(args: &CanaryArgs) -> Result<(), Failure> {
    run_canary(&args.netns, &args.cgroup).map_err(|why| {
        println!("{why}");
        Failure::Unasked(why)
    })
}

fn uninstall(args: UninstallArgs, socket: &Path) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Failure::Unasked(format!("no runtime: {error}")))?;
    if let Some(holder) = runtime.block_on(holder(socket)) {
        return Err(Failure::Daemon(anyhow::anyhow!(
            "weir is running: {holder} holds {}; stop it first",
            socket.display()
        )));
    }
    daemon::uninstall(args.options()).map_err(Failure::Daemon)
}
