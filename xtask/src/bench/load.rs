//! The loads: what is sent through every row.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::meter::Cpu;
use super::peer::{BULK_PORT, ECHO_PORT, HTTP_PORT, OPAQUE_PORT};
use super::result::Measured;
use super::row::Row;
use super::wrk;
use crate::process;

/// How much longer than its time a load may take before it is ended.
const SLACK: Duration = Duration::from_secs(40);

/// One load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Load {
    /// HTTP/1.1 on one keep-alive connection.
    Http1,
    /// HTTP/1.1 on 64 keep-alive connections.
    Http64,
    /// The same, which whoever stands between is to take for bytes.
    Opaque64,
    /// 128 bytes there and back on one TCP connection.
    Exchange,
    /// A TCP connection for each 128 bytes there and back.
    Connect,
    /// Bytes from the client, as many as go through.
    Send,
    /// Bytes to the client, as many as come through.
    Receive,
}

impl Load {
    /// Every load, in the order in which they run.
    pub(super) const ALL: [Self; 7] = [
        Self::Http1,
        Self::Http64,
        Self::Opaque64,
        Self::Exchange,
        Self::Connect,
        Self::Send,
        Self::Receive,
    ];

    /// Its name for people.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1 keep-alive, 1 connection",
            Self::Http64 => "HTTP/1.1 keep-alive, 64 connections",
            Self::Opaque64 => "HTTP/1.1 keep-alive, 64 connections, moved as bytes only",
            Self::Exchange => "TCP request/response, 128 B",
            Self::Connect => "TCP connect + request + close",
            Self::Send => "TCP bulk, sent by the pod",
            Self::Receive => "TCP bulk, received by the pod",
        }
    }

    /// What one operation is.
    pub(super) const fn operation(self) -> &'static str {
        match self {
            Self::Http1 | Self::Http64 | Self::Opaque64 => "a request",
            Self::Exchange => "there and back",
            Self::Connect => "all three",
            Self::Send | Self::Receive => "a MiB",
        }
    }

    /// Its name in JSON.
    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http64 => "http64",
            Self::Opaque64 => "opaque64",
            Self::Exchange => "tcpExchange",
            Self::Connect => "tcpConnect",
            Self::Send => "tcpSend",
            Self::Receive => "tcpReceive",
        }
    }

    /// Whether it is measured in Gbit/s instead of operations.
    pub(super) const fn is_bulk(self) -> bool {
        matches!(self, Self::Send | Self::Receive)
    }

    /// Runs it on a row, and says what it cost.
    pub(super) fn run(self, row: &Row<'_>, time: Duration) -> Result<(Measured, Cpu)> {
        let peer = |what: &str, port: u16| {
            let to: SocketAddr = row.destination(port);
            row.peer(&[what, &to.to_string(), &time.as_secs().to_string()])
        };
        let script = wrk::opaque()?;
        let requests = |port: u16, connections: u32, script: Option<&Path>| {
            let url = format!("http://{}/", row.destination(port));
            let mut command = row.command(Path::new("wrk"))?;
            command.args(wrk::args(&url, connections, time, script));
            anyhow::Ok(command)
        };
        let mut command = match self {
            Self::Http1 => requests(HTTP_PORT, 1, None)?,
            Self::Http64 => requests(HTTP_PORT, 64, None)?,
            Self::Opaque64 => requests(OPAQUE_PORT, 64, Some(script.path()))?,
            Self::Exchange => peer("exchange", ECHO_PORT)?,
            Self::Connect => peer("connect", ECHO_PORT)?,
            Self::Send => peer("send", BULK_PORT)?,
            Self::Receive => peer("receive", BULK_PORT)?,
        };
        let before = Cpu::now(row.proxy())?;
        let said = process::capture(&mut command, time + SLACK)?;
        let used = Cpu::now(row.proxy())?.since(before);
        let measured = match self {
            Self::Http1 | Self::Http64 | Self::Opaque64 => wrk::parse(&said)?,
            _ => serde_json::from_str(&said).context("the peer says something else")?,
        };
        Ok((measured, used))
    }
}
