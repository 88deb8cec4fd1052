//! The kernel's tables of sockets, which `ss` and its like read.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use socket2::Socket;

use super::way::Way;

/// What such a table says of one socket.
pub(super) struct Row(Vec<String>);

impl Row {
    /// The row of a bound socket, by its port.
    pub(super) fn of(way: Way, protocol: &str, socket: &Socket) -> Result<Self> {
        let own = socket.local_addr()?.as_socket().context("it is bound")?;
        let port = format!(":{:04X}", own.port());
        let six = if way.is_six() { "6" } else { "" };
        let table = std::fs::read_to_string(format!("/proc/self/net/{protocol}{six}"))
            .context("no table of sockets")?;
        let row = table
            .lines()
            .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
            .find(|row| row.get(1).is_some_and(|local| local.ends_with(&port)))
            .context("the socket is not listed")?;
        Ok(Self(row.into_iter().map(str::to_owned).collect()))
    }

    fn column(&self, number: usize) -> Result<&str> {
        let column = self.0.get(number).context("a row is too short")?;
        Ok(column)
    }

    /// The remote end, as the table writes it.
    pub(super) fn remote(&self) -> Result<&str> {
        self.column(2)
    }

    /// Bytes that were sent and not taken.
    pub(super) fn sending(&self) -> Result<u64> {
        let queues = self.column(4)?.split(':').next().context("two queues")?;
        u64::from_str_radix(queues, 16).context("a number")
    }
}

/// An address as such a table writes it: words of the machine's own order.
pub(super) fn listed_as(addr: SocketAddr) -> String {
    let bytes = match addr {
        SocketAddr::V4(addr) => addr.ip().octets().to_vec(),
        SocketAddr::V6(addr) => addr.ip().octets().to_vec(),
    };
    let words = bytes.chunks_exact(4).map(|word| {
        let word = <[u8; 4]>::try_from(word).expect("four bytes each");
        format!("{:08X}", u32::from_ne_bytes(word))
    });
    format!("{}:{:04X}", words.collect::<String>(), addr.port())
}
