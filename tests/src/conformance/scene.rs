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
use socket2::{Protocol, SockAddr, Socket, Type};

use super::call::{fault, heard, outcome, recv, send};
use super::remote::{Conn, Peer};
use super::way::Way;

/// Every call ends within this, so every case does.
const TIMEOUT: Duration = Duration::from_secs(6);

/// Whom a case dials, and who it is itself: each over IPv4 and over IPv6.
#[derive(Clone, Debug, clap::Args)]
pub struct Targets {
    /// The peer's first port; the second and the closed one follow it.
    #[arg(long)]
    pub live: SocketAddr,
    /// The same over IPv6.
    #[arg(long)]
    pub live6: SocketAddr,
    /// Where no route leads.
    #[arg(long)]
    pub unreachable: SocketAddr,
    /// The same over IPv6.
    #[arg(long)]
    pub unreachable6: SocketAddr,
    /// Where every packet is lost.
    #[arg(long)]
    pub blackhole: SocketAddr,
    /// The same over IPv6.
    #[arg(long)]
    pub blackhole6: SocketAddr,
    /// What the pod may not reach.
    #[arg(long)]
    pub denied: SocketAddr,
    /// The same over IPv6.
    #[arg(long)]
    pub denied6: SocketAddr,
    /// The address that the peer listens on for `live`; for the second the port above.
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
    /// The same over IPv6.
    #[arg(long)]
    pub own6: IpAddr,
    /// The pod's address on `eth1`.
    #[arg(long)]
    pub other_own: IpAddr,
    /// The same over IPv6.
    #[arg(long)]
    pub other_own6: IpAddr,
}

