//! Waiting: blocking calls with a limit, `poll`, and `epoll` by level and by edge.

use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::Result;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFlags, Timespec};
use socket2::Socket;

use super::Case;
use super::call::{fault, flags, heard, outcome, poll, poll_reset, recv, send, settle};
use super::remote::Conn;
use super::scene::Scene;

pub(super) const CASES: &[Case] = &[
    Case::new("events/limits", limits),
    Case::new("events/poll", poll_through_life),
    Case::new("events/poll-reset", poll_after_reset),
    Case::new("events/epoll-level", |scene| {
        by_epoll(scene, EventFlags::empty())
    }),
    Case::new("events/epoll-edge", |scene| by_epoll(scene, EventFlags::ET)),
    Case::new("events/epoll-connect", epoll_connect),
    Case::new("events/server-first", server_first),
    Case::new("events/woken", woken),
];

const LIMIT: Duration = Duration::from_secs(3);
/// For what is expected not to happen.
const BRIEF: Duration = Duration::from_millis(20);

/// Calls that find nothing, blocking and not.
fn limits(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    socket.set_read_timeout(Some(BRIEF))?;
    scene.note("receive with SO_RCVTIMEO", heard(recv(&socket, 8)));
    socket.set_nonblocking(true)?;
    scene.note("receive with O_NONBLOCK", heard(recv(&socket, 8)));
    conn.say(b"late")?;
    scene.note("poll for IN", poll(&socket, PollFlags::IN, LIMIT)?);
    scene.note("receive", heard(recv(&socket, 8)));
    Ok(())
}

fn all() -> PollFlags {
    PollFlags::IN | PollFlags::OUT | PollFlags::PRI | PollFlags::RDHUP
}

/// What `poll` says in each state.
fn poll_through_life(scene: &Scene) -> Result<()> {
    let fresh = scene.tcp()?;
    scene.note("poll of a fresh socket", poll(&fresh, all(), BRIEF)?);
    let (socket, conn) = scene.connected()?;
    let note = |when: &str| -> Result<()> {
        scene.note(&format!("poll {when}"), poll(&socket, all(), BRIEF)?);
        Ok(())
    };
    note("when connected")?;
    conn.say(b"data")?;
    poll(&socket, PollFlags::IN, LIMIT)?;
    note("with data")?;
    recv(&socket, 8)?;
    note("without data again")?;
    conn.finish()?;
    poll(&socket, PollFlags::RDHUP, LIMIT)?;
    note("after the peer's FIN")?;
    scene.note("receive", heard(recv(&socket, 8)));
    scene.note("shutdown", outcome(socket.shutdown(Shutdown::Write)));
    note("after both")?;
    scene.note("send", outcome(send(&socket, b"?")));
    Ok(())
}

/// What `poll` says of a reset, and which call gets the error.
fn poll_after_reset(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    conn.abort()?;
    poll_reset(&socket, PollFlags::IN, LIMIT)?;
    scene.note("poll after the reset", poll(&socket, all(), BRIEF)?);
    scene.note("receive", heard(recv(&socket, 8)));
    scene.note("receive, once more", heard(recv(&socket, 8)));
    scene.note("send", outcome(send(&socket, b"?")));
    scene.note("poll then", poll(&socket, all(), BRIEF)?);
    Ok(())
}

/// An epoll that watches one socket.
pub(super) struct Watch(OwnedFd);

impl Watch {
    pub(super) fn new(socket: &Socket, events: EventFlags) -> Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, socket, EventData::new_u64(0), events)?;
        Ok(Self(epoll))
    }

    pub(super) fn wait(&self, limit: Duration) -> Result<String> {
        let mut events = Vec::with_capacity(4);
        let limit = Timespec::try_from(limit)?;
        epoll::wait(&self.0, spare_capacity(&mut events), Some(&limit))?;
        let Some(event) = events.first() else {
            return Ok("nothing".to_owned());
        };
        let reported = event.flags;
        Ok(flags(reported.iter_names()))
    }
}

