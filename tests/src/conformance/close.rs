//! Ends: each half on its own, in order or by reset, and who hears of it.

use std::net::Shutdown;
use std::time::Duration;

use anyhow::Result;
use rustix::event::PollFlags;
use socket2::Socket;

use super::Case;
use super::call::{hear_all, heard, outcome, pattern, poll, poll_reset, recv, send, settle};
use super::remote::Conn;
use super::scene::Scene;

pub(super) const CASES: &[Case] = &[
    Case::new("close/half-by-the-application", half_by_application),
    Case::new("close/half-by-the-peer", half_by_peer),
    Case::new("close/unread-by-the-application", unread_by_application),
    Case::new("close/unread-by-the-peer", unread_by_peer),
    Case::new("close/reset-by-the-application", reset_by_application),
    Case::new("close/reset-by-the-peer", reset_by_peer),
    Case::new("close/data-before-a-reset", data_before_reset),
    Case::new("close/reset-half-closed", reset_half_closed),
    Case::new("close/write-to-a-closed-peer", write_to_closed_peer),
    Case::new(
        "close/peer-writes-to-a-closed-socket",
        peer_writes_to_closed,
    ),
    Case::new("close/lingering", lingering),
];

const LIMIT: Duration = Duration::from_secs(3);
/// What `poll` says anyway.
const FAILED: PollFlags = PollFlags::ERR.union(PollFlags::HUP);
const SOME: usize = 200_000;
/// For so long nobody reads: more than it takes to come through.
const STALLED: Duration = Duration::from_millis(100);
/// The receive buffers of narrow ends: far less than [`SOME`].
const NARROW: usize = 32 << 10;

/// A connection whose ends take [`SOME`] to send at once, and have little room for
/// what is not read: the end of a half waits behind the data before it.
fn narrow(scene: &Scene) -> Result<(Socket, Conn<'_>)> {
    let _listening = scene.peer_with(false, Some(NARROW))?;
    let socket = scene.tcp()?;
    socket.set_recv_buffer_size(NARROW)?;
    socket.set_send_buffer_size(SOME)?;
    scene.connected_by(socket)
}

/// All that the peer says before it ends its half, or all: nobody reads until it is done.
fn read_late(scene: &Scene, socket: &Socket, conn: &Conn<'_>, closes: bool) -> Result<()> {
    scene.note("peer sends", conn.say_much(SOME)?);
    let ended = if closes { conn.close() } else { conn.finish() };
    scene.note("peer ends", ended?);
    std::thread::sleep(STALLED);
    let both = PollFlags::IN | PollFlags::RDHUP;
    scene.note("poll before it reads", poll(socket, both, Duration::ZERO)?);
    let received = hear_all(socket, Duration::from_millis(2));
    scene.note("receive", received);
    Ok(())
}

/// The application ends its half; a slow peer reads all of it and answers at length.
fn half_by_application(scene: &Scene) -> Result<()> {
    let (socket, conn) = narrow(scene)?;
    let sent = send(&socket, &pattern(SOME));
    let sent = outcome(sent.and_then(|()| socket.shutdown(Shutdown::Write)));
    scene.note("send and shutdown", sent);
    std::thread::sleep(STALLED);
    scene.note("peer's poll before it reads", conn.ready()?);
    scene.note("peer receives", conn.hear_all(2)?);
    scene.note("send after shutdown", outcome(send(&socket, b"?")));
    let brief = Duration::from_millis(20);
    scene.note("poll for IN", poll(&socket, PollFlags::IN, brief)?);
    read_late(scene, &socket, &conn, true)
}

/// The peer ends its half; the application reads slowly and answers.
fn half_by_peer(scene: &Scene) -> Result<()> {
    let (socket, conn) = narrow(scene)?;
    read_late(scene, &socket, &conn, false)?;
    scene.note("receive, once more", heard(recv(&socket, 8)));
    scene.note("send", outcome(send(&socket, b"one more thing")));
    scene.note("shutdown", outcome(socket.shutdown(Shutdown::Write)));
    scene.note("peer receives", conn.hear_all(0)?);
    Ok(())
}

