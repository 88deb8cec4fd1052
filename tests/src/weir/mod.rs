//! The daemon under test, and its command line.

mod admin;
mod cli;
mod metrics;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::agent::{Agent, HttpRequest};
use crate::binaries::weir_binary;
use crate::node::Node;
use crate::patience::patiently;
use crate::process::{Place, Proc};
use crate::sweep::making;
use crate::wait::eventually;

pub use metrics::Metrics;

/// Where the daemon serves its metrics, inside the node's namespace.
const METRICS: &str = "127.0.0.1:15090";
/// How long a start, with all its programs to verify, may take.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long a stop, with its connections to drain, may take.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// How the daemon is started.
#[derive(Clone, Debug, Default)]
pub struct WeirOptions {
    /// More arguments of `weir run`.
    pub args: Vec<String>,
    /// More of its environment.
    pub env: Vec<(String, String)>,
    /// The daemon's program, if it is not the one that was built for the tests.
    pub binary: Option<PathBuf>,
    /// Whether it meets a kernel without `sock_diag`: it can neither list sockets
    /// nor end them.
    pub without_sock_diag: bool,
}

/// What a command said.
#[derive(Clone, Debug)]
pub struct CliOutput {
    /// Exit status.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A running daemon on a node. On drop it is stopped and uninstalled.
pub struct Weir<'a> {
    node: &'a Node,
    options: WeirOptions,
    process: Option<Proc>,
    agent: Agent,
    ended: bool,
}

impl<'a> Weir<'a> {
    /// Starts the daemon on `node` and waits until it answers.
    pub fn start(node: &'a Node) -> Result<Self> {
        Self::start_with(node, WeirOptions::default())
    }

    /// The same, with more arguments.
    pub fn start_with(node: &'a Node, options: WeirOptions) -> Result<Self> {
        let agent = node.agent()?;
        let mut weir = Self {
            node,
            options,
            process: None,
            agent,
            ended: false,
        };
        let launched = weir.launch();
        // What never ran needs no uninstalling; the node's end takes its files.
        weir.ended = launched.is_err();
        launched?;
        Ok(weir)
    }

    /// Starts the daemon again after [`Weir::kill9`] or [`Weir::stop`].
    pub fn launch(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the daemon runs already");
        let process = self.try_launch()?;
        self.process = Some(process);
        Ok(())
    }

    /// What the next start is told besides.
    pub fn set_args(&mut self, args: &[&str]) {
        self.options.args = args.iter().map(|arg| (*arg).to_owned()).collect();
    }

    /// Starts the daemon and kills it after `moment`, however far it is.
    pub fn launch_and_kill(&mut self, moment: Duration) -> Result<()> {
        ensure!(self.process.is_none(), "the daemon runs already");
        self.process = Some(self.spawn()?);
        std::thread::sleep(moment);
        self.kill9()
    }

    fn spawn(&self) -> Result<Proc> {
        let binary = self.options.binary.clone().map_or_else(weir_binary, Ok)?;
        let place = Place {
            without_sock_diag: self.options.without_sock_diag,
            ..self.node.daemon_place()
        };
        let mut command = place.command(&binary)?;
        command
            .args(["run", "--node", "testbed", "--metrics", METRICS])
            .args(self.paths()?)
            .arg("--admin-socket")
            .arg(self.admin_socket())
            .args(self.acceleration())
            .args(&self.options.args)
            .envs(self.options.env.iter().map(|(name, value)| (name, value)));
        Proc::start(command, &self.log_path())
    }

