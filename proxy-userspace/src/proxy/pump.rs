//! Bytes from one socket to the other, each half on its own.
//!
//! A FIN stays a FIN: the end of one half is passed on and the other half goes
//! on. A RST stays a RST: it ends both halves and resets the other socket. Must
//! never hold a buffer for a connection that has nothing to say: bytes pass
//! through one scratch buffer per worker, and only what the other side does not
//! take at once is kept.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use socket2::SockRef;
use tokio::io::{AsyncRead as _, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::ReadHalf;

use crate::socket::reset_on_close;

/// Bytes moved by one read. Larger ones fall out of the second-level cache
/// between the read and the write.
const SCRATCH: usize = 128 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// How many bytes went which way; counted while the pump runs.
#[derive(Debug, Default)]
pub struct Moved {
    /// From the client to the endpoint.
    pub sent: Cell<u64>,
    /// From the endpoint to the client.
    pub received: Cell<u64>,
}

/// A socket, and what was read from it before.
#[derive(Debug)]
pub struct End {
    /// The socket.
    pub socket: TcpStream,
    /// What was read: it goes ahead of everything else.
    pub read: Bytes,
}

impl From<TcpStream> for End {
    fn from(socket: TcpStream) -> Self {
        let read = Bytes::new();
        Self { socket, read }
    }
}

/// Moves bytes until both halves have ended, or one side is reset. On an error
/// both sockets are reset.
pub async fn pump(mut client: End, mut upstream: End, moved: &Moved) -> io::Result<()> {
    let ended = both(&mut client, &mut upstream, moved).await;
    if ended.is_err() {
        reset_on_close(&client.socket);
        reset_on_close(&upstream.socket);
    }
    ended
}

/// Both directions. A socket whose half has ended is read no more, so it is
/// watched instead: a reset would be seen only by the next write.
async fn both(client: &mut End, upstream: &mut End, moved: &Moved) -> io::Result<()> {
    let (first_there, first_back) = (
        std::mem::take(&mut client.read),
        std::mem::take(&mut upstream.read),
    );
    let (from_client, to_client) = client.socket.split();
    let (from_upstream, to_upstream) = upstream.socket.split();
    let (to_client, to_upstream): (&TcpStream, &TcpStream) =
        (to_client.as_ref(), to_upstream.as_ref());
    let mut there = pin!(half(first_there, from_client, to_upstream, &moved.sent));
    let mut back = pin!(half(first_back, from_upstream, to_client, &moved.received));
    let (rest, unread) = tokio::select! {
        ended = &mut there => {
            ended?;
            (back, to_client)
        }
        ended = &mut back => {
            ended?;
            (there, to_upstream)
        }
    };
    tokio::select! {
        biased;
        ended = rest => ended,
        error = failed(unread) => Err(error),
    }
}

/// The error of a socket, once it has one.
async fn failed(socket: &TcpStream) -> io::Error {
    match socket.ready(Interest::ERROR).await {
        Ok(_) => io::ErrorKind::ConnectionReset.into(),
        Err(error) => error,
    }
}

/// One direction, to its end.
async fn half(
    first: Bytes,
    mut from: ReadHalf<'_>,
    to: &TcpStream,
    moved: &Cell<u64>,
) -> io::Result<()> {
    if !first.is_empty() {
        write_watching(from.as_ref(), to, &first).await?;
        moved.set(first.len() as u64);
    }
    drop(first);
    loop {
        match poll_fn(|cx| pass(cx, &mut from, to)).await? {
            Passed::End => return finish(to),
            Passed::Some { bytes, rest } => {
                if let Some(rest) = rest {
                    write_watching(from.as_ref(), to, &rest).await?;
                }
                moved.set(moved.get() + bytes as u64);
            }
        }
    }
}

/// Writes all of `bytes` that came from `from`. Nobody reads that meanwhile, so a
/// reset there is watched for.
async fn write_watching(from: &TcpStream, to: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    tokio::select! {
        biased;
        written = write_all(to, bytes) => written,
        error = failed(from) => Err(error),
    }
}

enum Passed {
    /// FIN.
    End,
    /// So many bytes were read; `rest` is what the other side did not take.
    Some { bytes: usize, rest: Option<Vec<u8>> },
}

/// Reads once and writes what it can. A read that does not fill the buffer has
/// emptied the socket, and `poll_read` knows: it does not ask the kernel again
/// before there is more.
fn pass(cx: &mut Context<'_>, from: &mut ReadHalf<'_>, to: &TcpStream) -> Poll<io::Result<Passed>> {
    BUFFER.with_borrow_mut(|buffer| {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(from).poll_read(cx, &mut buffer))?;
        let read = buffer.filled();
        if read.is_empty() {
            return Poll::Ready(Ok(Passed::End));
        }
        let written = match to.try_write(read) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            other => other?,
        };
        Poll::Ready(Ok(Passed::Some {
            bytes: read.len(),
            rest: (written < read.len()).then(|| read[written..].to_vec()),
        }))
    })
}

/// Writes all of `bytes`.
pub async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Passes a FIN on. A socket that is gone already needs none.
fn finish(to: &TcpStream) -> io::Result<()> {
    match SockRef::from(to).shutdown(Shutdown::Write) {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        other => other,
    }
}
