//! `io_uring`: the same calls, made by the kernel on the application's behalf.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use a10::{AsyncFd, Ring};
use anyhow::Result;

use super::Case;
use super::call::{heard, number, outcome};
use super::denied::{left, talks};
use super::scene::Scene;

pub(super) const CASES: &[Case] = &[
    Case::new("uring/live", live),
    Case::new("uring/closed", closed),
];

/// How long an operation may take.
const ROUNDS: u32 = 60;
const ROUND: Duration = Duration::from_millis(100);

/// Drives the ring until the operation is done.
fn done<T>(ring: &mut Ring, operation: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let mut operation = pin!(operation);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..ROUNDS {
        if let Poll::Ready(result) = operation.as_mut().poll(&mut context) {
            return result;
        }
        ring.poll(Some(ROUND))?;
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Connect, send, receive.
fn live(scene: &Scene) -> Result<()> {
    let peer = scene.peer()?;
    let mut ring = Ring::new()?;
    let socket = scene.tcp()?;
    let fd = AsyncFd::new(OwnedFd::from(socket.try_clone()?), ring.sq());
    scene.note(
        "connect",
        outcome(done(&mut ring, fd.connect(scene.live()))),
    );
    scene.names("then", &socket);
    scene.note("send", number(done(&mut ring, fd.send("ping?"))));
    let (conn, _) = peer.accept(0)?;
    scene.note("peer receives", conn.hear(8)?);
    conn.say(b"pong")?;
    let received = done(&mut ring, fd.recv(Vec::with_capacity(8)));
    scene.note("receive", heard(received));
    conn.close()?;
    let received = done(&mut ring, fd.recv(Vec::with_capacity(8)));
    scene.note("receive at the end", heard(received));
    Ok(())
}

/// A connect that is refused.
fn closed(scene: &Scene) -> Result<()> {
    let mut ring = Ring::new()?;
    let fd = AsyncFd::new(OwnedFd::from(scene.tcp()?), ring.sq());
    scene.note(
        "connect",
        outcome(done(&mut ring, fd.connect(scene.closed()))),
    );
    let received = done(&mut ring, fd.recv(Vec::with_capacity(8)));
    scene.note("receive", heard(received));
    Ok(())
}

/// A connect that is denied, and one to a peer by the same socket.
pub(super) fn denied(scene: &Scene) -> Result<()> {
    let peer = scene.peer()?;
    let mut ring = Ring::new()?;
    let socket = scene.tcp()?;
    let fd = AsyncFd::new(OwnedFd::from(socket.try_clone()?), ring.sq());
    let connected = done(&mut ring, fd.connect(scene.denied()));
    scene.note("connect", outcome(connected));
    left(scene, &socket)?;
    let connected = done(&mut ring, fd.connect(scene.live()));
    scene.note("connect to live then", outcome(connected));
    scene.note("send", number(done(&mut ring, fd.send("ping?"))));
    let (conn, _) = peer.accept(0)?;
    scene.note("peer receives", conn.hear(8)?);
    talks(scene, "at last", &socket, &conn)
}
