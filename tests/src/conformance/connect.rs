//! Connecting: every way to do it, to a peer that answers.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::PollFlags;
use socket2::{Protocol, Socket, Type};

use super::Case;
use super::call::{number, outcome, poll, recv, send, settle};
use super::scene::{Scene, bounded};
use super::socket_options::{is_multipath, is_syn_data_acked, set_fast_open_connect};

pub(super) const CASES: &[Case] = &[
    Case::new("connect/blocking", blocking),
    Case::new("connect/nonblocking", nonblocking),
    Case::new("connect/twice", twice),
    Case::new("connect/again", again),
    Case::new("connect/fast-open", fast_open),
    Case::new("connect/fast-open-connect", fast_open_connect),
    Case::new("connect/multipath", multipath),
    Case::new("connect/multipath-again", multipath_again),
];

/// From the kernel's <linux/socket.h>; no crate names it.
pub(super) const MSG_FASTOPEN: i32 = 0x2000_0000;

/// One call, and the connection is there.
fn blocking(scene: &Scene) -> Result<()> {
    let peer = scene.peer()?;
    let socket = scene.tcp()?;
    scene.note("connect", outcome(socket.connect(&scene.live().into())));
    scene.note("SO_ERROR", error(&socket));
    scene.names("then", &socket);
    send(&socket, b"?")?;
    let (conn, from) = peer.accept(0)?;
    scene.note("peer sees from", scene.part_at_peer(from));
    conn.hear(8)?;
    scene.exchange("then", &socket, &conn)
}

/// As every event loop does it.
fn nonblocking(scene: &Scene) -> Result<()> {
    let peer = scene.peer()?;
    let socket = scene.tcp()?;
    let to = scene.live().into();
    socket.set_nonblocking(true)?;
    scene.note("connect", outcome(socket.connect(&to)));
    let ready = poll(&socket, PollFlags::OUT, Duration::from_secs(3))?;
    scene.note("poll for OUT", ready);
    scene.note("SO_ERROR", error(&socket));
    scene.note("connect, when connected", outcome(socket.connect(&to)));
    scene.note("connect, once more", outcome(socket.connect(&to)));
    scene.names("when connected", &socket);
    socket.set_nonblocking(false)?;
    send(&socket, b"?")?;
    let (conn, _) = peer.accept(0)?;
    conn.hear(8)?;
    scene.exchange("then", &socket, &conn)
}

/// A connected socket connects nowhere else.
fn twice(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    for (whom, addr) in [
        ("live", scene.live()),
        ("second", scene.second()),
        ("closed", scene.closed()),
    ] {
        let seen = outcome(socket.connect(&addr.into()));
        scene.note(&format!("connect again to {whom}"), seen);
    }
    scene.names("then", &socket);
    scene.exchange("then", &socket, &conn)
}

/// After `AF_UNSPEC` a socket is as new.
fn again(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    let parted = rustix::net::connect_unspec(&socket);
    scene.note("connect to AF_UNSPEC", outcome(parted));
    scene.names("after AF_UNSPEC", &socket);
    scene.note("peer receives", conn.hear(8)?);
    let second = scene.second().into();
    scene.note("connect to another", outcome(socket.connect(&second)));
    scene.names("after the second connect", &socket);
    send(&socket, b"?")?;
    let (conn, _) = scene.peer()?.accept(1)?;
    conn.hear(8)?;
    scene.exchange("then", &socket, &conn)
}

/// The first dial fetches the cookie, the second sends its bytes with the SYN.
fn fast_open(scene: &Scene) -> Result<()> {
    let peer = scene.peer()?;
    for (dial, data) in [("without a cookie", b"one?"), ("with a cookie", b"two?")] {
        let socket = scene.tcp()?;
        let sent = socket.send_to_with_flags(data, &scene.live().into(), MSG_FASTOPEN);
        scene.note(&format!("sendto {dial}"), number(sent));
        let (conn, _) = peer.accept(0)?;
        scene.note(&format!("peer receives {dial}"), conn.hear(40)?);
        let with_syn = is_syn_data_acked(&socket);
        scene.note(&format!("data in the SYN {dial}"), number(with_syn));
        scene.names(dial, &socket);
        scene.exchange(dial, &socket, &conn)?;
    }
    Ok(())
}

/// With a cookie `connect` returns at once and the first `send` connects.
fn fast_open_connect(scene: &Scene) -> Result<()> {
    let peer = scene.peer()?;
    let first = scene.tcp()?;
    first.send_to_with_flags(b"cookie?", &scene.live().into(), MSG_FASTOPEN)?;
    let (conn, _) = peer.accept(0)?;
    conn.hear(40)?;
    let socket = scene.tcp()?;
    set_fast_open_connect(&socket)?;
    scene.note("connect", outcome(socket.connect(&scene.live().into())));
    scene.names("before the first send", &socket);
    scene.note("send", outcome(send(&socket, b"?")));
    let (conn, _) = peer.accept(0)?;
    scene.note("peer receives", conn.hear(40)?);
    scene.note("data in the SYN", number(is_syn_data_acked(&socket)));
    scene.names("then", &socket);
    scene.exchange("then", &socket, &conn)
}

/// Multipath TCP, to a peer that speaks it too.
fn multipath(scene: &Scene) -> Result<()> {
    let peer = scene.peer_with(true, None)?;
    let socket = multipath_socket(scene)?;
    scene.note("connect", outcome(socket.connect(&scene.live().into())));
    send(&socket, b"?")?;
    let (conn, _) = peer.accept(0)?;
    conn.hear(8)?;
    conn.say(b"!")?;
    recv(&socket, 8)?;
    settle(|| is_multipath(&socket) == Ok(1));
    scene.note("is Multipath TCP", number(is_multipath(&socket)));
    scene.names("then", &socket);
    scene.exchange("then", &socket, &conn)
}

/// The same socket, after `AF_UNSPEC`, to another.
fn multipath_again(scene: &Scene) -> Result<()> {
    let peer = scene.peer_with(true, None)?;
    let socket = multipath_socket(scene)?;
    socket.connect(&scene.live().into())?;
    send(&socket, b"?")?;
    let (conn, _) = peer.accept(0)?;
    conn.hear(8)?;
    let parted = rustix::net::connect_unspec(&socket);
    scene.note("connect to AF_UNSPEC", outcome(parted));
    scene.names("after AF_UNSPEC", &socket);
    let second = scene.second().into();
    scene.note("connect to another", outcome(socket.connect(&second)));
    scene.names("after the second connect", &socket);
    send(&socket, b"?")?;
    let (conn, _) = peer.accept(1)?;
    conn.hear(8)?;
    scene.exchange("then", &socket, &conn)
}

fn multipath_socket(scene: &Scene) -> Result<Socket> {
    let socket = scene
        .way
        .socket(Type::STREAM, Protocol::MPTCP)
        .context("a kernel without Multipath TCP")?;
    bounded(socket)
}

fn error(socket: &Socket) -> String {
    match socket.take_error() {
        Ok(None) => "OK".to_owned(),
        Ok(Some(error)) | Err(error) => super::call::fault(&error),
    }
}
