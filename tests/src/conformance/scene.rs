//! What a case stands on: whom to dial, the peer, and what was seen so far.
//!
//! Addresses are noted by the part that they play, as they differ from run to
//! run.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::call::{fault, heard, outcome, recv, send};
use super::remote::{Conn, Peer};

/// Every call ends within this, so every case does.
const TIMEOUT: Duration = Duration::from_secs(6);

/// Whom a case dials, and who it is itself.
#[derive(Clone, Debug, clap::Args)]
pub struct Targets {
    /// The peer's first port.
    #[arg(long)]
    pub live: SocketAddr,
    /// The peer's second port.
    #[arg(long)]
    pub second: SocketAddr,
    /// The peer's first port, over IPv6; the second and the closed one follow it.
    #[arg(long)]
    pub live6: SocketAddr,
    /// A port of the peer on which nobody listens.
    #[arg(long)]
    pub closed: SocketAddr,
    /// Where no route leads.
    #[arg(long)]
    pub unreachable: SocketAddr,
    /// Where every packet is lost.
    #[arg(long)]
    pub blackhole: SocketAddr,
    /// The address that the peer listens on for `live`; for `second` the port above.
    #[arg(long)]
    pub peer_at: SocketAddr,
    /// The same over IPv6.
    #[arg(long)]
    pub peer_at6: SocketAddr,
    /// The peer's control socket.
    #[arg(long)]
    pub peer: PathBuf,
    /// The pod's address on `eth0`.
    #[arg(long)]
    pub own: IpAddr,
    /// The pod's IPv6 address on `eth0`.
    #[arg(long)]
    pub own6: IpAddr,
    /// The pod's address on `eth1`.
    #[arg(long)]
    pub other_own: IpAddr,
}