/// Two waits after each thing that happens: a level is told twice, an edge once.
fn by_epoll(scene: &Scene, mode: EventFlags) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    socket.set_nonblocking(true)?;
    let watch = Watch::new(&socket, EventFlags::IN | EventFlags::RDHUP | mode)?;
    let note = |when: &str| -> Result<()> {
        scene.note(&format!("{when}, at once"), watch.wait(BRIEF)?);
        scene.note(&format!("{when}, once more"), watch.wait(BRIEF)?);
        Ok(())
    };
    note("when connected")?;
    conn.say(b"data")?;
    settle(|| rustix::io::ioctl_fionread(&socket).is_ok_and(|len| len == 4));
    note("with data")?;
    scene.note("receive some", heard(recv(&socket, 2)));
    note("with data left")?;
    scene.note("receive the rest", heard(recv(&socket, 8)));
    scene.note("receive nothing", heard(recv(&socket, 8)));
    note("without data")?;
    end(scene, &socket, &conn)?;
    note("after the peer's FIN")?;
    scene.note("receive at the end", heard(recv(&socket, 8)));
    note("after the end was read")
}

fn end(scene: &Scene, socket: &Socket, conn: &Conn<'_>) -> Result<()> {
    scene.note("peer ends", conn.finish()?);
    poll(socket, PollFlags::RDHUP, LIMIT)?;
    Ok(())
}

/// As event loops connect: register, connect, wait for the edge.
fn epoll_connect(scene: &Scene) -> Result<()> {
    let peer = scene.peer()?;
    let socket = scene.tcp()?;
    socket.set_nonblocking(true)?;
    let events = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
    let watch = Watch::new(&socket, events)?;
    scene.note("before connect", watch.wait(BRIEF)?);
    scene.note("before connect, once more", watch.wait(BRIEF)?);
    scene.note("connect", outcome(socket.connect(&scene.live().into())));
    scene.note("the edge", watch.wait(LIMIT)?);
    scene.note("no further edge", watch.wait(BRIEF)?);
    let error = socket.take_error()?;
    scene.note(
        "SO_ERROR",
        error.map_or_else(|| "OK".to_owned(), |error| fault(&error)),
    );
    scene.note("send", outcome(send(&socket, b"?")));
    let (conn, _) = peer.accept(0)?;
    conn.hear(8)?;
    conn.say(b"!")?;
    scene.note("the edge of the answer", watch.wait(LIMIT)?);
    scene.note("receive", heard(recv(&socket, 8)));
    Ok(())
}

/// A client that waits for its server to speak.
fn server_first(scene: &Scene) -> Result<()> {
    let peer = scene.peer()?;
    let socket = scene.tcp()?;
    scene.note("connect", outcome(socket.connect(&scene.live().into())));
    let (conn, _) = peer.accept(0)?;
    scene.note("poll, in silence", poll(&socket, all(), BRIEF)?);
    conn.say(b"220 ready")?;
    scene.note("poll for IN", poll(&socket, PollFlags::IN, LIMIT)?);
    scene.note("receive", heard(recv(&socket, 40)));
    scene.exchange("then", &socket, &conn)
}

/// A thread that waits in `recv` is woken by another's `shutdown`.
fn woken(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    let received = std::thread::scope(|scope| {
        let reader = scope.spawn(|| heard(recv(&socket, 8)));
        std::thread::sleep(Duration::from_millis(50));
        scene.note("shutdown", outcome(socket.shutdown(Shutdown::Read)));
        reader.join()
    });
    let received = received.map_err(|_| anyhow::anyhow!("the reader panicked"))?;
    scene.note("receive", received);
    scene.note("send", outcome(send(&socket, b"still")));
    scene.note("peer receives", conn.hear(8)?);
    Ok(())
}
