//! The test's end of an agent.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

use super::proto::{
    BulkReport, Dial, Ending, Fault, Followed, HttpReply, HttpRequest, Kind, Load, LoadReport, Op,
    Service, SockId, SockOption, StormReply,
};
use crate::binaries::tool_binary;
use crate::process::Place;
use crate::sweep::making;

/// A process in a pod, at the test's command. Ends on drop.
pub struct Agent {
    pipes: Mutex<Pipes>,
    child: Child,
}

struct Pipes {
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Agent {
    pub(crate) fn start(place: &Place) -> Result<Self> {
        let mut child = place
            .command(&tool_binary()?)?
            .arg("agent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("an agent does not start")?;
        let requests = child.stdin.take();
        let answers = child
            .stdout
            .take()
            .context("the agent's output is a pipe")?;
        let pipes = Mutex::new(Pipes {
            requests,
            answers: BufReader::new(answers),
        });
        Ok(Self { pipes, child })
    }

    fn call<T: DeserializeOwned>(&self, op: &Op) -> Result<T, Fault> {
        let mut pipes = self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut line = serde_json::to_vec(op).map_err(Fault::other)?;
        line.push(b'\n');
        let requests = pipes
            .requests
            .as_mut()
            .ok_or_else(|| Fault::other("the agent has ended"))?;
        requests.write_all(&line)?;
        requests.flush()?;
        let mut answer = String::new();
        pipes.answers.read_line(&mut answer)?;
        let answer: Result<serde_json::Value, Fault> = serde_json::from_str(&answer)
            .map_err(|error| Fault::other(format!("the agent says {answer:?}: {error}")))?;
        serde_json::from_value(answer?).map_err(Fault::other)
    }

    /// An IPv4 TCP socket.
    pub fn tcp4(&self) -> Result<Sock<'_>, Fault> {
        self.socket(Kind::Tcp4)
    }

    /// An IPv6 TCP socket that takes mapped addresses too, as dual-stack runtimes open it.
    pub fn tcp6(&self) -> Result<Sock<'_>, Fault> {
        self.socket(Kind::Tcp6)
    }

