//! Who a socket says it is and whom it says it talks to, in every state.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV6};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::PollFlags;
use socket2::{Domain, Protocol, Socket, Type};

use super::Case;
use super::call::{outcome, poll, send, settle};
use super::scene::{Scene, bounded, tcp};
use super::socket_options::state;

pub(super) const CASES: &[Case] = &[
    Case::new("names/closed-by-the-application", closed_first),
    Case::new("names/closed-by-the-peer", closed_last),
    Case::new("names/reset-by-the-peer", reset),
    Case::new("names/mapped", mapped),
    Case::new("names/listed", listed),
];

const LIMIT: Duration = Duration::from_secs(3);

/// The names and the state, once that is `expected` or three seconds are over.
fn told(scene: &Scene, when: &str, socket: &Socket, expected: &str) {
    settle(|| state(socket) == expected);
    scene.note(&format!("state {when}"), state(socket));
    scene.names(when, socket);
}

/// From a fresh socket to the end, the application first.
fn closed_first(scene: &Scene) -> Result<()> {
    let fresh = tcp()?;
    scene.names("of a fresh socket", &fresh);
    fresh.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
    scene.names("of a bound socket", &fresh);
    let (socket, conn) = scene.connected()?;
    told(scene, "when connected", &socket, "ESTABLISHED");
    scene.note("shutdown", outcome(socket.shutdown(Shutdown::Write)));
    told(scene, "after shutdown", &socket, "FIN_WAIT2");
    scene.note("peer receives", conn.hear(8)?);
    conn.close()?;
    poll(&socket, PollFlags::IN, LIMIT)?;
    told(scene, "after both", &socket, "CLOSE");
    Ok(())
}

/// The peer first.
fn closed_last(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    conn.close()?;
    poll(&socket, PollFlags::RDHUP, LIMIT)?;
    told(scene, "after the peer's end", &socket, "CLOSE_WAIT");
    scene.note("shutdown", outcome(socket.shutdown(Shutdown::Write)));
    told(scene, "after both", &socket, "CLOSE");
    scene.note(
        "shutdown, once more",
        outcome(socket.shutdown(Shutdown::Write)),
    );
    Ok(())
}

/// After a reset there is no peer to name.
fn reset(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    conn.abort()?;
    scene.note("poll for IN", poll(&socket, PollFlags::IN, LIMIT)?);
    told(scene, "after the reset", &socket, "CLOSE");
    Ok(())
}

/// Runtimes that open one dual-stack socket dial IPv4 as `::ffff:a.b.c.d`.
fn mapped(scene: &Scene) -> Result<()> {
    let peer = scene.peer()?;
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    let socket = bounded(socket)?;
    socket.set_only_v6(false)?;
    let SocketAddr::V4(live) = scene.to.live else {
        anyhow::bail!("the live address is IPv4");
    };
    let mapped = SocketAddrV6::new(live.ip().to_ipv6_mapped(), live.port(), 0, 0);
    let connected = socket.connect(&SocketAddr::from(mapped).into());
    scene.note("connect", outcome(connected));
    send(&socket, b"?")?;
    let (conn, from) = peer.accept(0)?;
    scene.note("peer sees from", scene.part(from));
    conn.hear(8)?;
    scene.names("then", &socket);
    scene.exchange("then", &socket, &conn)
}

/// What `/proc/net/tcp`, `ss` and their like say of the connection.
fn listed(scene: &Scene) -> Result<()> {
    let (socket, _conn) = scene.connected()?;
    let own = socket.local_addr()?.as_socket().context("it is bound")?;
    let table = std::fs::read_to_string("/proc/self/net/tcp").context("no table of sockets")?;
    let own = listed_as(own)?;
    let row = table
        .lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
        .find(|row| row.get(1) == Some(&&*own))
        .context("the socket is not listed")?;
    let remote = row.get(2).context("a row names the remote end")?;
    let dialled = if *remote == listed_as(scene.to.live)? {
        "live"
    } else {
        "a stranger"
    };
    scene.note("remote end in /proc/net/tcp", dialled);
    Ok(())
}

/// An address as that table writes it.
fn listed_as(addr: SocketAddr) -> io::Result<String> {
    match addr {
        SocketAddr::V4(addr) => {
            let word = u32::from_ne_bytes(addr.ip().octets());
            Ok(format!("{word:08X}:{:04X}", addr.port()))
        }
        SocketAddr::V6(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}
