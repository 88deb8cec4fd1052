//! The pod's end: reads requests, makes the calls, answers.

use std::io::{BufRead, Write};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Uid, setresuid};
use serde::Serialize;
use serde_json::Value;

use super::load::Running;
use super::proto::{Fault, Op};
use super::sockets::Sockets;
use super::{datagram, hammer, http, load, serve, storm};

/// Answers requests on standard input until it ends.
pub fn run() -> Result<()> {
    let mut agent = State {
        sockets: Sockets::default(),
        load: None,
    };
    let mut answers = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line.context("cannot read requests")?;
        let answer = match serde_json::from_str(&line) {
            Ok(op) => agent.answer(op),
            Err(error) => Err(Fault::other(format!("no such request: {error}"))),
        };
        serde_json::to_writer(&mut answers, &answer).context("cannot write an answer")?;
        answers
            .write_all(b"\n")
            .and_then(|()| answers.flush())
            .context("cannot write an answer")?;
    }
    Ok(())
}

struct State {
    sockets: Sockets,
    load: Option<Running>,
}

impl State {
    fn answer(&mut self, op: Op) -> Result<Value, Fault> {
        let sockets = &mut self.sockets;
        match op {
            Op::Socket { kind } => value(sockets.open(kind)?),
            Op::Set { sock, option } => value(sockets.get(sock)?.set(&option)?),
            Op::Bind { sock, addr } => value(sockets.get(sock)?.bind(addr)?),
            Op::Connect { sock, addr } => value(sockets.get(sock)?.connect(addr)?),
            Op::FastOpen { sock, addr, data } => value(sockets.get(sock)?.fast_open(addr, &data)?),
            Op::Udp { addr, data } => value(datagram::exchange(addr, &data)?),
            Op::Unconnect { sock } => value(sockets.get(sock)?.unconnect()?),
            Op::Listen { sock, backlog } => value(sockets.get(sock)?.listen(backlog)?),
            Op::Accept { sock } => value(sockets.accept(sock)?),
            Op::LocalAddr { sock } => value(sockets.get(sock)?.local_addr()?),
            Op::PeerAddr { sock } => value(sockets.get(sock)?.peer_addr()?),
            Op::Send { sock, data } => value(sockets.get(sock)?.send(&data)?),
            Op::Recv { sock, max } => value(sockets.get(sock)?.recv(max)?),
            Op::SendTo { sock, addr, data } => value(sockets.get(sock)?.send_to(addr, &data)?),
            Op::SendMany { sock, addrs, data } => {
                value(sockets.get(sock)?.send_many(&addrs, &data)?)
            }
            Op::RecvFrom { sock } => value(sockets.get(sock)?.recv_from()?),
            Op::RecvToEnd { sock } => value(sockets.get(sock)?.recv_to_end()?),
            Op::ShutdownWrite { sock } => value(sockets.get(sock)?.shutdown_write()?),
            Op::Close { sock } => {
                sockets.close(sock);
                value(())
            }
            Op::Follow { sock, seed } => value(sockets.get(sock)?.follow(seed)),
            Op::Bulk {
                sock,
                seed,
                send,
                receive,
            } => value(sockets.get(sock)?.bulk(seed, send, receive)?),
            Op::Storm { dials } => value(storm::run(&dials)?),
            Op::Flood { addr, count } => value(sockets.flood(addr, count)?),
            Op::Hammer { addr, count } => value(hammer::run(addr, count)?),
            Op::CloseFlood => {
                sockets.close_flood();
                value(())
            }
            Op::Http {
                addr,
                requests,
                timeout_ms,
            } => value(http::exchange(addr, &requests, timeout_ms)?),
            Op::Load(load) => value(load::run(&load)?),
            Op::StartLoad(load) => {
                self.load = Some(Running::start(load));
                value(())
            }
            Op::StopLoad => {
                let load = self
                    .load
                    .take()
                    .ok_or_else(|| Fault::other("no load was begun"))?;
                value(load.stop()?)
            }
            Op::Serve { addr, what } => value(serve::start(addr, what)?),
            Op::UnshareNet => {
                value(unshare(CloneFlags::CLONE_NEWNET).map_err(std::io::Error::from)?)
            }
            Op::ConnectUnix { path, uid } => value(connect_unix_as(&path, uid)?),
        }
    }
}

fn value(answer: impl Serialize) -> Result<Value, Fault> {
    serde_json::to_value(answer).map_err(Fault::other)
}

/// Becomes the user for good, then connects.
fn connect_unix_as(path: &str, uid: u32) -> Result<(), Fault> {
    let uid = Uid::from_raw(uid);
    setresuid(uid, uid, uid).map_err(std::io::Error::from)?;
    UnixStream::connect(path)?;
    Ok(())
}
