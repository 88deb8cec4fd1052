//! How much may be under way: bursts, slow readers, memory.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::super::arena::{Fault, Pair, Road, expect, numbered, read_some, write};
use super::super::pace::{paced, pause};
use crate::kernel::calls;

/// More than any socket buffer of a default kernel.
const FAR_TOO_MUCH: usize = 48 << 20;

/// How long a writer may need to be stuck.
const STUCK: Duration = Duration::from_millis(200);

pub(super) fn burst(road: Road) -> Result<(), Fault> {
    /// Of four bytes each.
    const WORDS: u32 = 2 << 20;
    let Pair { near, far } = road.pair()?;
    let both = |stream: &TcpStream| -> Result<(), Fault> {
        let bytes = numbered(0, WORDS);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                bytes
                    .chunks(60_001)
                    .try_for_each(|part| write(stream, part))
            });
            let read = read_some(stream, bytes.len());
            let written = writer.join();
            expect(read? == bytes, || "the bytes are not the same".to_owned())?;
            written.map_err(|_| Fault::Wrong("the writer ended by a panic".to_owned()))?
        })
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| both(&far));
        both(&near)?;
        other
            .join()
            .map_err(|_| Fault::Wrong("the other end ended by a panic".to_owned()))?
    })
}

pub(super) fn back_pressure(road: Road) -> Result<(), Fault> {
    let Pair { near, far } = road.pair()?;
    let sent = fill(&near)?;
    expect(sent < FAR_TOO_MUCH, || {
        format!("{} MiB were taken though nobody read", sent >> 20)
    })?;
    // And it goes on when the reader does.
    let read = read_some(&far, sent)?;
    expect(read.len() == sent, || {
        format!("{} of {sent} bytes arrived", read.len())
    })?;
    expect(writable(&near, STUCK)?, || {
        "the writer was never woken".to_owned()
    })
}

pub(super) fn notsent_lowat(road: Road) -> Result<(), Fault> {
    let Pair { near, far: _far } = road.pair()?;
    calls::set_number(&near, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, 16_384)?;
    let sent = fill(&near)?;
    expect(!writable(&near, STUCK / 10)?, || {
        format!("still writable with {} MiB that nobody read", sent >> 20)
    })
}

pub(super) fn memory(road: Road) -> Result<(), Fault> {
    const LEN: usize = 100_000;
    let Pair { near, far } = road.pair()?;
    write(&near, &vec![5; LEN])?;
    pause(STUCK / 10);
    let charged = calls::receive_memory(&far)?;
    expect(charged as usize >= LEN, || {
        format!("{LEN} bytes wait, {charged} are charged to the reader")
    })?;
    read_some(&far, LEN)?;
    let charged = calls::receive_memory(&far)?;
    expect(charged == 0, || {
        format!("{charged} bytes are charged for nothing")
    })
}

pub(super) fn user_timeout(road: Road) -> Result<(), Fault> {
    /// `TCP_USER_TIMEOUT` in milliseconds, and what the probes' timer adds.
    const LIMIT: i32 = 300;
    const PATIENCE: Duration = Duration::from_millis(1_300);
    let Pair { near, far: _far } = road.pair()?;
    calls::set_number(&near, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, LIMIT)?;
    fill(&near)?;
    let until = Instant::now() + paced(PATIENCE);
    while Instant::now() < until {
        match near.take_error()? {
            Some(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(()),
            Some(error) => return Err(error.into()),
            None => pause(STUCK / 10),
        }
    }
    Err(Fault::Wrong(
        "a stuck connection was never given up".to_owned(),
    ))
}

/// Writes until nobody takes any more, or far too much was taken.
fn fill(stream: &TcpStream) -> Result<usize, Fault> {
    let chunk = vec![1; 1 << 20];
    let mut sent = 0;
    stream.set_nonblocking(true)?;
    while sent < FAR_TOO_MUCH {
        match io::Write::write(&mut &*stream, &chunk) {
            Ok(more) => sent += more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Acknowledgements may still be under way.
                if !writable(stream, STUCK / 4)? {
                    break;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    stream.set_nonblocking(false)?;
    Ok(sent)
}

fn writable(stream: &TcpStream, within: Duration) -> Result<bool, Fault> {
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)];
    let timeout = PollTimeout::try_from(paced(within)).map_err(io::Error::other)?;
    Ok(poll(&mut fds, timeout)? == 1)
}
