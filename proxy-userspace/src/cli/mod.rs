//! The command line: everything but `weir run` and `weir uninstall` is a
//! question to the daemon, over its socket.
//!
//! Owns what people see. Must never decide what the daemon decides: documents
//! go to it as they were written.

mod args;
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
mod top;
mod write;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use self::args::{ADMIN_SOCKET, CanaryArgs, Cli, Command, Question};
use self::client::{Client, ClientError};
use self::print::Printer;
use self::run_args::UninstallArgs;
use crate::accelerate::run_self_test;
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

/// A daemon to ask, and where to write what it says.
struct Session<'a> {
    client: Client,
    print: Printer<'a>,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => ExitCode::from(run(cli, &mut io::stdout(), &mut io::stderr())),
        Err(error) => {
            // Nobody is left to tell if this cannot be written.
            let _ = error.print();
            let asked = matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            );
            ExitCode::from(if asked { 0 } else { 2 })
        }
    }
}

/// Runs one command; gives its exit status.
fn run(cli: Cli, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    match dispatch(
        cli,
        Printer {
            out,
            err: &mut *err,
        },
    ) {
        Ok(Outcome::Done) | Err(Failure::Unread) => 0,
        Ok(Outcome::Differs) => 1,
        Err(Failure::Refused(problem)) => {
            Printer {
                out: &mut io::sink(),
                err,
            }
            .problem(&problem);
            1
        }
        Err(error) => {
            let status = if matches!(error, Failure::Daemon(_)) {
                1
            } else {
                2
            };
            Printer {
                out: &mut io::sink(),
                err,
            }
            .note(&format!("error: {error}"));
            status
        }
    }
}

fn dispatch(cli: Cli, print: Printer<'_>) -> Result<Outcome, Failure> {
    let Cli {
        admin_socket,
        command,
    } = cli;
    let socket = admin_socket.clone().unwrap_or_else(|| ADMIN_SOCKET.into());
    match command {
        Command::Run(args) => {
            let options = args
                .options(admin_socket)
                .map_err(|error| Failure::Unasked(error.to_string()))?;
            daemon::run(&options).map_err(Failure::Daemon)?;
            Ok(Outcome::Done)
        }
        Command::Canary(args) => canary(&args, print).map(|()| Outcome::Done),
        Command::SelfTest(args) => run_self_test(&args.cgroup, &args.bpffs)
            .map(|()| Outcome::Done)
            .map_err(Failure::Daemon),
        Command::Uninstall(args) => uninstall(args, &socket).map(|()| Outcome::Done),
        Command::Ask(question) => {
            let client = Client::new(&socket).map_err(no_runtime)?;
            ask(question, &mut Session { client, print })
        }
    }
}

fn ask(question: Question, session: &mut Session<'_>) -> Result<Outcome, Failure> {
    match question {
        Question::Diff(args) => return write::diff(session, &args),
        Question::Apply(args) => write::apply(session, args),
        Question::Create(args) => write::create(session, &args),
        Question::Replace(args) => write::replace(session, &args),
        Question::Delete(args) => write::delete(session, &args),
        Question::Patch(args) => write::patch(session, args),
        Question::Undo(args) => write::undo(session, &args),
        Question::Enroll(args) => enroll::enroll(session, args),
        Question::Unenroll(args) => enroll::unenroll(session, &args),
        Question::Get(args) => show::get(session, &args),
        Question::History(args) => look::history(session, &args),
        Question::Workloads(args) => look::workloads(session, &args),
        Question::Explain(args) => look::explain(session, &args),
        Question::Status(args) => look::status(session, &args),
        Question::Tap => look::tap(session),
        Question::Top(args) => top::top(session, &args),
        Question::Graph(args) => look::graph(session, &args),
    }
    .map(|()| Outcome::Done)
}

#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
fn no_runtime(error: io::Error) -> Failure {
    Failure::Unasked(format!("the system gives no event loop: {error}"))
}

/// Says on standard output why not, because that is what the daemon reads.
fn canary(args: &CanaryArgs, mut print: Printer<'_>) -> Result<(), Failure> {
    run_canary(&args.netns, &args.cgroup, &args.dialled).or_else(|why| {
        print.out(&format!("{why}\n"))?;
        Err(Failure::Unasked(why))
    })
}

/// Refuses while a daemon runs: it would go on without its kernel half.
fn uninstall(args: UninstallArgs, socket: &Path) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(no_runtime)?;
    if let Some(holder) = runtime.block_on(holder(socket)) {
        return Err(Failure::Daemon(anyhow::anyhow!(
            "weir is running: {holder} holds {}; stop it first",
            socket.display()
        )));
    }
    daemon::uninstall(args.options()).map_err(Failure::Daemon)
}
