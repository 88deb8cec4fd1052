//! The clients: one thread, blocking sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{CHUNK, CLIENT_SENDS, MESSAGE, SERVER_SENDS};
use crate::bench::result::{Measured, percentile_us};

/// No single read or write may take longer: a hang is a result, not a wait.
pub(super) const STUCK: Duration = Duration::from_secs(10);
/// How long opening all connections that are to be held may take.
const OPENING: Duration = Duration::from_mins(1);
/// Latencies that are kept; more would only come from a run that is too long.
const SAMPLES_MAX: usize = 8 << 20;
const MIB: f64 = 1_048_576.0;

fn open(to: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, STUCK)
        .with_context(|| format!("cannot connect to {to}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STUCK))?;
    stream.set_write_timeout(Some(STUCK))?;
    Ok(stream)
}

fn ask(stream: &mut TcpStream, message: &mut [u8; MESSAGE]) -> Result<()> {
    stream.write_all(message)?;
    stream.read_exact(message)?;
    Ok(())
}

/// Calls `operation` for `time` and times each call.
pub(super) fn repeat(
    time: Duration,
    mut operation: impl FnMut() -> Result<()>,
) -> Result<Measured> {
    let mut samples: Vec<u32> = Vec::with_capacity(1 << 20);
    let begun = Instant::now();
    let mut last = begun;
    while last.duration_since(begun) < time && samples.len() < SAMPLES_MAX {
        operation()?;
        let now = Instant::now();
        let took = now.duration_since(last).as_nanos();
        samples.push(u32::try_from(took).unwrap_or(u32::MAX));
        last = now;
    }
    samples.sort_unstable();
    Ok(Measured {
        operations: f64::from(u32::try_from(samples.len())?),
        seconds: last.duration_since(begun).as_secs_f64(),
        p50_us: percentile_us(&samples, 50),
        p99_us: percentile_us(&samples, 99),
    })
}

/// One connection, one request after the other.
pub(super) fn exchange(to: SocketAddr, time: Duration) -> Result<Measured> {
    let mut stream = open(to)?;
    let mut message = [7; MESSAGE];
    ask(&mut stream, &mut message)?;
    repeat(time, || ask(&mut stream, &mut message))
}

/// A connection for each request.
pub(super) fn connect(to: SocketAddr, time: Duration) -> Result<Measured> {
    let mut message = [7; MESSAGE];
    repeat(time, || ask(&mut open(to)?, &mut message))
}

/// Sends for `time`; done when the server has taken it all.
pub(super) fn send(to: SocketAddr, time: Duration) -> Result<Measured> {
    let mut stream = open(to)?;
    let chunk = vec![7; CHUNK];
    let begun = Instant::now();
    stream.write_all(&[CLIENT_SENDS])?;
    while begun.elapsed() < time {
        stream.write_all(&chunk)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let taken = answer(&mut stream)?;
    Ok(bulk(u64::from_be_bytes(taken), begun.elapsed()))
}

/// What a server says once it has read to the end. An accelerated socket that said
/// FIN may be told EAGAIN by a `read()` that blocks (`rounds-half-close` of the
/// self-test), which is no reason to lose a whole run: the limit on a hang holds.
fn answer(stream: &mut TcpStream) -> Result<[u8; 8]> {
    let mut said = [0; 8];
    let mut known = 0;
    let begun = Instant::now();
    while known < said.len() {
        match stream.read(&mut said[known..]) {
            Ok(0) => bail!("the server closed without an answer"),
            Ok(read) => known += read,
            Err(error) if error.kind() == ErrorKind::WouldBlock && begun.elapsed() < STUCK => {}
            Err(error) => return Err(error).context("no answer to what was sent"),
        }
    }
    Ok(said)
}

/// Receives for `time`.
pub(super) fn receive(to: SocketAddr, time: Duration) -> Result<Measured> {
    let mut stream = open(to)?;
    let mut chunk = vec![0; CHUNK];
    let begun = Instant::now();
    stream.write_all(&[SERVER_SENDS])?;
    let mut bytes = 0;
    while begun.elapsed() < time {
        match stream.read(&mut chunk)? {
            0 => bail!("the server stopped sending"),
            count => bytes += count as u64,
        }
    }
    Ok(bulk(bytes, begun.elapsed()))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a run moves far less than 2^52 bytes"
)]
fn bulk(bytes: u64, time: Duration) -> Measured {
    Measured {
        operations: bytes as f64 / MIB,
        seconds: time.as_secs_f64(),
        p50_us: 0.0,
        p99_us: 0.0,
    }
}

/// Opens `connections`, sends a request on each, says `ready`, and holds them
/// until stdin ends.
pub(super) fn hold(to: SocketAddr, connections: usize) -> Result<()> {
    let request = format!("GET / HTTP/1.1\r\nhost: {to}\r\n\r\n");
    let mut held = Vec::with_capacity(connections);
    let begun = Instant::now();
    for number in 1..=connections {
        if begun.elapsed() > OPENING {
            bail!("only {number} connections in {} s", OPENING.as_secs());
        }
        let mut stream = open(to).with_context(|| format!("connection {number}"))?;
        stream.write_all(request.as_bytes())?;
        let answered = read_reply(&mut stream);
        answered.with_context(|| format!("request on connection {number}"))?;
        held.push(stream);
    }
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Reads one reply of the server: its body is `ok`.
fn read_reply(stream: &mut TcpStream) -> Result<()> {
    let mut reply = Vec::new();
    let mut buffer = [0; 1024];
    while !reply.ends_with(b"\r\n\r\nok") {
        let count = stream.read(&mut buffer)?;
        if count == 0 || reply.len() > 4096 {
            bail!(
                "no reply of the server: {}",
                String::from_utf8_lossy(&reply)
            );
        }
        reply.extend_from_slice(&buffer[..count]);
    }
    Ok(())
}
