//! Bytes there and back by every call that moves them.

use std::fs::File;
use std::io::{Seek, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::PollFlags;
use rustix::net::{RecvFlags, SendFlags};
use rustix::pipe::SpliceFlags;
use socket2::Socket;

use super::Case;
use super::call::{
    fault, hear_all, heard, number, outcome, pattern, poll, recv, send, settle, told,
};
use super::scene::Scene;
use super::socket_options::set_low_water;
use super::table::Row;

pub(super) const CASES: &[Case] = &[
    Case::new("transfer/single-bytes", single_bytes),
    Case::new("transfer/single-word", single_word),
    Case::new("transfer/both-ways", both_ways),
    Case::new("transfer/full", full),
    Case::new("transfer/sendfile", sendfile),
    Case::new("transfer/splice", splice),
    Case::new("transfer/peek", peek),
    Case::new("transfer/wait-all", wait_all),
    Case::new("transfer/low-water", low_water),
    Case::new("transfer/more", more),
    Case::new("transfer/queue", queue),
    Case::new("transfer/urgent-sent", urgent_sent),
    Case::new("transfer/urgent-received", urgent_received),
];

const LIMIT: Duration = Duration::from_secs(3);
const MUCH: usize = 2 << 20;

/// One byte a call, none held back.
fn single_bytes(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    socket.set_tcp_nodelay(true)?;
    for byte in pattern(500) {
        send(&socket, &[byte])?;
    }
    scene.note(
        "shutdown",
        outcome(socket.shutdown(std::net::Shutdown::Write)),
    );
    scene.note("peer receives", conn.hear_all(0)?);
    conn.say_much(500)?;
    conn.close()?;
    let mut all = Vec::new();
    loop {
        match recv(&socket, 1)? {
            byte if byte.is_empty() => break,
            byte => all.extend(byte),
        }
    }
    scene.note("receive", told(&all));
    Ok(())
}

/// A first word that could be the beginning of many a protocol, then silence.
fn single_word(scene: &Scene) -> Result<()> {
    let peer = scene.peer()?;
    let socket = scene.tcp()?;
    socket.connect(&scene.live().into())?;
    scene.note("send", outcome(send(&socket, b"GET")));
    let (conn, _) = peer.accept(0)?;
    scene.note("peer receives", conn.hear(8)?);
    scene.exchange("then", &socket, &conn)
}

/// More than any buffer on the way, both ways at once.
fn both_ways(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    let (sent, received) = std::thread::scope(|scope| -> Result<_> {
        let reader = scope.spawn(|| hear_all(&socket, Duration::ZERO));
        let writer = scope.spawn(|| {
            let sent = send(&socket, &pattern(MUCH));
            outcome(sent.and_then(|()| socket.shutdown(std::net::Shutdown::Write)))
        });
        scene.note("peer sends", conn.say_much(MUCH)?);
        scene.note("peer ends", conn.finish()?);
        scene.note("peer receives", conn.hear_all(0)?);
        let panicked = |_| anyhow::anyhow!("a thread panicked");
        Ok((
            writer.join().map_err(panicked)?,
            reader.join().map_err(panicked)?,
        ))
    })?;
    scene.note("send", sent);
    scene.note("receive", received);
    Ok(())
}

/// A peer that does not read makes a nonblocking `send` stop, and nothing is lost.
fn full(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    socket.set_nonblocking(true)?;
    let chunk = vec![7; 64 << 10];
    let mut sent = 0_usize;
    let stopped = loop {
        match socket.send(&chunk) {
            Ok(len) => sent += len,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                // What is on the way may make room once more.
                if poll(&socket, PollFlags::OUT, Duration::from_millis(300))? == "nothing" {
                    break fault(&error);
                }
            }
            Err(error) => break fault(&error),
        }
    };
    scene.note("send stops with", stopped);
    socket.shutdown(std::net::Shutdown::Write)?;
    let received = conn.hear_all(0)?;
    let complete = received.starts_with(&format!("{sent} bytes ")) && received.ends_with(" FIN");
    scene.note("peer receives all", complete.to_string());
    Ok(())
}

/// From a file.
fn sendfile(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    let mut file = scratch()?;
    file.write_all(&pattern(100_000))?;
    file.rewind()?;
    let mut left = 100_000;
    while left > 0 {
        let sent = rustix::fs::sendfile(&socket, &file, None, left).context("sendfile")?;
        left = left.checked_sub(sent).context("more than there is")?;
    }
    socket.shutdown(std::net::Shutdown::Write)?;
    scene.note("peer receives", conn.hear_all(0)?);
    Ok(())
}

/// A file without a name.
fn scratch() -> Result<File> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    Ok(rustix::fs::memfd_create("conformance", flags)?.into())
}

/// From a pipe into the socket, and from the socket into a pipe.
fn splice(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    let (reader, writer) = rustix::pipe::pipe()?;
    let flags = SpliceFlags::empty();
    File::from(writer.try_clone()?).write_all(&pattern(30_000))?;
    let out = rustix::pipe::splice(&reader, None, &socket, None, 30_000, flags);
    scene.note("splice out", number(out));
    let mut heard = 0;
    while heard < 30_000 {
        let piece = conn.hear(30_000 - heard)?;
        let len = piece
            .split(' ')
            .next()
            .and_then(|len| len.parse::<usize>().ok());
        heard += len.with_context(|| format!("the peer got {piece}"))?;
    }
    conn.say_much(1000)?;
    settle(|| rustix::io::ioctl_fionread(&socket).is_ok_and(|len| len == 1000));
    let back = rustix::pipe::splice(&socket, None, &writer, None, 1000, flags);
    scene.note("splice in", number(back));
    conn.finish()?;
    poll(&socket, PollFlags::RDHUP, LIMIT)?;
    let end = rustix::pipe::splice(&socket, None, &writer, None, 1000, flags);
    scene.note("splice in at the end", number(end));
    Ok(())
}

