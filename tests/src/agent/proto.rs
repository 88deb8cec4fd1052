//! What a test and an agent say to each other.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use super::fault::Fault;

/// A socket of the agent, by number.
pub type SockId = u32;

/// A request. Each is answered once, in order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
#[expect(missing_docs, reason = "named after the calls that they are")]
pub enum Op {
    Socket {
        kind: Kind,
    },
    Set {
        sock: SockId,
        option: SockOption,
    },
    Bind {
        sock: SockId,
        addr: SocketAddr,
    },
    Connect {
        sock: SockId,
        addr: SocketAddr,
    },
    /// `connect` and `send` in one, as TCP Fast Open has it.
    FastOpen {
        sock: SockId,
        addr: SocketAddr,
        data: Vec<u8>,
    },
    /// `connect` to `AF_UNSPEC`: the socket may then dial again.
    Unconnect {
        sock: SockId,
    },
    Listen {
        sock: SockId,
        backlog: i32,
    },
    Accept {
        sock: SockId,
    },
    LocalAddr {
        sock: SockId,
    },
    PeerAddr {
        sock: SockId,
    },
    Send {
        sock: SockId,
        data: Vec<u8>,
    },
    /// One `recv`.
    Recv {
        sock: SockId,
        max: usize,
    },
    /// Until the other side ends: its data, and how it ended.
    RecvToEnd {
        sock: SockId,
    },
    /// One datagram.
    SendTo {
        sock: SockId,
        addr: SocketAddr,
        data: Vec<u8>,
    },
    /// One datagram to each, in one `sendmmsg`.
    SendMany {
        sock: SockId,
        addrs: Vec<SocketAddr>,
        data: Vec<u8>,
    },
    /// One datagram, and from where it came.
    RecvFrom {
        sock: SockId,
    },
    ShutdownWrite {
        sock: SockId,
    },
    Close {
        sock: SockId,
    },
    /// One datagram there, and what comes back.
    Udp {
        addr: SocketAddr,
        data: Vec<u8>,
    },
    /// Sends and receives at once, and hashes both.
    Bulk {
        sock: SockId,
        seed: u64,
        send: u64,
        receive: u64,
    },
    /// Receives what a `Bulk` with this seed sends, as far as it comes.
    Follow {
        sock: SockId,
        seed: u64,
    },
    /// Many connections at once; each reads one answer to its end.
    Storm {
        dials: Vec<Dial>,
    },
    /// Nonblocking connects that are kept open: how many ended in which way.
    Flood {
        addr: SocketAddr,
        count: u64,
    },
    /// Short connections, a few at a time: how many ended in which way.
    Hammer {
        addr: SocketAddr,
        count: u64,
    },
    /// Closes what [`Op::Flood`] opened.
    CloseFlood,
    /// Requests one after the other on one fresh connection.
    Http {
        addr: SocketAddr,
        requests: Vec<HttpRequest>,
        timeout_ms: u64,
    },
    /// Many requests over kept-alive connections.
    Load(Load),
    /// Requests without end, until [`Op::StopLoad`].
    StartLoad(Load),
    StopLoad,
    /// Serves from now on, on a thread of the agent.
    Serve {
        addr: SocketAddr,
        what: Service,
    },
    /// Leaves for a network namespace of its own, with `lo` up or not at all configured.
    UnshareNet,
    /// Whether this path can be opened as a unix stream socket, as user `uid`.
    ConnectUnix {
        path: String,
        uid: u32,
    },
}

/// What a socket is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6, mapped IPv4 addresses included.
    Tcp6,
    /// Multipath TCP over IPv4.
    Mptcp4,
    /// UDP over IPv4.
    Udp4,
    /// UDP over IPv6, mapped IPv4 addresses included.
    Udp6,
}

/// An option of a socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "named after the options that they are")]
pub enum SockOption {
    Nonblocking(bool),
    ReuseAddr,
    ReusePort,
    /// Seconds; 0: close with RST.
    Linger(u64),
    BindToDevice(String),
    /// `IPV6_V6ONLY`.
    OnlyV6,
    /// For every call on the socket, in milliseconds.
    Timeout(u64),
}

/// One connection of a storm.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Dial {
    /// Where to.
    pub to: SocketAddr,
    /// The source port; the kernel's choice if absent.
    pub from_port: Option<u16>,
    /// What to send first.
    pub send: String,
}

