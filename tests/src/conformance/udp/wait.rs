//! Waiting for datagrams: blocking calls with a limit, `poll`, `epoll`, and the
//! ends of waiting.

use std::net::Shutdown;

use anyhow::{Result, anyhow};
use rustix::event::PollFlags;
use rustix::event::epoll::EventFlags;

use super::super::call::{heard, outcome, poll, recv, settle};
use super::super::events::Watch;
use super::ground::{BRIEF, Ground, LIMIT};

fn all() -> PollFlags {
    PollFlags::IN | PollFlags::OUT | PollFlags::PRI | PollFlags::RDHUP
}

/// What `poll` says in each state.
pub(super) fn through_life(ground: &Ground<'_>) -> Result<()> {
    let socket = ground.socket()?;
    let note = |when: &str| -> Result<()> {
        ground.note(&format!("poll {when}"), poll(&socket, all(), BRIEF)?);
        Ok(())
    };
    note("when fresh")?;
    socket.connect(&ground.live().into())?;
    note("when connected")?;
    socket.send(b"?")?;
    ground.far_hears("peer receives", 0)?;
    ground.far.say(0, b"!")?;
    poll(&socket, PollFlags::IN, LIMIT)?;
    note("with a datagram")?;
    recv(&socket, 8)?;
    note("without one again")
}

/// Calls that find nothing, blocking and not.
pub(super) fn limits(ground: &Ground<'_>) -> Result<()> {
    let socket = ground.connected()?;
    socket.set_read_timeout(Some(BRIEF))?;
    ground.note("receive with SO_RCVTIMEO", heard(recv(&socket, 8)));
    socket.set_nonblocking(true)?;
    ground.note("receive with O_NONBLOCK", heard(recv(&socket, 8)));
    let again = socket.connect(&ground.live().into());
    ground.note("connect with O_NONBLOCK", outcome(again));
    ground.sent("send with O_NONBLOCK", socket.send(b"?"));
    ground.far_hears("peer receives", 0)?;
    ground.far.say(0, b"late")?;
    ground.note("poll for IN", poll(&socket, PollFlags::IN, LIMIT)?);
    ground.receives("receive", &socket);
    ground.receives("receive, once more", &socket);
    Ok(())
}

pub(super) fn by_level(ground: &Ground<'_>) -> Result<()> {
    by_epoll(ground, EventFlags::empty())
}

pub(super) fn by_edge(ground: &Ground<'_>) -> Result<()> {
    by_epoll(ground, EventFlags::ET)
}

/// Two waits after each thing that happens: a level is told twice, an edge once.
fn by_epoll(ground: &Ground<'_>, mode: EventFlags) -> Result<()> {
    let socket = ground.socket()?;
    socket.set_nonblocking(true)?;
    socket.send_to(b"?", &ground.live().into())?;
    ground.far_hears("peer receives", 0)?;
    let watch = Watch::new(&socket, EventFlags::IN | EventFlags::RDHUP | mode)?;
    let note = |when: &str| -> Result<()> {
        ground.note(&format!("{when}, at once"), watch.wait(BRIEF)?);
        ground.note(&format!("{when}, once more"), watch.wait(BRIEF)?);
        Ok(())
    };
    let waiting = |len: u64| settle(|| rustix::io::ioctl_fionread(&socket) == Ok(len));
    note("at first")?;
    ground.far.say(0, b"one")?;
    waiting(3);
    note("with one")?;
    ground.far.say(0, b"another")?;
    std::thread::sleep(BRIEF);
    note("with two")?;
    ground.receives("receive", &socket);
    note("with one left")?;
    ground.receives("receive the other", &socket);
    ground.receives("receive nothing", &socket);
    note("with none")
}

/// `shutdown`, of a socket with a peer and of one without.
pub(super) fn shut_down(ground: &Ground<'_>) -> Result<()> {
    let plain = ground.socket()?;
    ground.note(
        "shutdown without a peer",
        outcome(plain.shutdown(Shutdown::Both)),
    );
    let socket = ground.connected()?;
    ground.exchange("at first", &socket, 0)?;
    ground.note(
        "shutdown to write",
        outcome(socket.shutdown(Shutdown::Write)),
    );
    ground.sent("send then", socket.send(b"?"));
    ground.note("poll then", poll(&socket, all(), BRIEF)?);
    ground.far.say(0, b"still heard")?;
    ground.receives("receive then", &socket);
    ground.note("shutdown to read", outcome(socket.shutdown(Shutdown::Read)));
    ground.note("receive at last", heard(recv(&socket, 8)));
    ground.note("poll at last", poll(&socket, all(), BRIEF)?);
    ground.scene.names("at last", &socket);
    Ok(())
}

/// A thread that waits is woken by another's `shutdown`.
pub(super) fn woken(ground: &Ground<'_>) -> Result<()> {
    let socket = ground.connected()?;
    let received = std::thread::scope(|scope| {
        let reader = scope.spawn(|| heard(recv(&socket, 8)));
        std::thread::sleep(BRIEF);
        ground.note("shutdown", outcome(socket.shutdown(Shutdown::Read)));
        reader.join()
    });
    ground.note(
        "receive",
        received.map_err(|_| anyhow!("the reader panicked"))?,
    );
    Ok(())
}
