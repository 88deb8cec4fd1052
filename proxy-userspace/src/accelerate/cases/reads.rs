//! The many ways to read.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::{Duration, Instant};

use nix::fcntl::{SpliceFFlags, splice};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, recv};

use super::super::arena::{
    Fault, Pair, Road, expect, expect_end, expect_text, patient, read_some, write,
};
use super::super::pace::{paced, pause};
use crate::kernel::calls;

/// Long enough for a wake-up, short enough for a case.
const MOMENT: Duration = Duration::from_millis(30);

pub(super) fn fionread(road: Road) -> Result<(), Fault> {
    let Pair { near, far } = road.pair()?;
    write(&near, &[7; 1_000])?;
    write(&near, &[7; 500])?;
    pause(MOMENT);
    for (left, take) in [(1_500, 600), (900, 900), (0, 0)] {
        let told = calls::unread(&far)?;
        expect(told == left, || {
            format!("{left} bytes wait, FIONREAD says {told}")
        })?;
        read_some(&far, take)?;
    }
    Ok(())
}

pub(super) fn peek(road: Road) -> Result<(), Fault> {
    let Pair { near, far } = road.pair()?;
    write(&near, b"look twice")?;
    let mut buffer = [0; 32];
    for _ in 0..2 {
        let len = recv(far.as_raw_fd(), &mut buffer, MsgFlags::MSG_PEEK)?;
        expect(buffer[..len] == *b"look twice", || {
            format!("MSG_PEEK saw {len} bytes")
        })?;
    }
    expect_text(&far, "look twice")
}

pub(super) fn waitall(road: Road) -> Result<(), Fault> {
    let Pair { near, far } = road.pair()?;
    let writer = std::thread::spawn(move || -> Result<TcpStream, Fault> {
        for part in [b"one ", b"two ", b"3 4 "] {
            write(&near, part)?;
            pause(MOMENT);
        }
        Ok(near)
    });
    let mut buffer = [0; 12];
    let len = recv(far.as_raw_fd(), &mut buffer, MsgFlags::MSG_WAITALL);
    // It must live until all is read.
    let _near = writer.join();
    let len = len?;
    expect(len == 12, || {
        format!("MSG_WAITALL for 12 bytes returned {len}")
    })
}

pub(super) fn trunc(road: Road) -> Result<(), Fault> {
    let Pair { near, far } = road.pair()?;
    write(&near, b"awaykept")?;
    pause(MOMENT);
    let mut buffer = *b"untouched";
    let len = recv(far.as_raw_fd(), &mut buffer[..4], MsgFlags::MSG_TRUNC)?;
    expect(len == 4 && buffer == *b"untouched", || {
        format!("MSG_TRUNC returned {len} and wrote to the buffer")
    })?;
    expect_text(&far, "kept")
}

pub(super) fn rcvlowat(road: Road) -> Result<(), Fault> {
    let Pair { near, far } = road.pair()?;
    calls::set_number(&far, libc::SOL_SOCKET, libc::SO_RCVLOWAT, 100)?;
    write(&near, &[1; 50])?;
    expect(!readable(&far)?, || {
        "poll woke for 50 bytes although SO_RCVLOWAT is 100".to_owned()
    })?;
    write(&near, &[1; 50])?;
    expect(readable(&far)?, || "poll saw no 100 bytes".to_owned())
}

pub(super) fn rcvtimeo(road: Road) -> Result<(), Fault> {
    let Pair { near, far } = road.pair()?;
    far.set_read_timeout(Some(paced(MOMENT * 2)))?;
    let began = Instant::now();
    let mut byte = [0];
    let answer = io::Read::read(&mut &far, &mut byte);
    let waited = began.elapsed();
    let timed_out = answer.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
    expect(timed_out && waited >= MOMENT, || {
        format!("a read with a limit of {MOMENT:?} came back after {waited:?}")
    })?;
    write(&near, b"now")?;
    expect_text(&far, "now")
}

pub(super) fn wakes(road: Road) -> Result<(), Fault> {
    for edge in [EpollFlags::empty(), EpollFlags::EPOLLET] {
        let Pair { near, far } = road.pair()?;
        far.set_nonblocking(true)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wanted = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | edge;
        epoll.add(&far, EpollEvent::new(wanted, 1))?;
        for turn in 0..50_u8 {
            let writer = std::thread::spawn({
                let near = near.try_clone()?;
                move || write(&near, &[turn; 3])
            });
            let mut read = 0;
            while read < 3 {
                expect(event(&epoll)?, || {
                    "epoll_wait never saw the bytes".to_owned()
                })?;
                let mut buffer = [0; 8];
                match io::Read::read(&mut &far, &mut buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    other => read += other?,
                }
            }
            // Its error, if any, shows at the reader.
            let _written = writer.join();
        }
        drop(near);
        expect(event(&epoll)? && readable(&far)?, || {
            "neither epoll nor poll saw the end".to_owned()
        })?;
        far.set_nonblocking(false)?;
        expect_end(&far)?;
    }
    Ok(())
}

pub(super) fn splice_out(road: Road) -> Result<(), Fault> {
    let Pair { near, far } = road.pair()?;
    // It waits for TCP alone, in vain.
    far.set_read_timeout(Some(paced(MOMENT)))?;
    write(&near, b"through a pipe")?;
    pause(MOMENT);
    let (mut reader, writer) = io::pipe()?;
    let flags = SpliceFFlags::SPLICE_F_NONBLOCK;
    let moved = splice(far.as_fd(), None, writer.as_fd(), None, 100, flags);
    drop(writer);
    let mut text = String::new();
    io::Read::read_to_string(&mut reader, &mut text)?;
    expect(text == "through a pipe", || {
        format!("splice said {moved:?} and moved {text:?}")
    })
}

pub(super) fn before_accept(road: Road) -> Result<(), Fault> {
    let listener = road.listen()?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    pause(MOMENT);
    write(&near, b"early ")?;
    pause(MOMENT);
    let (far, _) = listener.accept()?;
    patient(&far)?;
    expect(readable(&far)?, || {
        "poll does not see what came before accept".to_owned()
    })?;
    write(&near, b"late")?;
    expect_text(&far, "early late")
}

pub(super) fn inq(road: Road) -> Result<(), Fault> {
    /// `TCP_INQ`, and `TCP_CM_INQ` which is the same number.
    const INQ: libc::c_int = 36;
    let Pair { near, far } = road.pair()?;
    calls::set_number(&far, libc::IPPROTO_TCP, INQ, 1)?;
    write(&near, &[1; 100])?;
    pause(MOMENT);
    let mut buffer = [0; 40];
    let (read, told) = calls::receive_with_control(&far, &mut buffer, 0)?;
    expect(
        read == 40 && told == Some((libc::IPPROTO_TCP, INQ, 60)),
        || format!("60 of 100 bytes are left after {read}, TCP_INQ says {told:?}"),
    )
}

/// Whether poll sees the socket readable within a moment.
fn readable(socket: &TcpStream) -> Result<bool, Fault> {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(paced(MOMENT)).map_err(io::Error::other)?;
    Ok(poll(&mut fds, timeout)? == 1)
}

fn event(epoll: &Epoll) -> Result<bool, Fault> {
    let mut events = [EpollEvent::empty()];
    let timeout =
        EpollTimeout::try_from(paced(Duration::from_secs(1))).map_err(io::Error::other)?;
    Ok(epoll.wait(&mut events, timeout)? == 1)
}
