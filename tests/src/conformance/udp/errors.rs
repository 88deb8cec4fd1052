//! What a UDP socket learns of datagrams that do not arrive.

use std::net::SocketAddr;

use anyhow::Result;
use nix::sys::socket::{MsgFlags, setsockopt, sockopt};
use rustix::event::PollFlags;
use socket2::Socket;

use super::super::call::{fault, heard, outcome, poll, recv};
use super::super::way::Way;
use super::ground::{BRIEF, Ground, LIMIT};

/// What the pod's routing rules send nowhere.
const MARK: u32 = 7;

/// Waits for an error, and notes what `poll` says of it.
fn awaits(ground: &Ground<'_>, what: &str, socket: &Socket) -> Result<()> {
    ground.note(what, poll(socket, PollFlags::IN, LIMIT)?);
    Ok(())
}

fn pending(socket: &Socket) -> String {
    match socket.take_error() {
        Ok(None) => "OK".to_owned(),
        Ok(Some(error)) | Err(error) => fault(&error),
    }
}

/// "Port unreachable" comes back to a connected socket, by the next call, once.
pub(super) fn closed(ground: &Ground<'_>) -> Result<()> {
    let socket = ground.socket()?;
    ground.connects("to closed", &socket, ground.closed());
    socket.set_read_timeout(Some(BRIEF))?;
    ground.sent("send", socket.send(b"?"));
    awaits(ground, "poll", &socket)?;
    ground.note("receive", heard(recv(&socket, 8)));
    ground.note("receive, once more", heard(recv(&socket, 8)));
    ground.sent("send, once more", socket.send(b"?"));
    awaits(ground, "poll, once more", &socket)?;
    ground.sent("send with the error pending", socket.send(b"?"));
    ground.sent("send after the error", socket.send(b"?"));
    awaits(ground, "poll at last", &socket)?;
    ground.note("SO_ERROR", pending(&socket));
    ground.note("SO_ERROR, once more", pending(&socket));
    ground.scene.names("then", &socket);
    // The socket is as good as new.
    socket.set_read_timeout(Some(LIMIT))?;
    ground.connects("to live", &socket, ground.live());
    ground.exchange("then", &socket, 0)
}

/// A socket without a peer does not learn of it, unless it asks.
pub(super) fn closed_unconnected(ground: &Ground<'_>) -> Result<()> {
    let socket = ground.socket()?;
    for time in ["once", "twice"] {
        let sent = socket.send_to(b"?", &ground.closed().into());
        ground.sent(&format!("sendto, {time}"), sent);
        ground.silence(&format!("poll, {time}"), &socket)?;
    }
    ground.note("SO_ERROR", pending(&socket));
    ground.sent("sendto live", socket.send_to(b"?", &ground.live().into()));
    ground.far_hears("peer receives", 0)?;
    ground.far.say(0, b"!")?;
    ground.receives_from("recvfrom", &socket);
    Ok(())
}

fn ask_for_errors(ground: &Ground<'_>, socket: &Socket) -> Result<()> {
    if ground.scene.way != Way::V6 {
        setsockopt(socket, sockopt::Ipv4RecvErr, &true)?;
    }
    if ground.scene.way != Way::V4 {
        setsockopt(socket, sockopt::Ipv6RecvErr, &true)?;
    }
    Ok(())
}

/// Notes what stands in the error queue, and what is left of it.
fn queued(ground: &Ground<'_>, when: &str, socket: &Socket) {
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    ground.receives_with(&format!("MSG_ERRQUEUE {when}"), socket, 64, flags);
    ground.receives_with(&format!("MSG_ERRQUEUE {when}, then"), socket, 64, flags);
    ground.note(&format!("SO_ERROR {when}"), pending(socket));
}

/// `IP_RECVERR` on a socket without a peer.
pub(super) fn error_queue(ground: &Ground<'_>) -> Result<()> {
    let socket = ground.socket()?;
    ask_for_errors(ground, &socket)?;
    let sent = socket.send_to(b"lost", &ground.closed().into());
    ground.sent("sendto", sent);
    awaits(ground, "poll", &socket)?;
    queued(ground, "then", &socket);
    // An error that nobody took is the next call's.
    socket.send_to(b"lost too", &ground.closed().into())?;
    awaits(ground, "poll, once more", &socket)?;
    let sent = socket.send_to(b"?", &ground.live().into());
    ground.sent("sendto live with the error pending", sent);
    queued(ground, "at last", &socket);
    Ok(())
}

/// The same on one that has a peer.
pub(super) fn error_queue_connected(ground: &Ground<'_>) -> Result<()> {
    let socket = ground.socket()?;
    ask_for_errors(ground, &socket)?;
    socket.connect(&ground.closed().into())?;
    ground.sent("send", socket.send(b"lost"));
    awaits(ground, "poll", &socket)?;
    ground.note("receive", heard(recv(&socket, 8)));
    queued(ground, "then", &socket);
    Ok(())
}

/// No route: said at once, by the call.
pub(super) fn unreachable(ground: &Ground<'_>) -> Result<()> {
    let to = ground.scene.unreachable();
    let socket = ground.socket()?;
    ground.connects("to nowhere", &socket, to);
    ground.sent("send", socket.send(b"?"));
    let plain = ground.socket()?;
    ground.sent("sendto", plain.send_to(b"?", &to.into()));
    ground.scene.names("of the other", &plain);
    plain.send_to(b"?", &ground.live().into())?;
    ground.far_hears("peer receives", 0)?;
    // Lost on the way, without a word.
    let sent = plain.send_to(b"?", &ground.scene.blackhole().into());
    ground.sent("sendto a black hole", sent);
    Ok(())
}

/// The way over `eth1` has a router on it; it tells who asks that one hop is too few.
pub(super) fn time_to_live(ground: &Ground<'_>) -> Result<()> {
    let socket = ground.socket()?;
    ask_for_errors(ground, &socket)?;
    socket.bind_device(Some(b"eth1"))?;
    socket.set_ttl_v4(1)?;
    let sent = socket.send_to(b"?", &ground.live().into());
    ground.sent("sendto", sent);
    awaits(ground, "poll", &socket)?;
    queued(ground, "then", &socket);
    Ok(())
}

/// The pod's routing rules send this mark nowhere, and another as usual.
pub(super) fn mark(ground: &Ground<'_>) -> Result<()> {
    for mark in [MARK, MARK + 1] {
        let socket = ground.socket()?;
        socket.set_mark(mark)?;
        let sent = socket.send_to(b"?", &ground.live().into());
        ground.sent(&format!("sendto with mark {mark}"), sent);
        let to: SocketAddr = ground.live();
        let connected = outcome(socket.connect(&to.into()));
        ground.note(&format!("connect with mark {mark}"), connected);
        ground.scene.names(&format!("with mark {mark}"), &socket);
    }
    ground.far_hears("peer receives", 0)?;
    Ok(())
}
