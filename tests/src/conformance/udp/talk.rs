//! Datagrams there and back, by every call that carries them.

use anyhow::Result;
use nix::sys::socket::MsgFlags;
use rustix::event::PollFlags;

use super::super::call::{fault, heard, number, poll, recv, settle, told};
use super::ground::{Ground, LIMIT};
use super::message;

/// `connect`, then calls that name nobody.
pub(super) fn connected(ground: &Ground<'_>) -> Result<()> {
    let socket = ground.socket()?;
    ground.scene.names("of a fresh socket", &socket);
    ground.connects("to live", &socket, ground.live());
    ground.exchange("then", &socket, 0)?;
    ground.sent("send, once more", socket.send(b"once more"));
    ground.far_hears("peer receives once more", 0)?;
    // Nobody but its peer is heard by a connected socket.
    ground.far.say_from(1, 0, b"from elsewhere")?;
    ground.silence("poll, as another speaks", &socket)?;
    ground.far.say(0, b"from the peer")?;
    ground.receives_from("recvfrom", &socket);
    ground.scene.names("at last", &socket);
    Ok(())
}

/// `sendto` and `recvfrom` on one socket, with two others.
pub(super) fn unconnected(ground: &Ground<'_>) -> Result<()> {
    let socket = ground.socket()?;
    ground.sent("send to nobody", socket.send(b"?"));
    for (whom, to, far) in [
        ("live", ground.live(), 0),
        ("second", ground.second(), 1),
        ("live again", ground.live(), 0),
    ] {
        let sent = socket.send_to(b"ping", &to.into());
        ground.sent(&format!("sendto {whom}"), sent);
        ground.far_hears(&format!("peer receives for {whom}"), far)?;
    }
    ground.scene.names("then", &socket);
    for (whom, far) in [("second", 1), ("live", 0)] {
        ground.far.say(far, b"pong")?;
        ground.receives_from(&format!("recvfrom {whom}"), &socket);
    }
    Ok(())
}

/// `sendmsg` and `recvmsg` with names, also on a socket that has a peer.
pub(super) fn messages(ground: &Ground<'_>) -> Result<()> {
    let plain = ground.socket()?;
    let sent = message::send(&plain, b"in two pieces", &[], Some(ground.live()));
    ground.sent("sendmsg", sent);
    ground.far_hears("peer receives", 0)?;
    ground.far.say(0, b"an answer")?;
    ground.receives("recvmsg", &plain);
    let socket = ground.connected()?;
    ground.sent(
        "sendmsg to the peer",
        message::send(&socket, b"in two pieces", &[], None),
    );
    ground.far_hears("peer receives then", 0)?;
    // A name overrules the peer, for this one datagram.
    let sent = message::send(&socket, b"aside", &[], Some(ground.second()));
    ground.sent("sendmsg to another", sent);
    ground.far_hears("the other receives", 1)?;
    ground.far.say(1, b"unheard")?;
    ground.silence("poll, as the other answers", &socket)?;
    ground.far.say(0, b"an answer")?;
    ground.receives("recvmsg then", &socket);
    ground.scene.names("at last", &socket);
    Ok(())
}

/// `sendmmsg` and `recvmmsg`.
pub(super) fn many(ground: &Ground<'_>) -> Result<()> {
    let socket = ground.socket()?;
    let to = [ground.live(), ground.second(), ground.live()].map(Some);
    let sent = message::send_many(&socket, &[b"one", b"two", b"three"], &to);
    ground.sent("sendmmsg", sent);
    for (what, far) in [("first", 0), ("second", 1), ("third", 0)] {
        ground.far_hears(&format!("peer receives the {what}"), far)?;
        // Else the answers could overtake each other.
        ground.far.say(far, what.as_bytes())?;
    }
    take_many(ground, "recvmmsg", &socket, 3);
    let socket = ground.connected()?;
    let sent = message::send_many(&socket, &[b"four", b"five"], &[None, None]);
    ground.sent("sendmmsg to the peer", sent);
    for what in ["fourth", "fifth"] {
        ground.far_hears(&format!("peer receives the {what}"), 0)?;
        ground.far.say(0, what.as_bytes())?;
    }
    take_many(ground, "recvmmsg from the peer", &socket, 2);
    Ok(())
}

