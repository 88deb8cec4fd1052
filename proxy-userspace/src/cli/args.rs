//! The command line: commands, flags, and what `--help` says of them.
//!
//! Owns words alone. Must never open a file or a socket.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::run_args::{Accelerate, RunArgs, UninstallArgs};
use crate::admin::selector::{Label, Selector};
use crate::config::Kind;

/// Where the admin socket lies unless something else is said.
pub(super) const ADMIN_SOCKET: &str = "/run/weir/admin.sock";

/// What `--help` says below the commands.
const EXIT_STATUS: &str = "\
Exit status:
  0  done
  1  weir refused, or `weir diff` found a difference, or the daemon could not go on
  2  weir could not be asked: wrong arguments, an unreadable file, no daemon, no permission";

/// A transparent proxy for a whole node
///
/// `weir run` is the daemon; the other commands ask it over its unix socket.
#[derive(Debug, Parser)]
#[command(name = "weir", version, after_help = EXIT_STATUS, max_term_width = 100, disable_help_subcommand = true)]
pub(super) struct Cli {
    /// The daemon's admin socket
    #[arg(long, global = true, value_name = "PATH", env = "WEIR_ADMIN_SOCKET")]
    pub(super) admin_socket: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Arguments of the canary.
#[derive(Debug, Args)]
pub(super) struct CanaryArgs {
    /// File of the pod's network namespace
    pub(super) netns: PathBuf,
    /// Directory of the pod's cgroup
    pub(super) cgroup: PathBuf,
    /// What to dial
    #[arg(required = true)]
    pub(super) dialled: Vec<IpAddr>,
}

/// Arguments of the self-test.
#[derive(Debug, Args)]
pub(super) struct SelfTestArgs {
    /// The pods' cgroup parent
    pub(super) cgroup: PathBuf,
    /// Directory to mount a private bpffs over
    pub(super) bpffs: PathBuf,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the daemon in the foreground
    Run(RunArgs),
    /// Dial from inside a pod, to see whether it is captured: weir's own tool
    #[command(hide = true)]
    Canary(CanaryArgs),
    /// Try in a namespace of its own what acceleration breaks: weir's own tool
    #[command(hide = true)]
    SelfTest(SelfTestArgs),
    /// Remove everything that weir left in the kernel: the node as it was
    Uninstall(UninstallArgs),
    /// Anything that a running daemon is asked for.
    #[command(flatten)]
    Ask(Question),
}

/// The commands that a running daemon answers.
#[derive(Debug, Subcommand)]
pub(super) enum Question {
    /// Create or change the objects in files; others stay as they are
    Apply(ApplyArgs),
    /// Create objects from files; refused if one is there already
    Create(WriteArgs),
    /// Replace objects from files; refused if one is not there
    Replace(WriteArgs),
    /// Delete objects, named in files or by kind and name
    Delete(DeleteArgs),
    /// Show objects
    Get(GetArgs),
    /// Show what `weir apply` would change; status 1 if anything
    Diff(DiffArgs),
    /// Change some fields of an object
    Patch(PatchArgs),
    /// Show the configurations that were in force
    History(OutputArgs),
    /// Put an earlier rule set in force again, as a new generation
    ///
    /// Services and workloads are present state and are never undone.
    Undo(UndoArgs),
    /// Enroll a pod: from now on weir decides on its connections
    ///
    /// Writes a Workload; one that is there already keeps what is not named here, but for its addresses.
    Enroll(EnrollArgs),
    /// Stop deciding on a pod's connections; it stays known, and an endpoint
    Unenroll(UnenrollArgs),
    /// Show the workloads of this node, and whether capture really works
    Workloads(OutputArgs),
    /// Say what happens to a connection, by which rule, in which generation
    Explain(ExplainArgs),
    /// Show the daemon, its kernel half and what it does not govern
    Status(OutputArgs),
    /// Follow requests, connections and denials as JSON lines
    Tap,
    /// Follow status, workloads and the busiest calls on the screen
    Top(TopArgs),
    /// Show who really called whom
    Graph(GraphArgs),
}

/// How a reply is shown: columns for people, or YAML or JSON as in docs/admin-api.md.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    #[default]
    Table,
    Yaml,
    Json,
}

