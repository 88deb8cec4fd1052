//! How connections end: FIN, RST, and what was not read yet.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::super::arena::{
    Fault, Pair, Road, expect, expect_end, expect_reset, expect_text, read_to_end, write,
};
use super::super::pace::pause;
use crate::socket::reset_on_close;

/// What the network takes to bring a FIN or RST over a loopback, many times over.
const SETTLE: Duration = Duration::from_millis(20);

pub(super) fn fin(road: Road) -> Result<(), Fault> {
    let Pair { near, far } = road.pair()?;
    write(&near, b"last words")?;
    drop(near);
    expect_text(&far, "last words")?;
    expect_end(&far)
}

pub(super) fn reset(road: Road) -> Result<(), Fault> {
    let Pair { near, far } = road.pair()?;
    write(&near, b"hello")?;
    expect_text(&far, "hello")?;
    reset_on_close(&near);
    drop(near);
    expect_reset(&far)
}

/// What ends a connection wakes who waits in a read, and is what that read says.
pub(super) fn blocked_read(road: Road) -> Result<(), Fault> {
    let blocked = |far: &TcpStream, wake: &mut dyn FnMut(), expect: fn(&TcpStream) -> _| {
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| expect(far));
            pause(SETTLE);
            wake();
            reader
                .join()
                .map_err(|_| Fault::Wrong("the reader ended by a panic".to_owned()))?
        })
    };
    let Pair { near, far } = road.pair()?;
    reset_on_close(&near);
    let mut near = Some(near);
    blocked(&far, &mut || drop(near.take()), expect_reset)?;
    let Pair { near: _near, far } = road.pair()?;
    let mut shut = || {
        // If it fails, the read does not come back in order either.
        let _shut = far.shutdown(Shutdown::Read);
    };
    blocked(&far, &mut shut, expect_end)
}

pub(super) fn reset_told_once(road: Road) -> Result<(), Fault> {
    let Pair { near, far } = road.pair()?;
    reset_on_close(&near);
    drop(near);
    pause(SETTLE);
    for kind in [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe] {
        let written = io::Write::write(&mut &far, b"anybody?");
        let said = written.as_ref().map_err(io::Error::kind);
        expect(said == Err(kind), || {
            format!("{kind:?} was due, the write said {written:?}")
        })?;
    }
    expect_end(&far)
}

pub(super) fn reset_unread(road: Road) -> Result<(), Fault> {
    let Pair { near, far } = road.pair()?;
    write(&near, b"never read")?;
    pause(SETTLE);
    drop(far);
    expect_reset(&near)
}

pub(super) fn unread_after_fin(road: Road) -> Result<(), Fault> {
    let Pair { near, far } = road.pair()?;
    write(&near, b"kept")?;
    near.shutdown(Shutdown::Write)?;
    pause(SETTLE);
    // The reader has seen the FIN, and sends its own before it reads.
    far.shutdown(Shutdown::Write)?;
    pause(SETTLE);
    expect_text(&far, "kept")?;
    expect_end(&far)
}

pub(super) fn unread_after_shutdown(road: Road) -> Result<(), Fault> {
    let Pair { near, far } = road.pair()?;
    write(&far, b"kept")?;
    near.shutdown(Shutdown::Write)?;
    pause(SETTLE);
    drop(far);
    pause(SETTLE);
    expect_text(&near, "kept")?;
    expect_end(&near)
}

pub(super) fn unread_after_reset(road: Road) -> Result<(), Fault> {
    let Pair { near, far } = road.pair()?;
    write(&near, b"kept")?;
    pause(SETTLE);
    reset_on_close(&near);
    drop(near);
    pause(SETTLE);
    expect_text(&far, "kept")?;
    expect_reset(&far)
}

pub(super) fn half_close(road: Road) -> Result<(), Fault> {
    for near_first in [true, false] {
        let Pair { near, far } = road.pair()?;
        let (first, second) = if near_first { (near, far) } else { (far, near) };
        write(&first, b"question")?;
        first.shutdown(Shutdown::Write)?;
        let asked = read_to_end(&second)?;
        expect(asked == b"question", || {
            format!("{asked:?} came before the FIN")
        })?;
        // The reader is not there yet when the answer is.
        write(&second, b"late ")?;
        write(&second, b"answer")?;
        drop(second);
        pause(SETTLE);
        let answer = read_to_end(&first)?;
        expect(answer == b"late answer", || {
            format!(
                "of \"late answer\" {:?} arrived",
                String::from_utf8_lossy(&answer)
            )
        })?;
    }
    Ok(())
}

pub(super) fn write_after_close(road: Road) -> Result<(), Fault> {
    let Pair { near, far } = road.pair()?;
    drop(far);
    for _ in 0..100 {
        if write(&near, b"anybody?").is_err() {
            return Ok(());
        }
        pause(SETTLE / 10);
    }
    Err(Fault::Wrong(
        "writes to a closed peer went on and on".to_owned(),
    ))
}
