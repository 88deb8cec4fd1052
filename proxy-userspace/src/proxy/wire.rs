//! Sockets as hyper gets them.
//!
//! hyper hands over a message as several pieces. For small ones a copy into one
//! piece and a plain `send` costs the kernel less than a gathered write. And hyper
//! gives up an exchange when it cannot write, though the endpoint may have answered
//! before it hung up. Must never make a broken answer look whole.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What is copied together at most: a head and a small body.
const GATHER_MAX: usize = 2_048;

thread_local! {
    /// Where small messages are put together: one place for all sockets of a worker.
    static GATHERED: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(GATHER_MAX));
}

/// A socket whose small gathered writes are plain ones.
#[derive(Debug)]
pub struct Wire(pub TcpStream);

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let socket = Pin::new(&mut self.0);
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if total > GATHER_MAX {
            return socket.poll_write_vectored(cx, bufs);
        }
        GATHERED.with_borrow_mut(|gathered| {
            gathered.clear();
            for buf in bufs {
                gathered.extend_from_slice(buf);
            }
            socket.poll_write(cx, gathered)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The socket of an endpoint. From the first write on that meets nobody, what is
/// written goes nowhere: what the endpoint said before is read first, and then its end.
///
/// A request of which nothing could be written is another matter: it may be sent
/// again, and what the endpoint said before is no answer to it.
#[derive(Debug)]
pub struct Uplink {
    wire: Wire,
    unheard: Unheard,
    gone: Option<Gone>,
}

/// Whether nothing of the present request was written yet.
#[derive(Clone, Debug)]
pub struct Unheard(Arc<AtomicBool>);

impl Unheard {
    /// A request begins.
    pub fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How an endpoint was found to listen no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gone {
    /// It had ended its half in order before.
    Done,
    /// It reset the connection. The kernel says so once, and to a reader no more.
    Reset,
}

impl Uplink {
    /// The socket of an endpoint, and who says when a request begins.
    pub fn new(stream: TcpStream) -> (Self, Unheard) {
        let unheard = Unheard(Arc::new(AtomicBool::new(true)));
        let uplink = Self {
            wire: Wire(stream),
            unheard: unheard.clone(),
            gone: None,
        };
        (uplink, unheard)
    }

    /// The socket.
    pub fn into_socket(self) -> TcpStream {
        self.wire.0
    }

    fn write_with(
        &mut self,
        len: usize,
        write: impl FnOnce(Pin<&mut Wire>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if self.gone.is_some() {
            return Poll::Ready(Ok(len));
        }
        let written = write(Pin::new(&mut self.wire));
        let error = match &written {
            Poll::Pending => return written,
            Poll::Ready(Ok(_)) => {
                self.unheard.0.store(false, Ordering::Relaxed);
                return written;
            }
            Poll::Ready(Err(error)) => error.kind(),
        };
        self.gone = match error {
            _ if self.unheard.0.load(Ordering::Relaxed) => None,
            io::ErrorKind::BrokenPipe => Some(Gone::Done),
            io::ErrorKind::ConnectionReset => Some(Gone::Reset),
            _ => None,
        };
        match self.gone {
            Some(_) => Poll::Ready(Ok(len)),
            None => written,
        }
    }
}

impl AsyncRead for Uplink {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.wire).poll_read(cx, buf))?;
        if buf.filled().len() == before && self.gone == Some(Gone::Reset) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Uplink {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write_with(buf.len(), |wire| wire.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len = bufs.iter().map(|buf| buf.len()).sum();
        self.write_with(len, |wire| wire.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gone.is_some() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}
