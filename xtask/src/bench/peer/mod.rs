//! Both ends of the loads, as processes of their own: the server that every
//! row talks to, and the clients that wrk is not.
//!
//! Owns the little protocols between them. Must do as little as can be: what
//! they cost is in every row.

mod client;
mod server;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::connect::run_dial;

/// Where the server answers HTTP with two bytes.
pub(super) const HTTP_PORT: u16 = 8080;
/// Where the server sends back what it gets.
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
    };
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}
