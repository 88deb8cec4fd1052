//! The client's side of an HTTP connection: a socket that knows in which part
//! of a message it is.
//!
//! hyper parses; this looks on, for three things that hyper does not offer: a
//! time-out for request heads that does not also end idle keep-alive
//! connections; telling a request with two lengths from one with one (hyper
//! drops `Content-Length` beside `Transfer-Encoding`, and weir refuses such
//! requests instead: RFC 9112 section 6.1); and noticing a client that is gone
//! while its answer takes long (hyper reads nothing meanwhile, since a client may
//! close its half and wait). Must never change a byte.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::answer::HEAD_TIMEOUT;
use super::framing::{Framing, Scan};
use super::linger::Linger;
use super::wire::Wire;
use crate::socket::reset_on_close;

/// After so many looks, while one answer is awaited, the socket is asked: every ten
/// seconds.
const LOOKS: u32 = 20;

/// Nobody asks a socket for anything that was taken away.
const HELD: &str = "a socket is held until it is taken";

/// What the socket and the request handler know of each other. Both live on
/// one thread; the lock is never contended and only there because hyper wants a
/// socket that could be sent elsewhere.
#[derive(Debug, Default)]
pub struct Head {
    state: Mutex<State>,
    /// The socket is to be asked whether the client is still there.
    ask: AtomicBool,
}

#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, not one state"
)]
struct State {
    /// When the first byte of a head came that is not whole yet.
    began: Option<Instant>,
    /// Between a whole head and the end of its answer.
    answering: bool,
    /// Between a whole head and the end of its body.
    uploading: bool,
    /// Its body is not read to its end.
    unwanted: bool,
    /// Bytes behind the present head came with it: the next head may have begun.
    pipelined: bool,
    expired: bool,
    broken: bool,
    /// Looks at the connection since the present answer began, in a row.
    looks: u32,
    scan: Scan,
    waker: Option<Waker>,
}

impl Head {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// hyper has a whole head, and a body follows or not. Returns what the look
    /// at its bytes found.
    pub fn complete(&self, body: bool) -> Framing {
        let mut state = self.state();
        state.began = None;
        state.answering = true;
        state.looks = 0;
        state.uploading = body;
        state.unwanted = false;
        let scan = std::mem::take(&mut state.scan);
        // A head that was not looked at came in the wake of another one, and so
        // may the next.
        state.pipelined = (!scan.seen && state.pipelined) || (!body && scan.rest);
        scan.framing()
    }

    /// The answer is out.
    pub fn answered(&self) {
        let mut state = self.state();
        state.answering = false;
        if state.pipelined && state.began.is_none() {
            state.began = Some(Instant::now());
        }
    }

    /// The body is in, or nobody wants the rest of it. What comes after both is
    /// the next head.
    pub fn uploaded(&self, whole: bool) {
        let mut state = self.state();
        state.uploading = false;
        state.unwanted = !whole;
    }

    /// How to wait for a client's own end, if it may be sending something.
    fn linger(&self) -> Option<Linger> {
        let state = self.state();
        let uploads = state.uploading || state.unwanted;
        (uploads || state.began.is_some()).then(|| Linger::start(uploads))
    }

    /// The answer broke off, and its end is all that would tell the client.
    pub fn broke(&self) {
        self.state().broken = true;
    }

    /// Ends the connection if its head has taken longer than `limit` by `now`.
    /// Returns whether it did.
    pub fn expire(&self, now: Instant, limit: Duration) -> bool {
        let mut state = self.state();
        let slow = state
            .began
            .is_some_and(|began| now.duration_since(began) > limit);
        let expires = slow && !state.expired;
        if expires {
            state.expired = true;
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
        }
        expires
    }

    /// Has the socket asked whether the client is still there, now and then while
    /// an answer takes long: to be called twice a second.
    pub fn look(&self) {
        let mut state = self.state();
        if !state.answering {
            return;
        }
        state.looks += 1;
        if state.looks.is_multiple_of(LOOKS)
            && let Some(waker) = &state.waker
        {
            self.ask.store(true, Ordering::Relaxed);
            waker.wake_by_ref();
        }
    }

    fn is_expired(&self) -> bool {
        self.state().expired
    }

    /// Remembers whom to wake when the head expires.
    fn wait(&self, waker: &Waker) {
        match &mut self.state().waker {
            Some(old) => old.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    fn read(&self, bytes: &[u8], waker: &Waker) {
        let mut state = self.state();
        // A head may be there at once, and then nobody has waited for it.
        state.waker.get_or_insert_with(|| waker.clone());
        if state.answering || state.uploading || bytes.is_empty() {
            return;
        }
        if state.began.is_none() {
            state.began = Some(Instant::now());
        }
        state.scan.advance(bytes);
    }
}

/// The socket, with the bytes that were read from it before hyper got it.
#[derive(Debug)]
pub struct Client {
    prefix: Bytes,
    /// There until an upgrade takes it away.
    wire: Option<Wire>,
    head: Arc<Head>,
    linger: Option<Linger>,
}

impl Client {
    /// `prefix` is what the protocol detection read.
    pub fn new(stream: TcpStream, prefix: Bytes, head: Arc<Head>) -> Self {
        Self {
            prefix,
            wire: Some(Wire(stream)),
            head,
            linger: None,
        }
    }

    /// The socket, and what of its prefix hyper did not ask for.
    pub fn into_parts(mut self) -> (TcpStream, Bytes) {
        let wire = self.wire.take().expect(HELD);
        (wire.0, std::mem::take(&mut self.prefix))
    }

    fn wire(&mut self) -> &mut Wire {
        self.wire.as_mut().expect(HELD)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(wire) = &self.wire
            && self.head.state().broken
        {
            reset_on_close(&wire.0);
        }
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.prefix.is_empty() {
            let taken = this.prefix.len().min(buf.remaining());
            buf.put_slice(&this.prefix[..taken]);
            this.head.read(&this.prefix[..taken], cx.waker());
            this.prefix.advance(taken);
            return Poll::Ready(Ok(()));
        }
        if this.head.is_expired() {
            // Best effort: a client that reads nothing either gets only the close.
            let _unsent = this.wire().0.try_write(HEAD_TIMEOUT);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(this.wire()).poll_read(cx, buf);
        if polled.is_pending() {
            this.head.wait(cx.waker());
        }
        ready!(polled)?;
        this.head.read(&buf.filled()[before..], cx.waker());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.wire()).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.wire()).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        // As that of any wire.
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper comes by here whenever the connection is woken.
        if self.head.ask.load(Ordering::Relaxed) {
            self.head.ask.store(false, Ordering::Relaxed);
            if let Some(error) = self.wire().0.take_error()? {
                return Poll::Ready(Err(error));
            }
        }
        Pin::new(self.wire()).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(this.wire()).poll_shutdown(cx))?;
            this.linger = this.head.linger();
        }
        match (&mut this.linger, &mut this.wire) {
            (Some(linger), Some(wire)) => linger.poll(&mut wire.0, cx).map(Ok),
            _ => Poll::Ready(Ok(())),
        }
    }
}
