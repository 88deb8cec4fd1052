//! Who a socket says it is and whom it says it talks to, in every state.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use rustix::event::PollFlags;
use socket2::Socket;

use super::Case;
use super::call::{outcome, poll, poll_reset, settle};
use super::scene::Scene;
use super::socket_options::state;
use super::table::{Row, listed_as};

pub(super) const CASES: &[Case] = &[
    Case::new("names/closed-by-the-application", closed_first),
    Case::new("names/closed-by-the-peer", closed_last),
    Case::new("names/reset-by-the-peer", reset),
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
    let fresh = scene.tcp()?;
    scene.names("of a fresh socket", &fresh);
    let any = if scene.way.is_six() {
        IpAddr::from(Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::from(Ipv4Addr::UNSPECIFIED)
    };
    fresh.bind(&SocketAddr::new(any, 0).into())?;
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
    let ready = poll_reset(&socket, PollFlags::IN, LIMIT)?;
    scene.note("poll for IN", ready);
    told(scene, "after the reset", &socket, "CLOSE");
    Ok(())
}

/// What `/proc/net/tcp`, `ss` and their like say of the connection.
fn listed(scene: &Scene) -> Result<()> {
    let (socket, _conn) = scene.connected()?;
    let row = Row::of(scene.way, "tcp", &socket)?;
    let dialled = if row.remote()? == listed_as(scene.live()) {
        "live"
    } else {
        "a stranger"
    };
    scene.note("remote end in the kernel's table", dialled);
    Ok(())
}