    /// Off unless a test asks: the self-test would take a CPU from every start.
    fn acceleration(&self) -> &'static [&'static str] {
        let asked = self.options.args.iter().any(|arg| arg == "--accelerate");
        if asked { &[] } else { &["--accelerate", "off"] }
    }

    fn try_launch(&self) -> Result<Proc> {
        let mut process = self.spawn()?;
        let limit = patiently(START_LIMIT);
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = process.ended()? {
                bail!("weir ended at its start with {status}:\n{}", self.log());
            }
            // Another daemon on the node would answer as well.
            if self.running_pid()? == Some(process.id()) {
                return Ok(process);
            }
            if Instant::now() > end {
                bail!("weir does not answer within {limit:?}:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The process that answers on the admin socket.
    fn running_pid(&self) -> Result<Option<u32>> {
        let said = self.cli(&["status", "-o", "json"])?.stdout;
        let status: Option<Value> = serde_json::from_str(&said).ok();
        let pid = status.as_ref().and_then(|status| status["pid"].as_u64());
        Ok(pid.and_then(|pid| u32::try_from(pid).ok()))
    }

    /// The settings that `weir run` and `weir uninstall` share.
    fn paths(&self) -> Result<[String; 6]> {
        let [cgroup, pins, state] = [
            self.node.pods_cgroup().to_path_buf(),
            self.node.bpffs().join("weir"),
            self.state_dir(),
        ]
        .map(|path| {
            path.into_os_string()
                .into_string()
                .map_err(|_| anyhow!("a path is UTF-8"))
        });
        let flag = str::to_owned;
        Ok([
            flag("--cgroup"),
            cgroup?,
            flag("--bpffs"),
            pins?,
            flag("--state-dir"),
            state?,
        ])
    }

    /// What is pinned on the node's bpffs, other than by the kernel itself.
    pub fn pins(&self) -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(self.node.bpffs()).context("cannot list the pins")?;
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        let paths: Vec<PathBuf> = paths
            .collect::<Result<_, _>>()
            .context("cannot list the pins")?;
        let own = |path: &PathBuf| {
            path.extension()
                .is_none_or(|extension| extension != "debug")
        };
        Ok(paths.into_iter().filter(own).collect())
    }

    /// The daemon's process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Proc::id)
    }

    /// The directory of the daemon's configuration.
    pub fn state_dir(&self) -> PathBuf {
        self.node.dir().join("state")
    }

    /// The daemon's admin socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.node.dir().join("admin.sock")
    }

    fn log_path(&self) -> PathBuf {
        self.node.dir().join("weir.log")
    }

    /// All that the daemon wrote, restarts included.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The daemon's log lines, those of them that are JSON.
    pub fn log_lines(&self) -> Vec<Value> {
        self.log()
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// Waits for a log line that holds every one of `parts`, and returns it.
    ///
    /// # Panics
    /// If there is none within 5 s.
    pub fn await_log(&self, parts: &[&str]) -> String {
        eventually("a log line", Duration::from_secs(5), || {
            let log = self.log();
            let line = log
                .lines()
                .find(|line| parts.iter().all(|part| line.contains(part)));
            line.map(str::to_owned)
                .ok_or_else(|| format!("no line with {parts:?} in\n{log}"))
        })
    }

    /// What the daemon counts now.
    ///
    /// # Panics
    /// If it does not say.
    pub fn metrics(&self) -> Metrics {
        self.try_metrics()
            .unwrap_or_else(|error| panic!("{error:#}\n{}", self.log()))
    }

    /// The same, where a daemon that does not answer is no surprise.
    pub fn try_metrics(&self) -> Result<Metrics> {
        let addr = METRICS.parse().context("the address is one")?;
        let reply = self.agent.http(addr, HttpRequest::get("weir", "/metrics"));
        let reply = reply.context("no metrics")?;
        ensure!(reply.status == 200, "no metrics: {reply:?}");
        Ok(Metrics::parse(&reply.body))
    }

    /// The status that `/healthz` gives.
    ///
    /// # Panics
    /// If it gives none.
    pub fn health(&self) -> u16 {
        let addr = METRICS.parse().unwrap();
        let reply = self.agent.http(addr, HttpRequest::get("weir", "/healthz"));
        reply.unwrap_or_else(|fault| panic!("{fault}")).status
    }

    /// Ends the daemon with no chance to do anything.
    pub fn kill9(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the daemon does not run")?;
        process.signal(Signal::SIGKILL)?;
        process.wait(STOP_LIMIT).map(drop)
    }

    /// Stops or continues the daemon's process: SIGSTOP, SIGCONT.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process
            .as_mut()
            .context("the daemon does not run")?
            .signal(signal)
    }

    /// Ends the daemon in order.
    pub fn stop(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the daemon does not run")?;
        let status = process.terminate(STOP_LIMIT)?;
        ensure!(
            status.success(),
            "weir ended with {status}:\n{}",
            self.log()
        );
        Ok(())
    }

    /// Removes everything of weir from the node.
    pub fn uninstall(&self) -> Result<()> {
        let paths = self.paths()?;
        let mut args = vec!["uninstall", "--purge"];
        args.extend(paths.iter().map(String::as_str));
        let output = self.cli(&args)?;
        ensure!(output.status == 0, "weir uninstall: {output:#?}");
        let left = self.pins()?;
        ensure!(left.is_empty(), "weir uninstall left the pins {left:?}");
        let state = self.state_dir();
        ensure!(!state.exists(), "weir uninstall left {}", state.display());
        Ok(())
    }

    /// Stops the daemon and removes everything of it; says what a drop would panic for.
    pub fn finish(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        if self.process.is_some() {
            self.stop()?;
        }
        self.uninstall()
    }
}

impl Drop for Weir<'_> {
    fn drop(&mut self) {
        let Err(error) = self.end() else {
            return;
        };
        // What the sweeper took away is no failure; then this waits for the end.
        drop(making());
        // A test that fails already says more than this would.
        if std::thread::panicking() {
            eprintln!("testbed: {error:#}\n{}", self.log());
        } else {
            panic!("{error:#}");
        }
    }
}
