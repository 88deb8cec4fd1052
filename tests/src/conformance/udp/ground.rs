//! What a case of UDP stands on: one way to name addresses, the peer's sockets,
//! and words for what a datagram says.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use nix::errno::Errno;
use nix::sys::socket::MsgFlags;
use rustix::event::PollFlags;
use socket2::{Protocol, Socket, Type};

use super::super::call::{fault, number, outcome, poll, told};
use super::super::scene::{Scene, bounded};
use super::super::way::Way;
use super::far::Far;
use super::message::{self, Note, Received};

/// How long something that is expected may take.
pub(super) const LIMIT: Duration = Duration::from_secs(3);
/// For what is expected not to happen.
pub(super) const BRIEF: Duration = Duration::from_millis(50);
const ROOM: usize = 1 << 16;

/// One case at work.
pub(in super::super) struct Ground<'a> {
    pub(super) scene: &'a Scene,
    pub(super) far: Far<'a>,
}

impl<'a> Ground<'a> {
    pub(in super::super) fn new(scene: &'a Scene) -> Result<Self> {
        let far = Far::bind(scene.remote(), scene.peer_at_both(), scene.way == Way::V6)?;
        Ok(Self { scene, far })
    }

    /// A socket of the way's family.
    pub(super) fn socket(&self) -> Result<Socket> {
        bounded(self.scene.way.socket(Type::DGRAM, Protocol::UDP)?)
    }

    /// One that is connected to the live port.
    pub(super) fn connected(&self) -> Result<Socket> {
        let socket = self.socket()?;
        socket.connect(&self.live().into())?;
        Ok(socket)
    }

    pub(super) fn live(&self) -> SocketAddr {
        self.scene.live()
    }

    pub(super) fn second(&self) -> SocketAddr {
        self.scene.second()
    }

    pub(super) fn closed(&self) -> SocketAddr {
        self.scene.closed()
    }

    /// The pod's own address with a port.
    pub(super) fn own(&self, port: u16) -> SocketAddr {
        self.scene.own(port)
    }

    pub(super) fn note(&self, what: &str, seen: impl Into<String>) {
        self.scene.note(what, seen);
    }

    /// Notes what a call that returns a length said.
    pub(super) fn sent(&self, what: &str, sent: io::Result<usize>) {
        self.note(what, number(sent));
    }

    /// Notes the next datagram at the peer, and from whom.
    pub(super) fn far_hears(&self, what: &str, socket: usize) -> Result<SocketAddr> {
        let (said, from) = self.far.hear(socket)?;
        self.note(
            what,
            format!("{said} from {}", self.scene.part_at_peer(from)),
        );
        Ok(from)
    }

    /// Notes one `recvmsg`.
    pub(super) fn receives(&self, what: &str, socket: &Socket) {
        self.receives_with(what, socket, ROOM, MsgFlags::empty());
    }

    /// The same, with room for `max` bytes and with flags.
    pub(super) fn receives_with(&self, what: &str, socket: &Socket, max: usize, flags: MsgFlags) {
        let received = message::receive(socket, max, flags);
        let seen = received.map_or_else(|error| fault(&error), |received| self.told(&received));
        self.note(what, seen);
    }

    /// Notes one `recvfrom`.
    pub(super) fn receives_from(&self, what: &str, socket: &Socket) {
        let seen = match message::receive_from(socket, ROOM) {
            Ok((data, from)) => format!("{} from {}", told(&data), self.scene.part(from)),
            Err(error) => fault(&error),
        };
        self.note(what, seen);
    }

    /// Notes that nothing comes.
    pub(super) fn silence(&self, what: &str, socket: &Socket) -> Result<()> {
        self.note(what, poll(socket, PollFlags::IN, BRIEF)?);
        Ok(())
    }

    /// Notes a datagram there and one back over a connected socket.
    pub(super) fn exchange(&self, when: &str, socket: &Socket, whom: usize) -> Result<()> {
        self.sent(&format!("{when}, send"), socket.send(b"ping"));
        self.far_hears(&format!("{when}, peer receives"), whom)?;
        let said = self.far.say(whom, b"pong")?;
        self.note(&format!("{when}, peer sends"), said);
        self.receives(&format!("{when}, receive"), socket);
        Ok(())
    }

    /// Notes how a connect went, and both names then.
    pub(super) fn connects(&self, when: &str, socket: &Socket, to: SocketAddr) {
        self.note(
            &format!("connect {when}"),
            outcome(socket.connect(&to.into())),
        );
        self.scene.names(when, socket);
    }

    fn told(&self, received: &Received) -> String {
        let from = received.from.map(|from| self.scene.part(from));
        let from = from.unwrap_or_else(|| "nobody".to_owned());
        let mut text = format!("{} from {from}", told(&received.data));
        for (name, _) in received.flags.iter_names() {
            text = format!("{text}, {name}");
        }
        for note in &received.notes {
            text = format!("{text}, {}", self.told_note(note));
        }
        text
    }

    fn told_note(&self, note: &Note) -> String {
        let host = |ip: IpAddr| self.scene.host(ip);
        match note {
            Note::Arrived(to, answer_from, device) => {
                let answer_from = answer_from.map(|ip| format!(", answer from {}", host(ip)));
                format!(
                    "to {}{} on {}",
                    host(*to),
                    answer_from.unwrap_or_default(),
                    device_name(*device)
                )
            }
            Note::Segments(size) => format!("segments of {size}"),
            Note::Fault(fault, teller) => {
                let errno = Errno::from_raw(fault.ee_errno.cast_signed());
                let (origin, kind, code) = (fault.ee_origin, fault.ee_type, fault.ee_code);
                let teller = teller.map_or_else(|| "nobody".to_owned(), host);
                format!("{errno:?} of origin {origin}, type {kind}, code {code}, told by {teller}")
            }
        }
    }
}

fn device_name(index: u32) -> &'static str {
    let is = |name| nix::net::if_::if_nametoindex(name) == Ok(index);
    ["eth0", "eth1", "lo"]
        .into_iter()
        .find(|name| is(*name))
        .unwrap_or("no device")
}