/// Output format alone.
#[derive(Debug, Args)]
pub(super) struct OutputArgs {
    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(super) output: Output,
}

/// Files that hold documents.
#[derive(Debug, Args)]
pub(super) struct FileArgs {
    /// File or directory (*.yaml, *.yml, *.json) with documents; - is standard input; may be repeated
    #[arg(short, long = "filename", value_name = "FILE", required = true, num_args = 1..)]
    pub(super) files: Vec<PathBuf>,
}

/// What every write takes.
#[derive(Debug, Args)]
pub(super) struct WriteOptions {
    /// Check everything, change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Why, for `weir history`
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(super) output: Output,
}

/// Arguments of `weir apply`.
#[derive(Debug, Args)]
pub(super) struct ApplyArgs {
    /// The documents.
    #[command(flatten)]
    pub(super) files: FileArgs,
    /// Also delete objects of the --selector that are in none of the files
    #[arg(long, requires = "selector")]
    pub(super) prune: bool,
    /// Labels of the objects to prune, such as app=shop
    #[arg(short = 'l', long, value_name = "KEY=VALUE,…", requires = "prune")]
    pub(super) selector: Option<Selector>,
    /// How to write.
    #[command(flatten)]
    pub(super) write: WriteOptions,
}

/// Arguments of `weir create` and `weir replace`.
#[derive(Debug, Args)]
pub(super) struct WriteArgs {
    /// The documents.
    #[command(flatten)]
    pub(super) files: FileArgs,
    /// How to write.
    #[command(flatten)]
    pub(super) write: WriteOptions,
}

/// Arguments of `weir delete`.
#[derive(Debug, Args)]
#[command(
    override_usage = "weir delete [OPTIONS] <KIND> <NAME>...\n       weir delete [OPTIONS] -f <FILE>..."
)]
pub(super) struct DeleteArgs {
    /// Kind, such as routerule
    #[arg(
        required_unless_present = "files",
        conflicts_with = "files",
        requires = "names"
    )]
    pub(super) kind: Option<Kind>,
    /// Names
    #[arg(value_name = "NAME")]
    pub(super) names: Vec<String>,
    /// File or directory with documents that name the objects; - is standard input
    #[arg(short, long = "filename", value_name = "FILE", num_args = 1..)]
    pub(super) files: Vec<PathBuf>,
    /// Namespace
    #[arg(short, long, default_value = "default")]
    pub(super) namespace: String,
    /// Do not complain about an object that is not there
    #[arg(long)]
    pub(super) ignore_not_found: bool,
    /// How to write.
    #[command(flatten)]
    pub(super) write: WriteOptions,
}

/// Arguments of `weir get`.
#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// Kind: service (svc), workload (wl), routerule (rr), egressrule (er) or meshconfig (mc)
    pub(super) kind: Kind,
    /// Name; all of the kind if absent
    #[arg(conflicts_with_all = ["all_namespaces", "selector"])]
    pub(super) name: Option<String>,
    /// Namespace
    #[arg(
        short,
        long,
        default_value = "default",
        conflicts_with = "all_namespaces"
    )]
    pub(super) namespace: String,
    /// Every namespace
    #[arg(short = 'A', long)]
    pub(super) all_namespaces: bool,
    /// Labels that an object must carry, such as app=shop
    #[arg(short = 'l', long, value_name = "KEY=VALUE,…")]
    pub(super) selector: Option<Selector>,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(super) output: Output,
}

/// Arguments of `weir diff`.
#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// The documents.
    #[command(flatten)]
    pub(super) files: FileArgs,
}

/// How a patch is written: as RFC 7396 or as RFC 6902 says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum PatchType {
    #[default]
    Merge,
    Json,
}