/// Notes what waits, once it is so much.
fn take_many(ground: &Ground<'_>, what: &str, socket: &socket2::Socket, count: usize) {
    let mut all = Vec::new();
    let mut ended = String::new();
    settle(|| {
        match message::receive_many(socket, count) {
            Ok(more) => all.extend(more),
            Err(error) => ended = fault(&error),
        }
        all.len() >= count
    });
    let seen = all.into_iter().map(|(data, from)| {
        let from = from.map(|from| ground.scene.part(from));
        format!("{} from {}", told(&data), from.unwrap_or_default())
    });
    let seen: Vec<String> = seen.collect();
    ground.note(
        what,
        if seen.is_empty() {
            ended
        } else {
            seen.join("; ")
        },
    );
}

/// Datagrams without a byte are datagrams.
pub(super) fn empty(ground: &Ground<'_>) -> Result<()> {
    let socket = ground.connected()?;
    ground.sent("send", socket.send(b""));
    ground.far_hears("peer receives", 0)?;
    ground.far.say(0, b"")?;
    ground.note("poll for IN", poll(&socket, PollFlags::IN, LIMIT)?);
    ground.note("FIONREAD", number(rustix::io::ioctl_fionread(&socket)));
    ground.receives("recvmsg", &socket);
    let plain = ground.socket()?;
    ground.sent("sendto", plain.send_to(b"", &ground.live().into()));
    ground.far_hears("peer receives then", 0)?;
    ground.far.say(0, b"")?;
    ground.receives_from("recvfrom", &plain);
    ground.far.say(0, b"")?;
    ground.note("recv", heard(recv(&plain, 8)));
    Ok(())
}

/// Looking without taking, and room for less than there is.
pub(super) fn peek(ground: &Ground<'_>) -> Result<()> {
    let plain = ground.socket()?;
    plain.send_to(b"?", &ground.live().into())?;
    let peer = ground.connected()?;
    peer.send(b"?")?;
    for (kind, socket) in [("plain", &plain), ("connected", &peer)] {
        ground.far_hears(&format!("peer receives from the {kind} one"), 0)?;
        ground.far.say(0, b"look at this")?;
        ground.far.say(0, b"and at that")?;
        poll(socket, PollFlags::IN, LIMIT)?;
        let waiting = number(rustix::io::ioctl_fionread(socket));
        ground.note(&format!("FIONREAD, {kind}"), waiting);
        let sizes = MsgFlags::MSG_TRUNC;
        for (what, max, flags) in [
            ("MSG_PEEK", 64, MsgFlags::MSG_PEEK),
            ("MSG_PEEK with little room", 4, MsgFlags::MSG_PEEK),
            ("MSG_PEEK of the size", 4, MsgFlags::MSG_PEEK | sizes),
            ("little room", 4, MsgFlags::empty()),
            ("MSG_TRUNC", 64, sizes),
            ("nothing", 64, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT),
        ] {
            ground.receives_with(&format!("{what}, {kind}"), socket, max, flags);
        }
    }
    Ok(())
}

/// In fragments, and beyond what fits.
pub(super) fn large(ground: &Ground<'_>) -> Result<()> {
    let socket = ground.connected()?;
    let data = super::super::call::pattern(40_000);
    ground.sent("send in fragments", socket.send(&data));
    ground.far_hears("peer receives", 0)?;
    ground.far.say(0, &data)?;
    ground.receives("receive", &socket);
    let too_much = vec![0; 70_000];
    ground.sent("send too much", socket.send(&too_much));
    let plain = ground.socket()?;
    let sent = plain.send_to(&too_much, &ground.live().into());
    ground.sent("sendto with too much", sent);
    Ok(())
}
