//! Both ends of the loads, as processes of their own: the server that every
//! row talks to, and the clients that wrk is not.
//!
//! Owns the little protocols between them. Must do as little as can be: what
//! they cost is in every row.

mod client;
mod datagram;
mod server;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use testbed::{Pod, Proc};

use super::connect::run_dial;

/// Where the server answers HTTP with two bytes.
pub(super) const HTTP_PORT: u16 = 8080;
/// Where it does too, and a proxy is to move bytes without a look at them.
pub(super) const OPAQUE_PORT: u16 = 8081;
/// Where the server sends back what it gets, over TCP and UDP.
pub(super) const ECHO_PORT: u16 = 9000;
/// Where the server takes, or sends, as much as it can.
pub(super) const BULK_PORT: u16 = 9001;
/// Bytes of a request and of its reply.
const MESSAGE: usize = 128;
/// Bytes of one write in bulk.
const CHUNK: usize = 128 << 10;
/// The first byte of a bulk connection: the client will send.
const CLIENT_SENDS: u8 = b's';
/// The first byte of a bulk connection: the server shall send.
const SERVER_SENDS: u8 = b'r';

/// `program` in the network namespace of `pod` and a cgroup.
pub(super) fn program_in(pod: &Pod, cgroup: &Path, program: &Path) -> Result<Command> {
    let mut command = Command::new(testbed::tool_binary()?);
    command.arg("exec").arg("--netns").arg(pod.netns().path());
    command.arg("--cgroup").arg(cgroup).arg("--").arg(program);
    Ok(command)
}

/// One of our own clients, in the same way.
pub(super) fn client_in(pod: &Pod, cgroup: &Path, args: &[&str]) -> Result<Command> {
    let mut command = program_in(pod, cgroup, &own_program()?)?;
    command.arg("bench-peer").args(args);
    Ok(command)
}

/// Our server, in a pod.
pub(super) fn serve_in(pod: &Pod) -> Result<Proc> {
    pod.spawn(&own_program()?, &["bench-peer", "serve"])
}

fn own_program() -> Result<PathBuf> {
    std::env::current_exe().context("this program has no path")
}

/// What `bench-peer` can be.
#[derive(clap::Subcommand)]
pub(crate) enum Peer {
    /// The server of a row; runs until it is ended.
    Serve,
    /// Requests and replies on one connection.
    Exchange(Target),
    /// A connection for each request and reply.
    Connect(Target),
    /// Send as much as goes through.
    Send(Target),
    /// Receive as much as comes through.
    Receive(Target),
    /// Datagrams there and back on one connected socket.
    Datagrams(Target),
    /// The same on a socket that is not connected.
    Addressed(Target),
    /// A UDP socket and its `connect()`, again and again.
    DatagramConnect(Target),
    /// Time `connect()` alone.
    Dial(Dial),
    /// Open HTTP connections, use each once, hold them until stdin ends.
    Hold(Hold),
}

/// Where to, and for how long.
#[derive(clap::Args)]
pub(crate) struct Target {
    /// The server.
    to: SocketAddr,
    /// For how many seconds.
    seconds: u64,
}

/// What is dialled.
#[derive(clap::Args)]
pub(crate) struct Dial {
    /// The server.
    to: SocketAddr,
}

/// How many connections to hold.
#[derive(clap::Args)]
pub(crate) struct Hold {
    /// The server.
    to: SocketAddr,
    /// How many.
    connections: usize,
}

impl Target {
    fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// Runs one of them.
pub(crate) fn run(peer: &Peer) -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let measured = match peer {
        Peer::Serve => return server::run(),
        Peer::Dial(dial) => {
            let dialled = run_dial(dial.to)?;
            println!("{}", serde_json::to_string(&dialled)?);
            return Ok(());
        }
        Peer::Hold(hold) => return client::hold(hold.to, hold.connections),
        Peer::Exchange(target) => client::exchange(target.to, target.time())?,
        Peer::Connect(target) => client::connect(target.to, target.time())?,
        Peer::Send(target) => client::send(target.to, target.time())?,
        Peer::Receive(target) => client::receive(target.to, target.time())?,
        Peer::Datagrams(target) => datagram::connected(target.to, target.time())?,
        Peer::Addressed(target) => datagram::unconnected(target.to, target.time())?,
        Peer::DatagramConnect(target) => datagram::connects(target.to, target.time())?,
    };
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}