    /// An IPv4 UDP socket.
    pub fn udp4(&self) -> Result<Sock<'_>, Fault> {
        self.socket(Kind::Udp4)
    }

    /// An IPv6 UDP socket that takes mapped addresses too.
    pub fn udp6(&self) -> Result<Sock<'_>, Fault> {
        self.socket(Kind::Udp6)
    }

    /// A socket of this kind.
    pub fn socket(&self, kind: Kind) -> Result<Sock<'_>, Fault> {
        let id = self.call(&Op::Socket { kind })?;
        Ok(Sock { agent: self, id })
    }

    /// A TCP socket of the family of `addr`.
    fn tcp(&self, addr: SocketAddr) -> Result<Sock<'_>, Fault> {
        if addr.is_ipv4() {
            self.tcp4()
        } else {
            self.tcp6()
        }
    }

    /// A TCP socket of the family of `addr`, connected to it.
    pub fn dial(&self, addr: SocketAddr) -> Result<Sock<'_>, Fault> {
        let sock = self.tcp(addr)?;
        sock.connect(addr)?;
        Ok(sock)
    }

    /// A TCP socket that listens on `addr`.
    pub fn listen(&self, addr: SocketAddr, backlog: i32) -> Result<Sock<'_>, Fault> {
        let sock = self.tcp(addr)?;
        sock.set(SockOption::ReuseAddr)?;
        sock.bind(addr)?;
        self.call::<()>(&Op::Listen {
            sock: sock.id,
            backlog,
        })?;
        Ok(sock)
    }

    /// One datagram to `addr`, and the one that comes back.
    pub fn udp(&self, addr: SocketAddr, data: &[u8]) -> Result<Vec<u8>, Fault> {
        let data = data.to_vec();
        self.call(&Op::Udp { addr, data })
    }

    /// Serves `what` on `addr` as long as the agent lives; the address it got.
    pub fn serve(&self, addr: SocketAddr, what: Service) -> Result<SocketAddr, Fault> {
        self.call(&Op::Serve { addr, what })
    }

    /// One request on a connection of its own.
    pub fn http(&self, addr: SocketAddr, request: HttpRequest) -> Result<HttpReply, Fault> {
        let replies = self.http_all(addr, vec![request])?;
        replies
            .into_iter()
            .next()
            .ok_or_else(|| Fault::other("no answer"))
    }

    /// Requests one after the other on one connection. The server may not close in between.
    pub fn http_all(
        &self,
        addr: SocketAddr,
        requests: Vec<HttpRequest>,
    ) -> Result<Vec<HttpReply>, Fault> {
        self.call(&Op::Http {
            addr,
            requests,
            timeout_ms: 20_000,
        })
    }

    /// A load of `load.count` requests.
    pub fn load(&self, load: Load) -> Result<LoadReport, Fault> {
        self.call(&Op::Load(load))
    }

    /// Begins a load without end.
    pub fn start_load(&self, load: Load) -> Result<(), Fault> {
        self.call(&Op::StartLoad(load))
    }

    /// Ends the load that was begun.
    pub fn stop_load(&self) -> Result<LoadReport, Fault> {
        self.call(&Op::StopLoad)
    }

    /// Many connections at once.
    pub fn storm(&self, dials: Vec<Dial>) -> Result<Vec<StormReply>, Fault> {
        self.call(&Op::Storm { dials })
    }

    /// Begins `count` connects without waiting for their end, and keeps the
    /// sockets: how many met which error, `EINPROGRESS` the usual one.
    pub fn flood(&self, addr: SocketAddr, count: u64) -> Result<BTreeMap<String, u64>, Fault> {
        self.call(&Op::Flood { addr, count })
    }

    /// Opens and ends `count` short connections, some of them cut off: how many
    /// ended in which way.
    pub fn hammer(&self, addr: SocketAddr, count: u64) -> Result<BTreeMap<String, u64>, Fault> {
        self.call(&Op::Hammer { addr, count })
    }

    /// Closes what [`Agent::flood`] opened.
    pub fn close_flood(&self) -> Result<(), Fault> {
        self.call(&Op::CloseFlood)
    }

    /// The agent leaves its pod's network namespace for a new one.
    pub fn unshare_net(&self) -> Result<(), Fault> {
        self.call(&Op::UnshareNet)
    }

    /// Connects to a unix socket as the user `uid`, and no other right.
    pub fn connect_unix(&self, path: &str, uid: u32) -> Result<(), Fault> {
        self.call(&Op::ConnectUnix {
            path: path.to_owned(),
            uid,
        })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _making = making();
        // The end of its input is its end; a blocked one needs more.
        self.pipes
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .requests = None;
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait().map(drop)) {
            eprintln!("testbed: cannot end an agent: {error}");
        }
    }
}

/// A socket in a pod. Closed on drop.
pub struct Sock<'a> {
    agent: &'a Agent,
    id: SockId,
}