/// Arguments of `weir patch`.
#[derive(Debug, Args)]
pub(super) struct PatchArgs {
    /// Kind, such as routerule
    pub(super) kind: Kind,
    /// Name
    pub(super) name: String,
    /// The patch, as JSON
    #[arg(short, long, value_name = "JSON")]
    pub(super) patch: String,
    /// JSON merge patch (RFC 7396) or JSON patch (RFC 6902)
    #[arg(long = "type", value_name = "TYPE", value_enum, default_value_t)]
    pub(super) patch_type: PatchType,
    /// Namespace
    #[arg(short, long, default_value = "default")]
    pub(super) namespace: String,
    /// How to write.
    #[command(flatten)]
    pub(super) write: WriteOptions,
}

/// Arguments of `weir undo`.
#[derive(Debug, Args)]
pub(super) struct UndoArgs {
    /// Generation to go back to; the one before the present rules if absent
    #[arg(long, value_name = "GENERATION")]
    pub(super) to: Option<u64>,
    /// How to write.
    #[command(flatten)]
    pub(super) write: WriteOptions,
}

/// Arguments of `weir enroll`.
#[derive(Debug, Args)]
pub(super) struct EnrollArgs {
    /// Name of the workload
    pub(super) name: String,
    /// A file of the pod's network namespace, such as /run/netns/NAME or /proc/PID/ns/net
    #[arg(long, value_name = "PATH")]
    pub(super) netns: PathBuf,
    /// The pod's cgroup v2 directory
    #[arg(long, value_name = "PATH")]
    pub(super) cgroup: PathBuf,
    /// A label; may be repeated
    #[arg(short = 'l', long = "label", value_name = "KEY=VALUE")]
    pub(super) labels: Vec<Label>,
    /// An address of the pod; may be repeated; those found in its network namespace if absent
    #[arg(long = "address", value_name = "IP")]
    pub(super) addresses: Vec<IpAddr>,
    /// Socket-to-socket acceleration of this workload: auto, force or off [default: the daemon's]
    #[arg(long, value_name = "MODE")]
    pub(super) accelerate: Option<Accelerate>,
    /// Also close the connections that the pod dialled before: nobody decided on them
    #[arg(long)]
    pub(super) reset_existing: bool,
    /// Namespace
    #[arg(short, long, default_value = "default")]
    pub(super) namespace: String,
    /// How to write.
    #[command(flatten)]
    pub(super) write: WriteOptions,
}

/// Arguments of `weir unenroll`.
#[derive(Debug, Args)]
pub(super) struct UnenrollArgs {
    /// Name of the workload
    pub(super) name: String,
    /// Namespace
    #[arg(short, long, default_value = "default")]
    pub(super) namespace: String,
    /// How to write.
    #[command(flatten)]
    pub(super) write: WriteOptions,
}

/// Arguments of `weir explain`.
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The workload that connects
    pub(super) workload: String,
    /// Where to: an address, a service (name or name.namespace) or a host name, with :PORT; for UDP with /udp behind it
    #[arg(value_name = "DESTINATION[:PORT][/udp]")]
    pub(super) destination: String,
    /// Namespace of the workload
    #[arg(short, long, default_value = "default")]
    pub(super) namespace: String,
    /// Method of the request
    #[arg(long)]
    pub(super) method: Option<String>,
    /// Path of the request
    #[arg(long)]
    pub(super) path: Option<String>,
    /// Header of the request; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE")]
    pub(super) headers: Vec<String>,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(super) output: Output,
}

/// Arguments of `weir top`.
#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(super) interval: u64,
    /// How many looks; without end if absent
    #[arg(long, value_name = "N")]
    pub(super) count: Option<u64>,
}

/// How the call graph is shown: for Graphviz or for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum GraphOutput {
    #[default]
    Dot,
    Json,
}

/// Arguments of `weir graph`.
#[derive(Debug, Args)]
pub(super) struct GraphArgs {
    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(super) output: GraphOutput,
}