impl Targets {
    /// The arguments that make them.
    pub fn args(&self) -> Vec<String> {
        let peer = self.peer.display().to_string();
        [
            ("--live", self.live.to_string()),
            ("--live6", self.live6.to_string()),
            ("--second", self.second.to_string()),
            ("--closed", self.closed.to_string()),
            ("--unreachable", self.unreachable.to_string()),
            ("--blackhole", self.blackhole.to_string()),
            ("--peer-at", self.peer_at.to_string()),
            ("--peer-at6", self.peer_at6.to_string()),
            ("--peer", peer),
            ("--own", self.own.to_string()),
            ("--own6", self.own6.to_string()),
            ("--other-own", self.other_own.to_string()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect()
    }
}

/// A case at work.
pub(super) struct Scene {
    /// Whom to dial.
    pub(super) to: Targets,
    peer: Peer,
    listening: Cell<bool>,
    seen: RefCell<BTreeMap<String, String>>,
}

impl Scene {
    pub(super) fn new(to: Targets) -> Result<Self> {
        let peer = Peer::at(&to.peer)?;
        Ok(Self {
            to,
            peer,
            listening: Cell::new(false),
            seen: RefCell::default(),
        })
    }

    /// What was seen, as the program prints it.
    pub(super) fn into_json(self) -> Result<String> {
        serde_json::to_string(&self.seen.into_inner()).context("strings are JSON")
    }

    /// Notes what an application sees.
    pub(super) fn note(&self, what: &str, seen: impl Into<String>) {
        let before = self.seen.borrow_mut().insert(what.to_owned(), seen.into());
        assert!(before.is_none(), "{what} is noted twice");
    }

    /// The peer, with no socket yet.
    pub(super) fn remote(&self) -> &Peer {
        &self.peer
    }

    /// The peer, listening.
    pub(super) fn peer(&self) -> Result<&Peer> {
        self.peer_with(false, None)
    }

    /// The peer; the first call says whether its sockets speak Multipath TCP,
    /// and how large their receive buffers are.
    pub(super) fn peer_with(&self, multipath: bool, buffer: Option<usize>) -> Result<&Peer> {
        if !self.listening.replace(true) {
            self.peer.listen(self.to.peer_at, multipath, buffer)?;
        }
        Ok(&self.peer)
    }

    /// A connection to the peer over which each end has spoken.
    pub(super) fn connected(&self) -> Result<(Socket, Conn<'_>)> {
        let peer = self.peer()?;
        let socket = tcp()?;
        socket.connect(&self.to.live.into())?;
        send(&socket, b"?")?;
        let (conn, _) = peer.accept(0)?;
        conn.hear(8)?;
        conn.say(b"!")?;
        recv(&socket, 8)?;
        Ok((socket, conn))
    }

    /// Notes that bytes pass both ways between a socket and its connection.
    pub(super) fn exchange(&self, what: &str, socket: &Socket, conn: &Conn<'_>) -> Result<()> {
        self.note(&format!("{what}, send"), outcome(send(socket, b"ping")));
        self.note(&format!("{what}, peer receives"), conn.hear(40)?);
        conn.say(b"pong")?;
        self.note(&format!("{what}, receive"), heard(recv(socket, 40)));
        Ok(())
    }

    /// Notes both names of a socket.
    pub(super) fn names(&self, when: &str, socket: &Socket) {
        let named = |addr: std::io::Result<SockAddr>| match addr {
            Ok(addr) => self.named(&addr),
            Err(error) => fault(&error),
        };
        self.note(&format!("getpeername {when}"), named(socket.peer_addr()));
        self.note(&format!("getsockname {when}"), named(socket.local_addr()));
    }

    /// The part that an address plays.
    pub(super) fn named(&self, addr: &SockAddr) -> String {
        addr.as_socket()
            .map_or_else(|| "no address".to_owned(), |addr| self.part(addr))
    }

    /// The same of an address that is known as one.
    pub(super) fn part(&self, addr: SocketAddr) -> String {
        let to = &self.to;
        let plain = SocketAddr::new(addr.ip().to_canonical(), addr.port());
        let mapped = if plain == addr { "" } else { " (mapped)" };
        let port6 = |above: u16| SocketAddr::new(to.live6.ip(), to.live6.port() + above);
        let dialled = [
            (port6(0), "live (IPv6)"),
            (port6(1), "second (IPv6)"),
            (port6(2), "closed (IPv6)"),
            (to.live, "live"),
            (to.second, "second"),
            (to.closed, "closed"),
            (to.unreachable, "unreachable"),
            (to.blackhole, "blackhole"),
        ];
        if let Some((_, part)) = dialled.into_iter().find(|(dialled, _)| *dialled == plain) {
            return format!("{part}{mapped}");
        }
        let port = if plain.port() == 0 { "0" } else { "port" };
        match plain.ip() {
            ip if ip == to.own => format!("own:{port}{mapped}"),
            ip if ip == to.own6 => format!("own:{port} (IPv6)"),
            ip if ip == to.other_own => format!("other own:{port}{mapped}"),
            ip if ip.is_unspecified() => format!("any:{port}{mapped}"),
            _ => "a stranger".to_owned(),
        }
    }
}

impl Scene {
    /// The part that a host plays.
    pub(super) fn host(&self, ip: IpAddr) -> String {
        let (to, plain) = (&self.to, ip.to_canonical());
        let mapped = if plain == ip { "" } else { " (mapped)" };
        let hosts = [
            (to.live.ip(), "live's host"),
            (to.live6.ip(), "live's host (IPv6)"),
            (to.own, "own"),
            (to.own6, "own (IPv6)"),
            (to.other_own, "other own"),
            (to.peer_at.ip(), "the endpoint's host"),
            (to.peer_at6.ip(), "the endpoint's host (IPv6)"),
        ];
        let known = hosts.into_iter().find(|(host, _)| *host == plain);
        let known = known.map_or("a stranger", |(_, part)| part);
        format!("{known}{mapped}")
    }
}

/// A TCP socket.
pub(super) fn tcp() -> Result<Socket> {
    bounded(Socket::new(
        Domain::IPV4,
        Type::STREAM,
        Some(Protocol::TCP),
    )?)
}

/// A socket whose calls all end.
pub(super) fn bounded(socket: Socket) -> Result<Socket> {
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    Ok(socket)
}