/// Looking without taking, and how much there is.
fn peek(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    let waiting = || number(rustix::io::ioctl_fionread(&socket));
    scene.note("FIONREAD at first", waiting());
    conn.say(b"look")?;
    scene.note("poll for IN", poll(&socket, PollFlags::IN, LIMIT)?);
    scene.note("FIONREAD", waiting());
    for time in ["once", "twice"] {
        let seen = flagged(&socket, 40, RecvFlags::PEEK);
        scene.note(&format!("MSG_PEEK {time}"), seen);
    }
    scene.note("MSG_TRUNC", flagged(&socket, 2, RecvFlags::TRUNC));
    scene.note("FIONREAD then", waiting());
    scene.note("receive", heard(recv(&socket, 40)));
    scene.note("FIONREAD at last", waiting());
    let empty = flagged(&socket, 40, RecvFlags::PEEK | RecvFlags::DONTWAIT);
    scene.note("MSG_PEEK of nothing", empty);
    Ok(())
}

/// `MSG_WAITALL` waits over segments, but not over the end.
fn wait_all(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    let (first, last) = std::thread::scope(|scope| -> Result<_> {
        let reader = scope.spawn(|| {
            let first = flagged(&socket, 6, RecvFlags::WAITALL);
            (first, flagged(&socket, 6, RecvFlags::WAITALL))
        });
        for piece in [b"ab", b"cd", b"ef", b"gh"] {
            conn.say(piece)?;
            std::thread::sleep(Duration::from_millis(20));
        }
        conn.finish()?;
        reader
            .join()
            .map_err(|_| anyhow::anyhow!("the reader panicked"))
    })?;
    scene.note("MSG_WAITALL", first);
    scene.note("MSG_WAITALL at the end", last);
    Ok(())
}

/// `SO_RCVLOWAT`: fewer bytes do not make the socket readable.
fn low_water(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    scene.note(
        "SO_RCVLOWAT",
        outcome(set_low_water(&socket, 6).map_err(std::io::Error::from)),
    );
    conn.say(b"few")?;
    settle(|| rustix::io::ioctl_fionread(&socket).is_ok_and(|len| len == 3));
    let brief = Duration::from_millis(20);
    scene.note("poll, with few", poll(&socket, PollFlags::IN, brief)?);
    conn.say(b"enough")?;
    scene.note("poll, with enough", poll(&socket, PollFlags::IN, LIMIT)?);
    settle(|| rustix::io::ioctl_fionread(&socket).is_ok_and(|len| len == 9));
    scene.note("receive", heard(recv(&socket, 40)));
    Ok(())
}

/// `MSG_MORE` and `TCP_CORK` hold back, and let go.
fn more(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    rustix::net::send(&socket, b"hel", SendFlags::MORE)?;
    rustix::net::send(&socket, b"lo", SendFlags::empty())?;
    scene.note("peer receives", conn.hear(40)?);
    rustix::net::sockopt::set_tcp_cork(&socket, true)?;
    send(&socket, b"corked ")?;
    send(&socket, b"up")?;
    rustix::net::sockopt::set_tcp_cork(&socket, false)?;
    scene.note("peer receives when uncorked", conn.hear(40)?);
    Ok(())
}

/// `SIOCOUTQ`, which `/proc/net/tcp` shows too: what the other end has not taken.
fn queue(scene: &Scene) -> Result<()> {
    let _listening = scene.peer_with(false, Some(4096))?;
    let (socket, conn) = scene.connected()?;
    let data = pattern(20_000);
    send(&socket, &data)?;
    let queued = || Row::of(scene.way, "tcp", &socket)?.sending();
    settle(|| queued().is_ok_and(|queued| queued == 0));
    let queued = queued()?;
    scene.note("queued", if queued == 0 { "nothing" } else { "some" });
    socket.shutdown(std::net::Shutdown::Write)?;
    scene.note("peer receives", conn.hear_all(0)?);
    Ok(())
}

/// Urgent data from the application to the peer.
fn urgent_sent(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    send(&socket, b"before")?;
    scene.note("MSG_OOB", number(socket.send_out_of_band(b"!")));
    scene.note("peer's urgent byte", conn.hear_urgent()?);
    send(&socket, b"after")?;
    socket.shutdown(std::net::Shutdown::Write)?;
    scene.note("peer receives", conn.hear_all(0)?);
    Ok(())
}

/// Urgent data from the peer to the application.
fn urgent_received(scene: &Scene) -> Result<()> {
    let (socket, conn) = scene.connected()?;
    conn.say(b"before")?;
    scene.note("peer sends MSG_OOB", conn.say_urgent(b'!')?);
    let brief = Duration::from_millis(500);
    let pressing = poll(&socket, PollFlags::PRI, brief)?;
    scene.note("poll for PRI", pressing);
    scene.note("MSG_OOB", heard(super::call::urgent(&socket)));
    conn.say(b"after")?;
    conn.finish()?;
    scene.note("receive", hear_all(&socket, Duration::ZERO));
    Ok(())
}

/// One `recv` with flags.
fn flagged(socket: &Socket, max: usize, flags: RecvFlags) -> String {
    let mut data = vec![0; max];
    let received = rustix::net::recv(socket, &mut data[..], flags);
    let received = received.map(|(len, _)| data[..len].to_vec());
    heard(received.map_err(std::io::Error::from))
}
