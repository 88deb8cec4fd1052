//! How calls and bytes are put into words, the same at both ends.

use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rustix::event::{PollFd, PollFlags, Timespec};
use sha2::{Digest, Sha256};
use socket2::Socket;

/// Longer data is told by its length and a hash.
const TOLD_IN_FULL: usize = 40;

/// How a call that returns nothing ended.
pub(super) fn outcome<E: Into<io::Error>>(result: Result<(), E>) -> String {
    match result {
        Ok(()) => "OK".to_owned(),
        Err(error) => fault(&error.into()),
    }
}

/// How a call that returns a number ended.
pub(super) fn number<N: ToString, E: Into<io::Error>>(result: Result<N, E>) -> String {
    match result {
        Ok(number) => number.to_string(),
        Err(error) => fault(&error.into()),
    }
}

/// The name of an error.
pub(super) fn fault(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => format!("{:?}", Errno::from_raw(errno)),
        None => error.to_string(),
    }
}

/// What was received: text where it is short, else its length and a hash.
pub(super) fn told(data: &[u8]) -> String {
    if data.len() <= TOLD_IN_FULL {
        return format!("{:?}", String::from_utf8_lossy(data));
    }
    let hash = Sha256::digest(data);
    format!(
        "{} bytes {:02x}{:02x}{:02x}",
        data.len(),
        hash[0],
        hash[1],
        hash[2]
    )
}

/// What one `recv` gave.
pub(super) fn heard(result: io::Result<Vec<u8>>) -> String {
    match result {
        Ok(data) if data.is_empty() => "FIN".to_owned(),
        Ok(data) => told(&data),
        Err(error) => fault(&error),
    }
}

/// All that comes until the end, and how that was. `pause` after each read
/// makes a slow reader.
pub(super) fn hear_all(socket: &Socket, pause: Duration) -> String {
    let mut all = Vec::new();
    loop {
        match recv(socket, 64 << 10) {
            Ok(data) if data.is_empty() => return format!("{} FIN", told(&all)),
            Ok(data) => all.extend(data),
            Err(error) => return format!("{} {}", told(&all), fault(&error)),
        }
        std::thread::sleep(pause);
    }
}

/// One `recv` of at most `max` bytes.
pub(super) fn recv(mut socket: &Socket, max: usize) -> io::Result<Vec<u8>> {
    let mut data = vec![0; max];
    let len = io::Read::read(&mut socket, &mut data)?;
    data.truncate(len);
    Ok(data)
}

/// Writes all of it.
pub(super) fn send(mut socket: &Socket, data: &[u8]) -> io::Result<()> {
    io::Write::write_all(&mut socket, data)
}

/// Bytes of which none can be lost, doubled or swapped unseen.
pub(super) fn pattern(len: usize) -> Vec<u8> {
    let mut word = 1_u32;
    let next = |_| {
        word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        word.to_be_bytes()[0]
    };
    (0..len).map(next).collect()
}

/// Waits for `events` of a socket; what the kernel says of it then.
pub(super) fn poll(socket: &Socket, events: PollFlags, limit: Duration) -> io::Result<String> {
    let mut fds = [PollFd::new(socket, events)];
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    rustix::event::poll(&mut fds, Some(&limit))?;
    Ok(flags(fds[0].revents().iter_names()))
}

/// Until the reset that is on its way is there, and whole: the kernel sets the
/// error a moment before it ends the socket. What `poll` says of `events` then.
pub(super) fn poll_reset(
    socket: &Socket,
    events: PollFlags,
    limit: Duration,
) -> io::Result<String> {
    poll(socket, events, limit)?;
    let now = || poll(socket, events, Duration::ZERO);
    settle(|| now().is_ok_and(|names| names.contains("HUP")));
    now()
}

/// Names of flags, or that there are none.
pub(super) fn flags<T>(set: impl Iterator<Item = (&'static str, T)>) -> String {
    let names: Vec<&str> = set.map(|(name, _)| name).collect();
    if names.is_empty() {
        return "nothing".to_owned();
    }
    names.join(" ")
}

/// Waits until `holds`, at most a second: what the application would see a
/// moment later. What it waited for is noted by the caller, true or not.
pub(super) fn settle(mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(1);
    while !holds() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The urgent byte, if there is one now.
pub(super) fn urgent(socket: &Socket) -> io::Result<Vec<u8>> {
    let mut byte = [0];
    let flags = rustix::net::RecvFlags::OOB | rustix::net::RecvFlags::DONTWAIT;
    let (len, _) = rustix::net::recv(socket, &mut byte[..], flags)?;
    Ok(byte[..len].to_vec())
}
