//! The other end of datagrams: what a case asks the peer for, and how it does it.
//!
//! Must never send of its own accord.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use super::super::call::{outcome, pattern, settle, told};
use super::super::peer::{Answer, Ask};
use super::super::remote::Peer;
use super::message;

/// How long a datagram may be under way.
const TIMEOUT: Duration = Duration::from_secs(3);

/// What a case asks for. Sockets are numbered: two of IPv4, then two of IPv6.
#[derive(Debug, Serialize, Deserialize)]
pub(in super::super) enum AskDatagrams {
    /// A socket on this port and one on the port above, for each of the addresses.
    Bind { at: [SocketAddr; 2] },
    /// The next datagram.
    Hear { socket: usize },
    /// A datagram from one socket to who was heard last on another.
    Say {
        socket: usize,
        to_client_of: usize,
        data: Vec<u8>,
    },
    /// So much of the pattern in datagrams of this size, by one call.
    SaySegments {
        socket: usize,
        len: usize,
        size: u16,
    },
}

/// The peer's sockets of one case.
#[derive(Default)]
pub(in super::super) struct Datagrams {
    sockets: Vec<(Socket, Option<SocketAddr>)>,
}

impl Datagrams {
    pub(in super::super) fn answer(&mut self, ask: AskDatagrams) -> Result<Answer> {
        let said = match ask {
            AskDatagrams::Bind { at } => self.bind(at)?,
            AskDatagrams::Hear { socket } => return self.hear(socket),
            AskDatagrams::Say {
                socket,
                to_client_of,
                data,
            } => {
                let to = self.client(to_client_of)?;
                let sent = self.socket(socket)?.send_to(&data, &to.into());
                outcome(sent.map(drop))
            }
            AskDatagrams::SaySegments { socket, len, size } => {
                let (to, data) = (SockaddrStorage::from(self.client(socket)?), pattern(len));
                let fd = self.socket(socket)?.as_raw_fd();
                let segments = [ControlMessage::UdpGsoSegments(&size)];
                let data = [IoSlice::new(&data)];
                let sent = sendmsg(fd, &data, &segments, MsgFlags::empty(), Some(&to));
                outcome(sent.map(drop))
            }
        };
        Ok(Answer { said, from: None })
    }

    fn bind(&mut self, at: [SocketAddr; 2]) -> Result<String> {
        for first in at {
            for port in [first.port(), first.port() + 1] {
                let at = SocketAddr::new(first.ip(), port);
                let socket =
                    Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
                socket.set_read_timeout(Some(TIMEOUT))?;
                // The sockets of the case before go with its thread, some time soon.
                let mut bound = socket.bind(&at.into());
                settle(|| {
                    if bound.is_err() {
                        bound = socket.bind(&at.into());
                    }
                    bound.is_ok()
                });
                bound.with_context(|| format!("cannot bind {at}"))?;
                self.sockets.push((socket, None));
            }
        }
        Ok("OK".to_owned())
    }

    fn hear(&mut self, socket: usize) -> Result<Answer> {
        let (socket, client) = self.sockets.get_mut(socket).context("no such socket")?;
        let (data, from) = message::receive_from(socket, 1 << 16).context("nobody sends")?;
        *client = Some(from);
        Ok(Answer {
            said: told(&data),
            from: Some(from),
        })
    }

    fn socket(&self, socket: usize) -> Result<&Socket> {
        let socket = self.sockets.get(socket).context("no such socket")?;
        Ok(&socket.0)
    }

    fn client(&self, socket: usize) -> Result<SocketAddr> {
        let socket = self.sockets.get(socket).context("no such socket")?;
        socket.1.context("nobody was heard")
    }
}

/// A case's view of the peer's sockets of one family.
pub(super) struct Far<'a> {
    peer: &'a Peer,
    first: usize,
}

impl<'a> Far<'a> {
    /// Binds all of them; `is_six` chooses the family that is spoken to.
    pub(super) fn bind(peer: &'a Peer, at: [SocketAddr; 2], is_six: bool) -> Result<Self> {
        peer.ask(&Ask::Datagrams(AskDatagrams::Bind { at }))?;
        let first = if is_six { 2 } else { 0 };
        Ok(Self { peer, first })
    }

    /// The next datagram to the first (0) or the second (1), and from where.
    pub(super) fn hear(&self, socket: usize) -> Result<(String, SocketAddr)> {
        let socket = self.first + socket;
        let answer = self
            .peer
            .ask(&Ask::Datagrams(AskDatagrams::Hear { socket }))?;
        Ok((answer.said, answer.from.context("the peer tells who")?))
    }

    /// An answer to who was heard last there.
    pub(super) fn say(&self, socket: usize, data: &[u8]) -> Result<String> {
        self.say_from(socket, socket, data)
    }

    /// From one socket, to who was heard last on the other.
    pub(super) fn say_from(&self, socket: usize, client: usize, data: &[u8]) -> Result<String> {
        let ask = AskDatagrams::Say {
            socket: self.first + socket,
            to_client_of: self.first + client,
            data: data.to_vec(),
        };
        Ok(self.peer.ask(&Ask::Datagrams(ask))?.said)
    }

    /// Many datagrams by one call.
    pub(super) fn say_segments(&self, len: usize, size: u16) -> Result<String> {
        let socket = self.first;
        let ask = AskDatagrams::SaySegments { socket, len, size };
        Ok(self.peer.ask(&Ask::Datagrams(ask))?.said)
    }
}