/// What one connection of a storm got.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StormReply {
    /// What the server said, or how the connection failed.
    pub answer: Result<String, Fault>,
    /// The client's own address, as the client sees it.
    pub local: Option<SocketAddr>,
}

/// A server that an agent can be.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Service {
    /// Sends back what it gets; a half-closed connection is closed at the end.
    Echo,
    /// Speaks first, then echoes.
    Banner {
        /// What it says.
        text: String,
    },
    /// Reads a line, answers `name peer line` and closes.
    Whoami {
        /// Its name.
        name: String,
    },
    /// Answers each datagram with `name peer data`.
    Datagrams {
        /// Its name.
        name: String,
    },
    /// HTTP/1.1, see [`crate::app::echo`].
    Http {
        /// The `pod` of its answers.
        pod: String,
        /// The `version` of its answers.
        version: String,
    },
    /// Answers DNS questions for A and AAAA records (UDP) from a table.
    Dns {
        /// Names without the trailing dot.
        records: BTreeMap<String, Vec<std::net::IpAddr>>,
    },
}

/// An HTTP request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HttpRequest {
    /// Method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The Host header.
    pub host: String,
    /// Other headers.
    pub headers: Vec<(String, String)>,
    /// The body; a length header goes with it if it is not empty.
    pub body: String,
}

impl HttpRequest {
    /// A GET.
    pub fn get(host: &str, path: &str) -> Self {
        Self {
            method: "GET".to_owned(),
            path: path.to_owned(),
            host: host.to_owned(),
            headers: Vec::new(),
            body: String::new(),
        }
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With another method and a body.
    #[must_use]
    pub fn with_body(mut self, method: &str, body: &str) -> Self {
        method.clone_into(&mut self.method);
        body.clone_into(&mut self.body);
        self
    }
}

/// An HTTP response.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HttpReply {
    /// Status code.
    pub status: u16,
    /// Headers, names in lower case; the last of equal ones counts.
    pub headers: BTreeMap<String, String>,
    /// The body, as UTF-8.
    pub body: String,
}

impl HttpReply {
    /// The body as JSON; `Null` if it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The string at a JSON pointer of the body; empty if there is none.
    pub fn field(&self, pointer: &str) -> String {
        let json = self.json();
        json.pointer(pointer)
            .and_then(|value| value.as_str())
            .unwrap_or_default()
            .to_owned()
    }
}

/// A stream of equal requests.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Load {
    /// Where to.
    pub addr: SocketAddr,
    /// The request.
    pub request: HttpRequest,
    /// How many in all; ignored by [`Op::StartLoad`].
    pub count: u64,
    /// At once, each on a kept-alive connection of its own.
    pub connections: u64,
    /// Pause of each connection between two requests, in milliseconds.
    pub pause_ms: u64,
    /// JSON pointer of the answer's object whose `pod` and `version` are counted.
    pub pointer: String,
}

/// What a load met.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LoadReport {
    /// Requests begun.
    pub sent: u64,
    /// Answered with 2xx.
    pub ok: u64,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// 2xx answers by `pod`.
    pub pods: BTreeMap<String, u64>,
    /// 2xx answers by `version`.
    pub versions: BTreeMap<String, u64>,
    /// What went wrong, the first few.
    pub failures: Vec<String>,
    /// The slowest answer, in milliseconds.
    pub slowest_ms: u64,
}

impl LoadReport {
    /// Requests that were not answered with 2xx.
    pub fn failed(&self) -> u64 {
        self.sent - self.ok
    }

    /// 2xx answers of one version.
    pub fn version(&self, version: &str) -> u64 {
        self.versions.get(version).copied().unwrap_or_default()
    }
}

/// What a bulk transfer carried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkReport {
    /// Bytes received.
    pub received: u64,
    /// SHA-256 of what was sent.
    pub sent_hash: String,
    /// SHA-256 of what was received.
    pub received_hash: String,
}

/// How much of a bulk transfer came, and how that ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Followed {
    /// Bytes received that are those which were sent, in order.
    pub received: u64,
    /// Whether other bytes followed.
    pub spoilt: bool,
    /// `None`: an orderly end. Else the error that `recv` gave.
    pub fault: Option<Fault>,
}

/// What a connection said until its end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ending {
    /// What came before.
    pub data: Vec<u8>,
    /// `None`: an orderly end. Else the error that `recv` gave.
    pub fault: Option<Fault>,
}
