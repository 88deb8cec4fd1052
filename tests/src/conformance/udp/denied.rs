//! Datagrams that are denied.

use anyhow::Result;
use socket2::Socket;

use super::super::call::{heard, number, outcome, recv};
use super::super::denied::left;
use super::ground::Ground;
use super::message;

/// Who a connected socket is, and that datagrams pass both ways.
fn talks(ground: &Ground<'_>, when: &str, socket: &Socket) -> Result<()> {
    let (peer, own) = ground.scene.both_names(socket);
    let sent = number(socket.send(b"ping"));
    let (there, from) = ground.far.hear(0)?;
    let from = ground.scene.part_at_peer(from);
    ground.far.say(0, b"pong")?;
    let back = heard(recv(socket, 40));
    ground.note(
        &format!("{when}, it talks"),
        format!("from {own} with {peer}: {sent}, {there} from {from}, {back}"),
    );
    Ok(())
}

/// `connect`, on a fresh socket and on one that has a peer.
pub(in super::super) fn connected(ground: &Ground<'_>) -> Result<()> {
    let (denied, live) = (ground.scene.denied(), ground.live());
    let socket = ground.socket()?;
    ground.note("connect", outcome(socket.connect(&denied.into())));
    left(ground.scene, &socket)?;
    ground.sent("send", socket.send(b"?"));
    ground.note(
        "connect to live then",
        outcome(socket.connect(&live.into())),
    );
    talks(ground, "then", &socket)?;
    let again = outcome(socket.connect(&denied.into()));
    ground.note("connect while connected", again);
    talks(ground, "at last", &socket)
}

/// `sendto` and `sendmsg`, without a peer and past one.
pub(in super::super) fn unconnected(ground: &Ground<'_>) -> Result<()> {
    let denied = ground.scene.denied();
    let plain = ground.socket()?;
    ground.sent("sendto", plain.send_to(b"?", &denied.into()));
    left(ground.scene, &plain)?;
    let sent = message::send(&plain, b"?!", &[], Some(denied));
    ground.sent("sendmsg", sent);
    let sent = plain.send_to(b"?", &ground.live().into());
    ground.sent("sendto live then", sent);
    ground.far_hears("peer receives", 0)?;
    ground.far.say(0, b"!")?;
    ground.receives_from("recvfrom", &plain);
    let socket = ground.connected()?;
    let sent = socket.send_to(b"?", &denied.into());
    ground.sent("sendto while connected", sent);
    talks(ground, "at last", &socket)
}

/// `sendmmsg` ends before the first that is denied, and says so where it is the first.
pub(in super::super) fn many(ground: &Ground<'_>) -> Result<()> {
    let (denied, live) = (Some(ground.scene.denied()), Some(ground.live()));
    let socket = ground.socket()?;
    let sent = message::send_many(&socket, &[b"one", b"two", b"three"], &[live, denied, live]);
    ground.sent("sendmmsg of three, the second denied", sent);
    ground.far_hears("peer receives the first", 0)?;
    let sent = message::send_many(&socket, &[b"two", b"three"], &[denied, live]);
    ground.sent("sendmmsg of two, the first denied", sent);
    left(ground.scene, &socket)?;
    let sent = message::send_many(&socket, &[b"three"], &[live]);
    ground.sent("sendmmsg of the last", sent);
    ground.far_hears("peer receives the last", 0)?;
    Ok(())
}
