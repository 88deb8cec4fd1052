//! The other end: a process in another pod that does what a case asks for.
//!
//! One thread for each case, with sockets of its own that go when the case
//! does. Must never do anything of its own accord.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::PollFlags;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use super::call::{hear_all, heard, outcome, pattern, poll, recv, send, settle, urgent};
use super::udp::far::{AskDatagrams, Datagrams};

const TIMEOUT: Duration = Duration::from_secs(6);
/// Where the receive buffer is chosen: what a case says is taken at once.
const SEND_BUFFER: usize = 200_000;

/// What a case asks for. Each request is answered once, in order.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Listen on this port and the one above.
    Listen {
        at: SocketAddr,
        multipath: bool,
        buffer: Option<usize>,
    },
    /// The next connection of a listener; connections are numbered in this order.
    Accept { listener: usize },
    /// Send this.
    Say { conn: usize, data: Vec<u8> },
    /// Send so much of the pattern.
    SayMuch { conn: usize, len: usize },
    /// Send one byte as urgent data.
    SayUrgent { conn: usize, byte: u8 },
    /// One `recv`.
    Hear { conn: usize, max: usize },
    /// The urgent byte.
    HearUrgent { conn: usize },
    /// Everything to the end, with a pause after each read.
    HearAll { conn: usize, pause_ms: u64 },
    /// Whether there is something to read, or the end.
    Ready { conn: usize },
    /// FIN.
    Finish { conn: usize },
    /// Close; with RST if `abort`.
    Close { conn: usize, abort: bool },
    /// Something about datagrams.
    Datagrams(AskDatagrams),
}

/// What came of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Answer {
    /// In words, as [`super::call`] puts it.
    pub(super) said: String,
    /// Who was accepted.
    pub(super) from: Option<SocketAddr>,
}

/// Serves on a unix socket for ever.
pub(super) fn serve(socket: &Path) -> Result<()> {
    let listener = UnixListener::bind(socket)
        .with_context(|| format!("cannot listen on {}", socket.display()))?;
    for stream in listener.incoming() {
        let stream = stream.context("cannot accept a case")?;
        std::thread::spawn(move || {
            if let Err(error) = session(&stream) {
                eprintln!("a case ends: {error:#}");
            }
        });
    }
    Ok(())
}

fn session(stream: &UnixStream) -> Result<()> {
    let mut end = End::default();
    for line in BufReader::new(stream).lines() {
        let ask = serde_json::from_str(&line?)?;
        let answer = end.answer(ask).map_err(|error| format!("{error:#}"));
        let mut text = serde_json::to_string(&answer)?;
        text.push('\n');
        let mut stream = stream;
        stream.write_all(text.as_bytes())?;
    }
    Ok(())
}

/// The sockets of one case.
#[derive(Default)]
struct End {
    listeners: Vec<Socket>,
    conns: Vec<Option<Socket>>,
    datagrams: Datagrams,
}

impl End {
    fn answer(&mut self, ask: Ask) -> Result<Answer> {
        let said = match ask {
            Ask::Listen {
                at,
                multipath,
                buffer,
            } => self.listen(at, multipath, buffer)?,
            Ask::Accept { listener } => return self.accept(listener),
            Ask::Datagrams(ask) => return self.datagrams.answer(ask),
            Ask::Say { conn, data } => outcome(send(self.conn(conn)?, &data)),
            Ask::SayMuch { conn, len } => outcome(send(self.conn(conn)?, &pattern(len))),
            Ask::SayUrgent { conn, byte } => {
                outcome(self.conn(conn)?.send_out_of_band(&[byte]).map(drop))
            }
            Ask::Hear { conn, max } => heard(recv(self.conn(conn)?, max)),
            Ask::HearUrgent { conn } => take_urgent(self.conn(conn)?),
            Ask::HearAll { conn, pause_ms } => {
                hear_all(self.conn(conn)?, Duration::from_millis(pause_ms))
            }
            Ask::Ready { conn } => {
                let both = PollFlags::IN | PollFlags::RDHUP;
                poll(self.conn(conn)?, both, Duration::ZERO)?
            }
            Ask::Finish { conn } => outcome(self.conn(conn)?.shutdown(std::net::Shutdown::Write)),
            Ask::Close { conn, abort } => {
                if abort {
                    self.conn(conn)?.set_linger(Some(Duration::ZERO))?;
                }
                self.conns[conn] = None;
                "OK".to_owned()
            }
        };
        Ok(Answer { said, from: None })
    }

    fn listen(&mut self, at: SocketAddr, multipath: bool, buffer: Option<usize>) -> Result<String> {
        let protocol = if multipath {
            Protocol::MPTCP
        } else {
            Protocol::TCP
        };
        for port in [at.port(), at.port() + 1] {
            let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(protocol))?;
            socket.set_reuse_address(true)?;
            if let Some(len) = buffer {
                socket.set_recv_buffer_size(len)?;
                socket.set_send_buffer_size(SEND_BUFFER)?;
            }
            socket.set_read_timeout(Some(TIMEOUT))?;
            let at = SocketAddr::new(at.ip(), port).into();
            // The sockets of the case before go with its thread, some time soon.
            let mut bound = socket.bind(&at);
            settle(|| {
                if bound.is_err() {
                    bound = socket.bind(&at);
                }
                bound.is_ok()
            });
            bound?;
            socket.listen(16)?;
            self.listeners.push(socket);
        }
        Ok("OK".to_owned())
    }

    fn accept(&mut self, listener: usize) -> Result<Answer> {
        let listener = self.listeners.get(listener).context("nobody listens")?;
        let (socket, from) = listener.accept().context("nobody connects")?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.set_write_timeout(Some(TIMEOUT))?;
        self.conns.push(Some(socket));
        Ok(Answer {
            said: String::new(),
            from: from.as_socket(),
        })
    }

    fn conn(&self, conn: usize) -> Result<&Socket> {
        self.conns
            .get(conn)
            .and_then(Option::as_ref)
            .context("that connection is closed")
    }
}

/// The urgent byte, if one comes in time: there is no call that waits for it,
/// and it can be taken once.
fn take_urgent(socket: &Socket) -> String {
    let mut taken = urgent(socket);
    settle(|| {
        if taken.is_err() {
            taken = urgent(socket);
        }
        taken.is_ok()
    });
    heard(taken)
}
