//! Finding out what a connection to an undeclared port speaks.
//!
//! The client's first bytes usually tell. A client that waits for its server
//! to speak first gets its server dialled after a moment, and then whoever
//! speaks first decides. Must never wait for one side alone.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proxy_common::ServiceId;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::detect::{Detected, Detector};

/// How long a client may be silent before its server is dialled.
const GRACE: Duration = Duration::from_millis(10);

/// How long a client may stop within its first word on a port that may be
/// HTTP's or not. A request line is written in one go; whoever stops there
/// most likely waits for its server, which must not stay without the word.
const WORD_GRACE: Duration = Duration::from_millis(200);

/// Room for the first read; most request heads fit.
const FIRST_READ: usize = 2 * 1024;

/// What was found out. `prefix` is what was read so far.
#[derive(Debug)]
pub enum Sniffed<U> {
    /// HTTP/1.x.
    Http {
        /// The client's first bytes.
        prefix: Bytes,
    },
    /// Anything else.
    Bytes {
        /// The client's first bytes, if it was the one who spoke.
        prefix: Bytes,
        /// The server, if it was dialled already.
        upstream: Option<U>,
    },
    /// A request line that did not come to its end in time.
    Slow,
}

/// Services whose servers spoke first before: they are dialled at once.
#[derive(Debug, Default)]
pub struct ServerFirst {
    seen: RefCell<HashSet<ServiceId>>,
}

impl ServerFirst {
    fn contains(&self, service: ServiceId) -> bool {
        self.seen.borrow().contains(&service)
    }

    fn learn(&self, service: ServiceId) {
        self.seen.borrow_mut().insert(service);
    }

    /// Forgets services that are gone.
    pub fn retain(&self, known: impl Fn(ServiceId) -> bool) {
        self.seen.borrow_mut().retain(|service| known(*service));
    }
}

/// Finds out what `client` speaks; `dial` connects to its server.
pub async fn sniff<U: AsRef<TcpStream>>(
    client: &TcpStream,
    service: ServiceId,
    learned: &ServerFirst,
    patience: Duration,
    dial: impl AsyncFnOnce() -> io::Result<U>,
) -> io::Result<Sniffed<U>> {
    let mut look = Look::new(patience, WORD_GRACE.min(patience));
    if !learned.contains(service)
        && let Ok(first) = timeout(GRACE, look.until_decided(client)).await
    {
        return first.map(|spoken| look.end(spoken, None));
    }
    let upstream = dial().await?;
    let mut byte = [0];
    tokio::select! {
        biased;
        first = look.until_decided(client) => {
            let spoken = first?;
            Ok(look.end(spoken, Some(upstream)))
        }
        spoke = upstream.as_ref().peek(&mut byte) => {
            // One that ends without a word tells nothing of the others.
            if matches!(spoke, Ok(1..)) {
                learned.learn(service);
            }
            Ok(look.end(Spoken::Other, Some(upstream)))
        }
    }
}

/// The first bytes of a client that must speak HTTP; an error if it speaks
/// anything else, or too slowly to tell.
pub async fn http_prefix(client: &TcpStream, patience: Duration) -> io::Result<Bytes> {
    let mut look = Look::new(patience, patience);
    match timeout(patience, look.until_decided(client)).await? {
        Ok(Spoken::Http) => Ok(look.prefix.freeze()),
        Ok(Spoken::Other | Spoken::Slow) => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "not HTTP"))
        }
        Err(error) => Err(error),
    }
}

/// What the client's bytes are.
#[derive(Clone, Copy)]
enum Spoken {
    Http,
    Other,
    /// A request line that does not come to its end.
    Slow,
}

/// What was read, and how far the look at it got.
struct Look {
    prefix: BytesMut,
    detector: Detector,
    patience: Duration,
    /// The same for a first word that has not ended.
    word_patience: Duration,
    /// When a beginning came that is unclear.
    unclear: Option<Instant>,
}

impl Look {
    fn new(patience: Duration, word_patience: Duration) -> Self {
        Self {
            prefix: BytesMut::new(),
            detector: Detector::default(),
            patience,
            word_patience,
            unclear: None,
        }
    }

    /// Reads until it is certain what this is. Safe to drop at any point: what
    /// was read is kept.
    async fn until_decided(&mut self, client: &TcpStream) -> io::Result<Spoken> {
        loop {
            match self.deadline() {
                None => client.readable().await?,
                Some(deadline) => match timeout_at(deadline, client.readable()).await {
                    Ok(readable) => readable?,
                    // A method and a space are a request; anything else may be a
                    // protocol whose client now waits for its server.
                    Err(_) if self.has_word() => return Ok(Spoken::Slow),
                    Err(_) => return Ok(Spoken::Other),
                },
            }
            let seen = self.prefix.len();
            self.prefix.reserve(FIRST_READ);
            match client.try_read_buf(&mut self.prefix) {
                // A client that only says FIN speaks no HTTP.
                Ok(0) => return Ok(Spoken::Other),
                Ok(_) => match self.detector.advance(&self.prefix[seen..]) {
                    Detected::Http1 => return Ok(Spoken::Http),
                    Detected::NotHttp => return Ok(Spoken::Other),
                    Detected::NeedMore => {
                        self.unclear.get_or_insert_with(Instant::now);
                    }
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// When an unclear beginning has been unclear for too long.
    fn deadline(&self) -> Option<Instant> {
        let patience = if self.has_word() {
            self.patience
        } else {
            self.word_patience
        };
        self.unclear.map(|since| since + patience)
    }

    fn has_word(&self) -> bool {
        self.prefix.contains(&b' ')
    }

    fn end<U>(self, spoken: Spoken, upstream: Option<U>) -> Sniffed<U> {
        let prefix = self.prefix.freeze();
        match spoken {
            Spoken::Http => Sniffed::Http { prefix },
            Spoken::Other => Sniffed::Bytes { prefix, upstream },
            Spoken::Slow => Sniffed::Slow,
        }
    }
}
