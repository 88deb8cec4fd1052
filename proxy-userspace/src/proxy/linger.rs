//! The end of a connection whose client may still be sending: what it sends is read
//! and thrown away for a while. A socket that is closed over unread bytes resets its
//! peer, and the reset can overtake the answer (RFC 9112 section 9.6).
//!
//! Must never keep a connection for longer than [`LINGER`].

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// How long a client may take to notice that it has its answer.
const LINGER: Duration = Duration::from_secs(5);

/// Read at a time.
const SCRATCH: usize = 8 * 1024;

/// A wait for the client's own end.
#[derive(Debug)]
pub struct Linger(Pin<Box<Sleep>>);

impl Linger {
    /// Begins; weir's half must have been ended.
    pub fn start() -> Self {
        Self(Box::pin(sleep(LINGER)))
    }

    /// Ready when the client has ended too, or time is up.
    pub fn poll(&mut self, socket: &mut TcpStream, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; SCRATCH];
        loop {
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut *socket).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.0.as_mut().poll(cx),
            }
        }
    }
}