/// A close with data that was not read is a reset.
fn unread_by_application(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    conn.say(b"unread")?;
    poll(&socket, PollFlags::IN, LIMIT)?;
    drop(socket);
    scene.note("peer receives", conn.hear_all(0)?);
    Ok(())
}

/// The same at the other end.
fn unread_by_peer(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    // Both pieces are there: the first is read, the second is not.
    send(&socket, b"read and ")?;
    scene.note("peer receives", conn.hear(9)?);
    send(&socket, b"unread")?;
    std::thread::sleep(Duration::from_millis(50));
    conn.close()?;
    let ready = poll_reset(&socket, PollFlags::IN, LIMIT)?;
    scene.note("poll for IN", ready);
    scene.note("receive", heard(recv(&socket, 8)));
    scene.note("receive, once more", heard(recv(&socket, 8)));
    Ok(())
}

/// `SO_LINGER` with zero.
fn reset_by_application(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    socket.set_linger(Some(Duration::ZERO))?;
    drop(socket);
    scene.note("peer receives", conn.hear_all(0)?);
    scene.note("peer sends", conn.say(b"?")?);
    Ok(())
}

/// The same by the peer, seen by a sender.
fn reset_by_peer(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    conn.abort()?;
    poll_reset(&socket, PollFlags::IN, LIMIT)?;
    scene.note("send", outcome(send(&socket, b"?")));
    scene.note("send, once more", outcome(send(&socket, b"?")));
    scene.note("receive", heard(recv(&socket, 8)));
    Ok(())
}

/// What came before a reset can still be read.
fn data_before_reset(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    conn.say(b"last words")?;
    settle(|| rustix::io::ioctl_fionread(&socket).is_ok_and(|len| len == 10));
    conn.abort()?;
    scene.note("poll for the reset", poll_reset(&socket, FAILED, LIMIT)?);
    scene.note("receive", hear_all(&socket, Duration::ZERO));
    let (socket, conn) = scene.connected()?;
    send(&socket, b"last words")?;
    std::thread::sleep(Duration::from_millis(50));
    socket.set_linger(Some(Duration::ZERO))?;
    drop(socket);
    std::thread::sleep(Duration::from_millis(50));
    scene.note("peer receives", conn.hear_all(0)?);
    Ok(())
}

/// A reset of one half after the other has ended in order.
fn reset_half_closed(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    socket.shutdown(Shutdown::Write)?;
    scene.note("peer receives", conn.hear(8)?);
    conn.abort()?;
    scene.note("receive", heard(recv(&socket, 8)));
    let (socket, conn) = scene.connected()?;
    conn.finish()?;
    scene.note("receive the end", heard(recv(&socket, 8)));
    socket.set_linger(Some(Duration::ZERO))?;
    drop(socket);
    scene.note("peer receives then", conn.hear_all(0)?);
    Ok(())
}

/// The first write after the peer's close is taken, and answered by a reset.
fn write_to_closed_peer(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    conn.close()?;
    poll(&socket, PollFlags::RDHUP, LIMIT)?;
    scene.note("send", outcome(send(&socket, b"first")));
    scene.note("poll for the reset", poll_reset(&socket, FAILED, LIMIT)?);
    scene.note("send, once more", outcome(send(&socket, b"second")));
    scene.note("receive", heard(recv(&socket, 8)));
    Ok(())
}

/// The same seen by the peer.
fn peer_writes_to_closed(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    drop(socket);
    scene.note("peer receives", conn.hear(8)?);
    scene.note("peer sends", conn.say(b"first")?);
    std::thread::sleep(Duration::from_millis(100));
    scene.note("peer sends, once more", conn.say(b"second")?);
    Ok(())
}

/// `SO_LINGER` with a time: the close waits until the data is taken.
fn lingering(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    socket.set_linger(Some(LIMIT))?;
    send(&socket, &pattern(SOME))?;
    std::thread::scope(|scope| -> Result<()> {
        let closer = scope.spawn(move || drop(socket));
        scene.note("peer receives", conn.hear_all(0)?);
        settle(|| closer.is_finished());
        scene.note("close has returned", closer.is_finished().to_string());
        Ok(())
    })
}
