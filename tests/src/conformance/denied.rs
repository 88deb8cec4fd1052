//! What a denied connect or datagram says, in every form, and that the socket is
//! as good as before.
//!
//! Without weir there is nothing to compare with: what is seen is held against
//! [`super::expected::DENIED`].

use std::time::Duration;

use anyhow::Result;
use rustix::event::PollFlags;
use socket2::{Protocol, Socket, Type};

use super::Case;
use super::call::{fault, heard, number, outcome, poll, recv, send};
use super::remote::Conn;
use super::scene::{Scene, bounded};
use super::socket_options::set_fast_open_connect;
use super::udp;
use super::uring;

pub(super) const CASES: &[Case] = &[
    Case::new("denied/blocking", blocking),
    Case::new("denied/nonblocking", nonblocking),
    Case::new("denied/reconnect", reconnect),
    Case::new("denied/fast-open", fast_open),
    Case::new("denied/fast-open-connect", fast_open_connect),
    Case::new("denied/multipath", multipath),
    Case::new("denied/uring", uring::denied),
    Case::datagrams("denied/connected-datagrams", |scene| {
        udp::denied::connected(&udp::Ground::new(scene)?)
    }),
    Case::datagrams("denied/sendto", |scene| {
        udp::denied::unconnected(&udp::Ground::new(scene)?)
    }),
    Case::datagrams("denied/sendmmsg", |scene| {
        udp::denied::many(&udp::Ground::new(scene)?)
    }),
];

/// For what is said at once.
const BRIEF: Duration = Duration::from_millis(20);

/// What is left of a socket whose call was denied.
pub(super) fn left(scene: &Scene, socket: &Socket) -> Result<()> {
    let error = match socket.take_error() {
        Ok(None) => "no error".to_owned(),
        Ok(Some(error)) | Err(error) => fault(&error),
    };
    let (peer, own) = scene.both_names(socket);
    let ready = poll(socket, PollFlags::OUT, BRIEF)?;
    scene.note(
        "what is left",
        format!("{error}, getpeername {peer}, getsockname {own}, poll {ready}"),
    );
    Ok(())
}

/// Who the socket is now, and that bytes pass both ways.
pub(super) fn talks(scene: &Scene, when: &str, socket: &Socket, conn: &Conn<'_>) -> Result<()> {
    let (peer, own) = scene.both_names(socket);
    let sent = outcome(send(socket, b"ping"));
    let there = conn.hear(40)?;
    conn.say(b"pong")?;
    let back = heard(recv(socket, 40));
    scene.note(
        &format!("{when}, it talks"),
        format!("from {own} with {peer}: {sent}, {there}, {back}"),
    );
    Ok(())
}

/// Dials something allowed with the same socket.
fn dials_live(scene: &Scene, socket: &Socket) -> Result<()> {
    let peer = scene.peer()?;
    let connected = socket.connect(&scene.live().into());
    scene.note("connect to live then", outcome(connected));
    send(socket, b"?")?;
    let (conn, _) = peer.accept(0)?;
    conn.hear(8)?;
    talks(scene, "at last", socket, &conn)
}

fn denied_connect(scene: &Scene, socket: &Socket) -> Result<()> {
    let connected = socket.connect(&scene.denied().into());
    scene.note("connect", outcome(connected));
    left(scene, socket)?;
    let again = socket.connect(&scene.denied().into());
    scene.note("connect, once more", outcome(again));
    Ok(())
}

fn blocking(scene: &Scene) -> Result<()> {
    let socket = scene.tcp()?;
    denied_connect(scene, &socket)?;
    scene.note("receive", heard(recv(&socket, 8)));
    scene.note("send", outcome(send(&socket, b"?")));
    dials_live(scene, &socket)
}

/// The answer is there at once: nothing is left to wait for.
fn nonblocking(scene: &Scene) -> Result<()> {
    let socket = scene.tcp()?;
    socket.set_nonblocking(true)?;
    denied_connect(scene, &socket)?;
    socket.set_nonblocking(false)?;
    dials_live(scene, &socket)
}

/// A connected socket stays so. Parted by `AF_UNSPEC` it is denied as any other.
fn reconnect(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    let connected = socket.connect(&scene.denied().into());
    scene.note("connect while connected", outcome(connected));
    talks(scene, "while connected", &socket, &conn)?;
    rustix::net::connect_unspec(&socket)?;
    // The kernel leaves a socket that it parts an error, with weir and without.
    let _parted = socket.take_error()?;
    denied_connect(scene, &socket)?;
    dials_live(scene, &socket)
}

/// `MSG_FASTOPEN`.
fn fast_open(scene: &Scene) -> Result<()> {
    let socket = scene.tcp()?;
    let flags = super::connect::MSG_FASTOPEN;
    let sent = socket.send_to_with_flags(b"?", &scene.denied().into(), flags);
    scene.note("sendto", number(sent));
    left(scene, &socket)?;
    let peer = scene.peer()?;
    let sent = socket.send_to_with_flags(b"fast", &scene.live().into(), flags);
    scene.note("sendto live then", number(sent));
    let (conn, _) = peer.accept(0)?;
    scene.note("peer receives", conn.hear(8)?);
    talks(scene, "at last", &socket, &conn)
}

/// `TCP_FASTOPEN_CONNECT`: denied by `connect`, not by the first `send`.
fn fast_open_connect(scene: &Scene) -> Result<()> {
    let socket = scene.tcp()?;
    set_fast_open_connect(&socket)?;
    denied_connect(scene, &socket)?;
    dials_live(scene, &socket)
}

fn multipath(scene: &Scene) -> Result<()> {
    let socket = bounded(scene.way.socket(Type::STREAM, Protocol::MPTCP)?)?;
    denied_connect(scene, &socket)?;
    dials_live(scene, &socket)
}
