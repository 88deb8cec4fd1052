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
use tokio::time::timeout;

use super::detect::{Detected, Detector};

/// How long a client may be silent before its server is dialled.
const GRACE: Duration = Duration::from_millis(10);

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
    dial: impl AsyncFnOnce() -> io::Result<U>,
) -> io::Result<Sniffed<U>> {
    let mut look = Look::default();
    if !learned.contains(service)
        && let Ok(first) = timeout(GRACE, look.until_decided(client)).await
    {
        return first.map(|http| look.end(http, None));
    }
    let upstream = dial().await?;
    tokio::select! {
        biased;
        first = look.until_decided(client) => {
            let http = first?;
            Ok(look.end(http, Some(upstream)))
        }
        spoke = upstream.as_ref().readable() => {
            spoke?;
            learned.learn(service);
            Ok(look.end(false, Some(upstream)))
        }
    }
}

/// The first bytes of a client that must speak HTTP; an error if it speaks
/// anything else.
pub async fn http_prefix(client: &TcpStream) -> io::Result<Bytes> {
    let mut look = Look::default();
    if look.until_decided(client).await? {
        Ok(look.prefix.freeze())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "not HTTP"))
    }
}

/// What was read, and how far the look at it got.
#[derive(Default)]
struct Look {
    prefix: BytesMut,
    detector: Detector,
}

impl Look {
    /// Reads until it is certain whether this is HTTP. Safe to drop at any
    /// point: what was read is kept.
    async fn until_decided(&mut self, client: &TcpStream) -> io::Result<bool> {
        loop {
            client.readable().await?;
            let seen = self.prefix.len();
            self.prefix.reserve(FIRST_READ);
            match client.try_read_buf(&mut self.prefix) {
                // A client that only says FIN speaks no HTTP.
                Ok(0) => return Ok(false),
                Ok(_) => match self.detector.advance(&self.prefix[seen..]) {
                    Detected::Http1 => return Ok(true),
                    Detected::NotHttp => return Ok(false),
                    Detected::NeedMore => {}
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn end<U>(self, http: bool, upstream: Option<U>) -> Sniffed<U> {
        let prefix = self.prefix.freeze();
        if http { Sniffed::Http { prefix } } else { Sniffed::Bytes { prefix, upstream } }
    }
}
