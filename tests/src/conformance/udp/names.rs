//! Who a UDP socket says it is and whom it says it talks with.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use socket2::Socket;

use super::super::call::outcome;
use super::super::table::{Row, listed_as};
use super::ground::Ground;

/// Ports that no case lets the kernel choose.
const PORT: u16 = 9_501;
const SHARED_PORT: u16 = 9_502;

/// Another peer, none, and the first one again.
pub(super) fn again(ground: &Ground<'_>) -> Result<()> {
    let socket = ground.socket()?;
    ground.connects("to live", &socket, ground.live());
    ground.exchange("to live", &socket, 0)?;
    ground.connects("to second", &socket, ground.second());
    ground.exchange("to second", &socket, 1)?;
    // What is left of the former peer is not heard any more.
    ground.far.say(0, b"unheard")?;
    ground.silence("poll, as the former peer speaks", &socket)?;
    let parted = rustix::net::connect_unspec(&socket);
    ground.note("connect to AF_UNSPEC", outcome(parted));
    ground.scene.names("after AF_UNSPEC", &socket);
    ground.sent("send after AF_UNSPEC", socket.send(b"?"));
    let sent = socket.send_to(b"named", &ground.live().into());
    ground.sent("sendto after AF_UNSPEC", sent);
    ground.far_hears("peer receives the named one", 0)?;
    ground.far.say(0, b"heard")?;
    ground.receives("receive after AF_UNSPEC", &socket);
    let parted = rustix::net::connect_unspec(&socket);
    ground.note("connect to AF_UNSPEC, once more", outcome(parted));
    ground.connects("to live again", &socket, ground.live());
    ground.exchange("to live again", &socket, 0)
}

/// An application that chooses its source port keeps it.
pub(super) fn bound(ground: &Ground<'_>) -> Result<()> {
    let socket = ground.socket()?;
    let own = ground.own(PORT);
    ground.note("bind", outcome(socket.bind(&own.into())));
    ground.scene.names("after bind", &socket);
    let other = ground.socket()?;
    ground.note("bind by another socket", outcome(other.bind(&own.into())));
    let sent = socket.send_to(b"?", &ground.live().into());
    ground.sent("sendto", sent);
    let from = ground.far_hears("peer receives", 0)?;
    ground.note("peer sees the port", (from.port() == PORT).to_string());
    ground.far.say(0, b"!")?;
    ground.receives("receive", &socket);
    ground.connects("to live", &socket, ground.live());
    ground.exchange("to live", &socket, 0)?;
    rustix::net::connect_unspec(&socket)?;
    ground.scene.names("after AF_UNSPEC", &socket);
    is_kept(ground, "after AF_UNSPEC", &socket, own)
}

fn is_kept(ground: &Ground<'_>, when: &str, socket: &Socket, own: SocketAddr) -> Result<()> {
    let now = socket.local_addr()?.as_socket().context("it has a name")?;
    ground.note(
        &format!("the bound name {when}"),
        if now == own { "kept" } else { "lost" },
    );
    Ok(())
}

/// A peer first, then a name: too late.
pub(super) fn bound_while_connected(ground: &Ground<'_>) -> Result<()> {
    let socket = ground.connected()?;
    ground.note("bind", outcome(socket.bind(&ground.own(0).into())));
    ground.exchange("then", &socket, 0)
}

/// One port, two sockets, each with its own peer: the kernel tells them apart.
pub(super) fn shared_port(ground: &Ground<'_>) -> Result<()> {
    let dial = |name: &str, to: SocketAddr| -> Result<Socket> {
        let socket = ground.socket()?;
        socket.set_reuse_address(true)?;
        let bound = socket.bind(&ground.own(SHARED_PORT).into());
        ground.note(&format!("bind for {name}"), outcome(bound));
        ground.connects(&format!("to {name}"), &socket, to);
        Ok(socket)
    };
    let first = dial("live", ground.live())?;
    let second = dial("second", ground.second())?;
    ground.exchange("second", &second, 1)?;
    ground.exchange("live", &first, 0)
}

/// The address of the other device.
pub(super) fn bound_address(ground: &Ground<'_>) -> Result<()> {
    let socket = ground.socket()?;
    let own = ground.scene.other_own(0);
    ground.note("bind", outcome(socket.bind(&own.into())));
    let sent = socket.send_to(b"?", &ground.live().into());
    ground.sent("sendto", sent);
    ground.far_hears("peer receives", 0)?;
    ground.far.say(0, b"!")?;
    ground.receives("receive", &socket);
    ground.connects("to live", &socket, ground.live());
    ground.exchange("then", &socket, 0)
}

/// What `/proc/net/udp`, `ss` and their like say of the socket.
pub(super) fn listed(ground: &Ground<'_>) -> Result<()> {
    let socket = ground.connected()?;
    let row = Row::of(ground.scene.way, "udp", &socket)?;
    let dialled = if row.remote()? == listed_as(ground.live()) {
        "live"
    } else {
        "a stranger"
    };
    ground.note("remote end in the kernel's table", dialled);
    Ok(())
}