#[expect(missing_docs, reason = "named after the calls that they are")]
impl Sock<'_> {
    pub fn set(&self, option: SockOption) -> Result<(), Fault> {
        self.agent.call(&Op::Set {
            sock: self.id,
            option,
        })
    }

    pub fn bind(&self, addr: SocketAddr) -> Result<(), Fault> {
        self.agent.call(&Op::Bind {
            sock: self.id,
            addr,
        })
    }

    pub fn connect(&self, addr: SocketAddr) -> Result<(), Fault> {
        self.agent.call(&Op::Connect {
            sock: self.id,
            addr,
        })
    }

    /// `connect` and `send` in one, as TCP Fast Open has it.
    pub fn fast_open(&self, addr: SocketAddr, data: impl AsRef<[u8]>) -> Result<(), Fault> {
        let data = data.as_ref().to_vec();
        self.agent.call(&Op::FastOpen {
            sock: self.id,
            addr,
            data,
        })
    }

    /// `connect` to `AF_UNSPEC`.
    pub fn unconnect(&self) -> Result<(), Fault> {
        self.agent.call(&Op::Unconnect { sock: self.id })
    }

    pub fn listen(&self, backlog: i32) -> Result<(), Fault> {
        self.agent.call(&Op::Listen {
            sock: self.id,
            backlog,
        })
    }

    /// The accepted socket and its peer.
    pub fn accept(&self) -> Result<(Self, SocketAddr), Fault> {
        let (id, peer) = self.agent.call(&Op::Accept { sock: self.id })?;
        Ok((
            Self {
                agent: self.agent,
                id,
            },
            peer,
        ))
    }

    pub fn local_addr(&self) -> Result<SocketAddr, Fault> {
        self.agent.call(&Op::LocalAddr { sock: self.id })
    }

    pub fn peer_addr(&self) -> Result<SocketAddr, Fault> {
        self.agent.call(&Op::PeerAddr { sock: self.id })
    }

    pub fn send(&self, data: impl AsRef<[u8]>) -> Result<(), Fault> {
        self.agent.call(&Op::Send {
            sock: self.id,
            data: data.as_ref().to_vec(),
        })
    }

    /// One datagram.
    pub fn send_to(&self, addr: SocketAddr, data: impl AsRef<[u8]>) -> Result<(), Fault> {
        let data = data.as_ref().to_vec();
        self.agent.call(&Op::SendTo {
            sock: self.id,
            addr,
            data,
        })
    }

    /// One datagram to each, in one `sendmmsg`: how many were sent.
    pub fn send_many(&self, addrs: &[SocketAddr], data: &str) -> Result<usize, Fault> {
        self.agent.call(&Op::SendMany {
            sock: self.id,
            addrs: addrs.to_vec(),
            data: data.into(),
        })
    }

    /// One datagram as text, and from where it came.
    pub fn recv_from(&self) -> Result<(String, SocketAddr), Fault> {
        let (data, from): (Vec<u8>, _) = self.agent.call(&Op::RecvFrom { sock: self.id })?;
        Ok((String::from_utf8_lossy(&data).into_owned(), from))
    }

    /// One `recv`; empty at an orderly end.
    pub fn recv(&self, max: usize) -> Result<Vec<u8>, Fault> {
        self.agent.call(&Op::Recv { sock: self.id, max })
    }

    /// Everything until the other side ends, as text, and how it ended.
    pub fn recv_to_end(&self) -> Result<(String, Option<Fault>), Fault> {
        let Ending { data, fault } = self.agent.call(&Op::RecvToEnd { sock: self.id })?;
        Ok((String::from_utf8_lossy(&data).into_owned(), fault))
    }

    pub fn shutdown_write(&self) -> Result<(), Fault> {
        self.agent.call(&Op::ShutdownWrite { sock: self.id })
    }

    /// Sends `send` bytes and receives `receive` at the same time.
    pub fn bulk(&self, seed: u64, send: u64, receive: u64) -> Result<BulkReport, Fault> {
        self.agent.call(&Op::Bulk {
            sock: self.id,
            seed,
            send,
            receive,
        })
    }

    /// Receives what `bulk` with this seed sends, until the connection ends.
    pub fn follow(&self, seed: u64) -> Result<Followed, Fault> {
        self.agent.call(&Op::Follow {
            sock: self.id,
            seed,
        })
    }

    /// Closes with RST.
    pub fn abort(self) -> Result<(), Fault> {
        self.set(SockOption::Linger(0))
    }
}

impl Drop for Sock<'_> {
    fn drop(&mut self) {
        // A dead agent has closed it already.
        let _: Result<(), Fault> = self.agent.call(&Op::Close { sock: self.id });
    }
}
