//! Many connections at once, each with an answer of its own.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::LocalSet;

use super::http;
use super::proto::{Dial, Fault, StormReply};
use crate::patience::patiently;

/// How long one connection may take.
const LIMIT: Duration = Duration::from_secs(20);
/// The longest answer that is read.
const ANSWER_MAX: u64 = 4096;

/// Dials all, then talks on all; the replies in the order of the dials.
pub(super) fn run(dials: &[Dial]) -> Result<Vec<StormReply>, Fault> {
    let local = LocalSet::new();
    http::runtime()?.block_on(local.run_until(async {
        let tasks: Vec<_> = dials
            .iter()
            .cloned()
            .map(|dial| tokio::task::spawn_local(one(dial)))
            .collect();
        let mut replies = Vec::with_capacity(tasks.len());
        for task in tasks {
            replies.push(task.await.map_err(Fault::other)?);
        }
        Ok(replies)
    }))
}

async fn one(dial: Dial) -> StormReply {
    let mut local = None;
    let answer = tokio::time::timeout(patiently(LIMIT), talk(&dial, &mut local)).await;
    let answer = answer.unwrap_or_else(|_| Err(Fault::other("no answer in time")));
    StormReply { answer, local }
}

async fn talk(dial: &Dial, local: &mut Option<SocketAddr>) -> Result<String, Fault> {
    let (socket, any) = if dial.to.is_ipv4() {
        (TcpSocket::new_v4()?, IpAddr::from([0; 4]))
    } else {
        (TcpSocket::new_v6()?, IpAddr::from([0_u16; 8]))
    };
    if let Some(port) = dial.from_port {
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(any, port))?;
    }
    let mut stream = socket.connect(dial.to).await?;
    *local = Some(stream.local_addr()?);
    stream.write_all(dial.send.as_bytes()).await?;
    let mut answer = Vec::new();
    (&mut stream)
        .take(ANSWER_MAX)
        .read_to_end(&mut answer)
        .await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
