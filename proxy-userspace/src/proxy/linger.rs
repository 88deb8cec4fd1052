//! The end of a connection whose client may still be sending: what it sends is read
//! and thrown away for a while. A socket that is closed over unread bytes resets its
//! peer, and the reset can overtake the answer (RFC 9112 section 9.6).
//!
//! Must never keep a connection for longer than [`LINGER`].

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a client may take to notice that it has its answer.
const LINGER: Duration = Duration::from_secs(5);

/// Read at a time.
const SCRATCH: usize = 8 * 1024;

/// Reads in a row: others are waiting too.
const READS: usize = 16;

/// A wait for the client's own end.
#[derive(Debug)]
pub struct Linger {
    /// Whether a client that has nothing under way may have more to send.
    expects: bool,
    /// Told apart from `timer`: a timer is not asked while there is always more.
    until: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Linger {
    /// Begins; weir's half must have been ended. `expects`: the client is known to
    /// have more to send.
    pub fn start(expects: bool) -> Self {
        let until = Instant::now() + LINGER;
        let timer = Box::pin(sleep_until(until));
        Self {
            expects,
            until,
            timer,
        }
    }

    /// Ready when the client has ended too, or time is up.
    pub fn poll(&mut self, socket: &mut TcpStream, cx: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.until {
            return Poll::Ready(());
        }
        let mut scratch = [0; SCRATCH];
        for _ in 0..READS {
            let mut buf = ReadBuf::new(&mut scratch);
            let read = Pin::new(&mut *socket).poll_read(cx, &mut buf);
            if read.is_pending() && self.expects {
                ready!(self.timer.as_mut().poll(cx));
            }
            if read.is_pending() || buf.filled().is_empty() {
                return Poll::Ready(());
            }
            self.expects = true;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
