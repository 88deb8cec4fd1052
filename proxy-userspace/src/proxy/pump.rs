//! Bytes from one socket to the other, each half on its own.
//!
//! A FIN stays a FIN: the end of one half is passed on and the other half goes
//! on. A RST stays a RST: it ends both halves and resets the other socket. Must
//! never hold a buffer for a connection that has nothing to say: bytes pass
//! through one scratch buffer per worker, and only what the other side does not
//! take at once is kept.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::Shutdown;

use socket2::SockRef;
use tokio::net::TcpStream;

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

/// Moves bytes until both halves have ended, or one side is reset. On an error
/// both sockets are reset.
pub async fn pump(client: TcpStream, upstream: TcpStream, moved: &Moved) -> io::Result<()> {
    let there = half(&client, &upstream, &moved.sent);
    let back = half(&upstream, &client, &moved.received);
    let ended = tokio::try_join!(there, back);
    if ended.is_err() {
        reset_on_close(&client);
        reset_on_close(&upstream);
    }
    ended.map(drop)
}

/// One direction, to its end.
async fn half(from: &TcpStream, to: &TcpStream, moved: &Cell<u64>) -> io::Result<()> {
    loop {
        from.readable().await?;
        match pass(from, to) {
            Ok(Passed::End) => return finish(to),
            Ok(Passed::Some { bytes, rest }) => {
                if let Some(rest) = rest {
                    write_all(to, &rest).await?;
                }
                moved.set(moved.get() + bytes as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

enum Passed {
    /// FIN.
    End,
    /// So many bytes were read; `rest` is what the other side did not take.
    Some { bytes: usize, rest: Option<Vec<u8>> },
}

/// Reads once and writes what it can.
fn pass(from: &TcpStream, to: &TcpStream) -> io::Result<Passed> {
    BUFFER.with_borrow_mut(|buffer| {
        let bytes = from.try_read(buffer)?;
        if bytes == 0 {
            return Ok(Passed::End);
        }
        let written = match to.try_write(&buffer[..bytes]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            other => other?,
        };
        let rest = (written < bytes).then(|| buffer[written..bytes].to_vec());
        Ok(Passed::Some { bytes, rest })
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
