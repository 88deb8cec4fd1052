//! The client of datagrams: one thread, a blocking socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::MESSAGE;
use super::client::{STUCK, repeat};
use crate::bench::result::Measured;

fn open(to: SocketAddr) -> Result<UdpSocket> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.set_read_timeout(Some(STUCK))?;
    Ok(socket)
}

/// A datagram there and one back on a socket that is connected.
pub(super) fn connected(to: SocketAddr, time: Duration) -> Result<Measured> {
    let socket = open(to)?;
    let mut message = [7; MESSAGE];
    socket
        .connect(to)
        .with_context(|| format!("cannot connect to {to}"))?;
    repeat(time, || {
        socket.send(&message)?;
        let count = socket.recv(&mut message)?;
        ensure!(count == MESSAGE, "an answer of {count} bytes");
        Ok(())
    })
}

/// The same on one that is not: each datagram names its destination, and the
/// answer has to come from there.
pub(super) fn unconnected(to: SocketAddr, time: Duration) -> Result<Measured> {
    let socket = open(to)?;
    let mut message = [7; MESSAGE];
    repeat(time, || {
        socket
            .send_to(&message, to)
            .with_context(|| format!("cannot send to {to}"))?;
        let (count, from) = socket.recv_from(&mut message)?;
        ensure!(
            count == MESSAGE && from == to,
            "an answer of {count} bytes from {from}"
        );
        Ok(())
    })
}

/// A socket, a connect, and its end.
pub(super) fn connects(to: SocketAddr, time: Duration) -> Result<Measured> {
    repeat(time, || {
        let socket = open(to)?;
        socket
            .connect(to)
            .with_context(|| format!("cannot connect to {to}"))
    })
}