impl Targets {
    /// The arguments that make them.
    pub fn args(&self) -> Vec<String> {
        let peer = self.peer.display().to_string();
        [
            ("--live", self.live.to_string()),
            ("--live6", self.live6.to_string()),
            ("--unreachable", self.unreachable.to_string()),
            ("--unreachable6", self.unreachable6.to_string()),
            ("--blackhole", self.blackhole.to_string()),
            ("--blackhole6", self.blackhole6.to_string()),
            ("--denied", self.denied.to_string()),
            ("--denied6", self.denied6.to_string()),
            ("--peer-at", self.peer_at.to_string()),
            ("--peer-at6", self.peer_at6.to_string()),
            ("--peer", peer),
            ("--own", self.own.to_string()),
            ("--own6", self.own6.to_string()),
            ("--other-own", self.other_own.to_string()),
            ("--other-own6", self.other_own6.to_string()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect()
    }
}

/// A case at work.
pub(super) struct Scene {
    to: Targets,
    /// How its sockets name it.
    pub(super) way: Way,
    peer: Peer,
    listening: Cell<bool>,
    seen: RefCell<BTreeMap<String, String>>,
}

impl Scene {
    pub(super) fn new(to: Targets, way: Way) -> Result<Self> {
        let peer = Peer::at(&to.peer)?;
        Ok(Self {
            to,
            way,
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
    /// and how large their buffers are.
    pub(super) fn peer_with(&self, multipath: bool, buffer: Option<usize>) -> Result<&Peer> {
        if !self.listening.replace(true) {
            self.peer.listen(self.peer_at(), multipath, buffer)?;
        }
        Ok(&self.peer)
    }

    /// A connection to the peer over which each end has spoken.
    pub(super) fn connected(&self) -> Result<(Socket, Conn<'_>)> {
        self.connected_by(self.tcp()?)
    }

    /// The same, by a socket that the case has made.
    pub(super) fn connected_by(&self, socket: Socket) -> Result<(Socket, Conn<'_>)> {
        let peer = self.peer()?;
        socket.connect(&self.live().into())?;
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
        let (peer, own) = self.both_names(socket);
        self.note(&format!("getpeername {when}"), peer);
        self.note(&format!("getsockname {when}"), own);
    }

    /// Whom a socket talks to, and who it is.
    pub(super) fn both_names(&self, socket: &Socket) -> (String, String) {
        let named = |addr: std::io::Result<SockAddr>| match addr {
            Ok(addr) => self.named(&addr),
            Err(error) => fault(&error),
        };
        (named(socket.peer_addr()), named(socket.local_addr()))
    }

    /// The part that an address plays.
    pub(super) fn named(&self, addr: &SockAddr) -> String {
        addr.as_socket()
            .map_or_else(|| "no address".to_owned(), |addr| self.part(addr))
    }

    /// The same of an address that is known as one; its form is told where it is
    /// not the way's.
    pub(super) fn part(&self, addr: SocketAddr) -> String {
        let odd = self.way.oddity(addr.ip());
        let plain = SocketAddr::new(addr.ip().to_canonical(), addr.port());
        let dialled = [
            (self.live(), "live"),
            (self.second(), "second"),
            (self.closed(), "closed"),
            (self.unreachable(), "unreachable"),
            (self.blackhole(), "blackhole"),
        ];
        let is = |dialled: SocketAddr| {
            (dialled.ip().to_canonical(), dialled.port()) == (plain.ip(), plain.port())
        };
        if let Some((_, part)) = dialled.into_iter().find(|(dialled, _)| is(*dialled)) {
            return format!("{part}{odd}");
        }
        let (to, port) = (&self.to, if plain.port() == 0 { "0" } else { "port" });
        match plain.ip() {
            ip if ip == to.own || ip == to.own6 => format!("own:{port}{odd}"),
            ip if ip == to.other_own || ip == to.other_own6 => format!("other own:{port}{odd}"),
            ip if ip.is_unspecified() => format!("any:{port}{odd}"),
            _ => "a stranger".to_owned(),
        }
    }

    /// The part that an address plays which the peer saw.
    pub(super) fn part_at_peer(&self, addr: SocketAddr) -> String {
        self.part(self.way.of_peer(addr))
    }

    /// The part that a host plays.
    pub(super) fn host(&self, ip: IpAddr) -> String {
        let (to, plain) = (&self.to, ip.to_canonical());
        let hosts = [
            ([to.live.ip(), to.live6.ip()], "live's host"),
            ([to.own, to.own6], "own"),
            ([to.other_own, to.other_own6], "other own"),
            ([to.peer_at.ip(), to.peer_at6.ip()], "the endpoint's host"),
        ];
        let known = hosts.into_iter().find(|(host, _)| host.contains(&plain));
        let known = known.map_or("a stranger", |(_, part)| part);
        format!("{known}{}", self.way.oddity(ip))
    }
}

/// Whom the case dials, and who it is, as its way has it.
impl Scene {
    pub(super) fn live(&self) -> SocketAddr {
        self.way.named(self.to.live, self.to.live6)
    }

    /// The peer's second port.
    pub(super) fn second(&self) -> SocketAddr {
        above(self.live(), 1)
    }

    /// A port of the peer on which nobody listens.
    pub(super) fn closed(&self) -> SocketAddr {
        above(self.live(), 2)
    }

    pub(super) fn unreachable(&self) -> SocketAddr {
        self.way.named(self.to.unreachable, self.to.unreachable6)
    }

    pub(super) fn blackhole(&self) -> SocketAddr {
        self.way.named(self.to.blackhole, self.to.blackhole6)
    }

    /// What the pod may not reach.
    pub(super) fn denied(&self) -> SocketAddr {
        self.way.named(self.to.denied, self.to.denied6)
    }

    /// Where the peer listens: it has no mapped addresses.
    pub(super) fn peer_at(&self) -> SocketAddr {
        match self.way {
            Way::V4 | Way::Mapped => self.to.peer_at,
            Way::V6 => self.to.peer_at6,
        }
    }

    /// The same over IPv4 and over IPv6.
    pub(super) fn peer_at_both(&self) -> [SocketAddr; 2] {
        [self.to.peer_at, self.to.peer_at6]
    }

    /// The pod's own address with a port.
    pub(super) fn own(&self, port: u16) -> SocketAddr {
        self.own_of(self.to.own, self.to.own6, port)
    }

    /// The same of its other device.
    pub(super) fn other_own(&self, port: u16) -> SocketAddr {
        self.own_of(self.to.other_own, self.to.other_own6, port)
    }

    fn own_of(&self, four: IpAddr, six: IpAddr, port: u16) -> SocketAddr {
        let at = |ip| SocketAddr::new(ip, port);
        self.way.named(at(four), at(six))
    }

    /// A TCP socket.
    pub(super) fn tcp(&self) -> Result<Socket> {
        bounded(self.way.socket(Type::STREAM, Protocol::TCP)?)
    }
}

fn above(addr: SocketAddr, ports: u16) -> SocketAddr {
    SocketAddr::new(addr.ip(), addr.port() + ports)
}

/// A socket whose calls all end.
pub(super) fn bounded(socket: Socket) -> Result<Socket> {
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    Ok(socket)
}
