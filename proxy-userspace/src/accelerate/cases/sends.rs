//! The many ways to send.

use std::io::{self, Seek as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::{Duration, Instant};

use nix::fcntl::{SpliceFFlags, splice};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::sendfile::sendfile64;
use nix::sys::socket::{MsgFlags, recv, send};

use super::super::arena::{Fault, PATIENCE, Pair, Road, expect, expect_text, read_some, write};
use super::super::pace::{paced, pause};
use crate::kernel::calls;

const MOMENT: Duration = Duration::from_millis(30);

pub(super) fn sendfile(road: Road) -> Result<(), Fault> {
    let Pair { near, far } = road.pair()?;
    let mut file = std::fs::File::from(memfd_create("weir", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(b"from a file ")?;
    file.rewind()?;
    write(&near, b"written ")?;
    sendfile64(near.as_fd(), file.as_fd(), None, 12)?;
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(b"from a pipe ")?;
    splice(
        reader.as_fd(),
        None,
        near.as_fd(),
        None,
        12,
        SpliceFFlags::empty(),
    )?;
    write(&near, b"written again")?;
    expect_text(&far, "written from a file from a pipe written again")
}

pub(super) fn oob(road: Road) -> Result<(), Fault> {
    let Pair { near, far } = road.pair()?;
    write(&near, b"ab")?;
    send(near.as_raw_fd(), b"!", MsgFlags::MSG_OOB)?;
    write(&near, b"cd")?;
    pause(MOMENT);
    let mut urgent = [0];
    let got = recv(far.as_raw_fd(), &mut urgent, MsgFlags::MSG_OOB);
    expect(got == Ok(1) && urgent == *b"!", || {
        format!("reading the urgent byte: {got:?}")
    })?;
    expect_text(&far, "ab")?;
    expect_text(&far, "cd")
}

pub(super) fn zerocopy(road: Road) -> Result<(), Fault> {
    /// `SO_EE_ORIGIN_ZEROCOPY` is said in the control message; that there is one is enough.
    const ATTEMPTS: u32 = 50;
    let Pair { near, far } = road.pair()?;
    calls::set_number(&near, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1)?;
    let page = vec![9; 16 * 1024];
    let flags = MsgFlags::from_bits_retain(libc::MSG_ZEROCOPY);
    let sent = send(near.as_raw_fd(), &page, flags)?;
    let read = read_some(&far, sent)?;
    expect(read == page[..sent], || {
        "the bytes are not the same".to_owned()
    })?;
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    for _ in 0..ATTEMPTS {
        if let Ok((_, Some(_))) = calls::receive_with_control(&near, &mut [0; 8], flags) {
            return Ok(());
        }
        pause(MOMENT / 10);
    }
    Err(Fault::Wrong(
        "no completion came for MSG_ZEROCOPY".to_owned(),
    ))
}

pub(super) fn outq(road: Road) -> Result<(), Fault> {
    let Pair { near, far } = road.pair()?;
    write(&near, &[3; 3_000])?;
    let until = Instant::now() + paced(PATIENCE);
    while calls::unacknowledged(&near)? != 0 {
        expect(Instant::now() < until, || {
            "SIOCOUTQ never fell to 0".to_owned()
        })?;
        pause(MOMENT / 10);
    }
    expect(read_some(&far, 3_000)?.len() == 3_000, || {
        "bytes are missing".to_owned()
    })
}

pub(super) fn more(road: Road) -> Result<(), Fault> {
    let Pair { near, far } = road.pair()?;
    for _ in 0..3 {
        send(
            near.as_raw_fd(),
            b"more ",
            MsgFlags::from_bits_retain(libc::MSG_MORE),
        )?;
    }
    write(&near, b"done")?;
    expect_text(&far, "more more more done")
}
