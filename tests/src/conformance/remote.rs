//! A case's end of its peer.

use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Error, Result};

use super::peer::{Answer, Ask};

/// The peer, at this case's command.
pub(super) struct Peer {
    stream: RefCell<BufReader<UnixStream>>,
    accepted: Cell<usize>,
}

impl Peer {
    pub(super) fn at(path: &Path) -> Result<Self> {
        let stream =
            UnixStream::connect(path).with_context(|| format!("no peer on {}", path.display()))?;
        // Longer than any request takes at the other end.
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self {
            stream: RefCell::new(BufReader::new(stream)),
            accepted: Cell::new(0),
        })
    }

    pub(super) fn ask(&self, ask: &Ask) -> Result<Answer> {
        let mut stream = self.stream.borrow_mut();
        let mut text = serde_json::to_string(ask)?;
        text.push('\n');
        stream.get_mut().write_all(text.as_bytes())?;
        let mut line = String::new();
        stream.read_line(&mut line).context("the peer is silent")?;
        let answer: Result<Answer, String> = serde_json::from_str(&line)?;
        answer.map_err(|error| Error::msg(format!("the peer, asked {ask:?}: {error}")))
    }

    pub(super) fn listen(
        &self,
        at: SocketAddr,
        multipath: bool,
        buffer: Option<usize>,
    ) -> Result<()> {
        let ask = Ask::Listen {
            at,
            multipath,
            buffer,
        };
        self.ask(&ask).map(drop)
    }

    /// The next connection of the first or the second port, and where it came from.
    pub(super) fn accept(&self, listener: usize) -> Result<(Conn<'_>, SocketAddr)> {
        let answer = self.ask(&Ask::Accept { listener })?;
        let from = answer.from.context("the peer tells who it accepted")?;
        let number = self.accepted.replace(self.accepted.get() + 1);
        Ok((Conn { peer: self, number }, from))
    }
}

/// The peer's end of a connection. Each call says how it ended there.
#[derive(Clone, Copy)]
pub(super) struct Conn<'a> {
    peer: &'a Peer,
    number: usize,
}

impl Conn<'_> {
    fn ask(&self, ask: &Ask) -> Result<String> {
        self.peer.ask(ask).map(|answer| answer.said)
    }

    pub(super) fn say(&self, data: &[u8]) -> Result<String> {
        self.ask(&Ask::Say {
            conn: self.number,
            data: data.to_vec(),
        })
    }

    pub(super) fn say_much(&self, len: usize) -> Result<String> {
        self.ask(&Ask::SayMuch {
            conn: self.number,
            len,
        })
    }

    pub(super) fn say_urgent(&self, byte: u8) -> Result<String> {
        self.ask(&Ask::SayUrgent {
            conn: self.number,
            byte,
        })
    }

    pub(super) fn hear(&self, max: usize) -> Result<String> {
        self.ask(&Ask::Hear {
            conn: self.number,
            max,
        })
    }

    pub(super) fn hear_urgent(&self) -> Result<String> {
        self.ask(&Ask::HearUrgent { conn: self.number })
    }

    pub(super) fn hear_all(&self, pause_ms: u64) -> Result<String> {
        self.ask(&Ask::HearAll {
            conn: self.number,
            pause_ms,
        })
    }

    pub(super) fn ready(&self) -> Result<String> {
        self.ask(&Ask::Ready { conn: self.number })
    }

    pub(super) fn finish(&self) -> Result<String> {
        self.ask(&Ask::Finish { conn: self.number })
    }

    pub(super) fn close(&self) -> Result<String> {
        self.ask(&Ask::Close {
            conn: self.number,
            abort: false,
        })
    }

    pub(super) fn abort(&self) -> Result<String> {
        self.ask(&Ask::Close {
            conn: self.number,
            abort: true,
        })
    }
}
