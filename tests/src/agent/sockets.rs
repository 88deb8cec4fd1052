//! The agent's sockets: one call of the kernel each, with a time limit.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sha2::{Digest, Sha256};
use socket2::{Domain, Protocol, Socket, Type};

use super::datagram;
use super::proto::{BulkReport, Ending, Fault, Followed, Kind, SockId, SockOption};
use crate::patience::patiently;

/// How long a call may take unless a test says otherwise.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
/// What one connection may say until its end.
const ENDING_MAX: usize = 4 << 20;

/// The open sockets by number.
#[derive(Default)]
pub(super) struct Sockets {
    open: HashMap<SockId, Sock>,
    last: SockId,
    flood: Vec<Socket>,
}

impl Sockets {
    pub(super) fn open(&mut self, kind: Kind) -> Result<SockId, Fault> {
        let (domain, of_type, protocol) = match kind {
            Kind::Tcp4 => (Domain::IPV4, Type::STREAM, Protocol::TCP),
            Kind::Tcp6 => (Domain::IPV6, Type::STREAM, Protocol::TCP),
            Kind::Mptcp4 => (Domain::IPV4, Type::STREAM, Protocol::MPTCP),
            Kind::Udp4 => (Domain::IPV4, Type::DGRAM, Protocol::UDP),
            Kind::Udp6 => (Domain::IPV6, Type::DGRAM, Protocol::UDP),
        };
        let socket = Socket::new(domain, of_type, Some(protocol))?;
        if matches!(kind, Kind::Tcp6 | Kind::Udp6) {
            socket.set_only_v6(false)?;
        }
        self.add(socket)
    }

    pub(super) fn get(&self, sock: SockId) -> Result<&Sock, Fault> {
        self.open
            .get(&sock)
            .ok_or_else(|| Fault::other("that socket is closed"))
    }

    pub(super) fn accept(&mut self, sock: SockId) -> Result<(SockId, SocketAddr), Fault> {
        let (socket, peer) = self.get(sock)?.0.accept()?;
        Ok((self.add(socket)?, inet(&peer)?))
    }

    pub(super) fn close(&mut self, sock: SockId) {
        self.open.remove(&sock);
    }

    pub(super) fn flood(
        &mut self,
        addr: SocketAddr,
        count: u64,
    ) -> Result<BTreeMap<String, u64>, Fault> {
        // A thousand sockets are too few for what this is for.
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).map_err(io::Error::from)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most).map_err(io::Error::from)?;
        let mut outcomes = BTreeMap::new();
        for _ in 0..count {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
            socket.set_nonblocking(true)?;
            let outcome = match socket.connect(&addr.into()) {
                Ok(()) => "OK".to_owned(),
                Err(error) => {
                    format!(
                        "{:?}",
                        Errno::from_raw(error.raw_os_error().unwrap_or_default())
                    )
                }
            };
            *outcomes.entry(outcome).or_default() += 1;
            self.flood.push(socket);
        }
        Ok(outcomes)
    }

    pub(super) fn close_flood(&mut self) {
        self.flood.clear();
    }

    fn add(&mut self, socket: Socket) -> Result<SockId, Fault> {
        let sock = Sock(socket);
        sock.set_timeout(TIMEOUT)?;
        self.last += 1;
        self.open.insert(self.last, sock);
        Ok(self.last)
    }
}

/// One socket.
pub(super) struct Sock(Socket);

impl Sock {
    pub(super) fn set(&self, option: &SockOption) -> Result<(), Fault> {
        let socket = &self.0;
        match option {
            SockOption::Nonblocking(on) => socket.set_nonblocking(*on)?,
            SockOption::ReuseAddr => socket.set_reuse_address(true)?,
            SockOption::ReusePort => socket.set_reuse_port(true)?,
            SockOption::Linger(seconds) => {
                socket.set_linger(Some(Duration::from_secs(*seconds)))?;
            }
            SockOption::OnlyV6 => socket.set_only_v6(true)?,
            SockOption::BindToDevice(name) => socket.bind_device(Some(name.as_bytes()))?,
            SockOption::Timeout(ms) => self.set_timeout(Duration::from_millis(*ms))?,
        }
        Ok(())
    }

    fn set_timeout(&self, limit: Duration) -> Result<(), Fault> {
        let limit = patiently(limit);
        self.0.set_read_timeout(Some(limit))?;
        self.0.set_write_timeout(Some(limit))?;
        Ok(())
    }

    pub(super) fn bind(&self, addr: SocketAddr) -> Result<(), Fault> {
        Ok(self.0.bind(&addr.into())?)
    }

    pub(super) fn connect(&self, addr: SocketAddr) -> Result<(), Fault> {
        Ok(self.0.connect(&addr.into())?)
    }

    pub(super) fn fast_open(&self, addr: SocketAddr, data: &[u8]) -> Result<(), Fault> {
        // From the kernel's <linux/socket.h>; no crate names it.
        const MSG_FASTOPEN: i32 = 0x2000_0000;
        self.0
            .send_to_with_flags(data, &addr.into(), MSG_FASTOPEN)?;
        Ok(())
    }

    pub(super) fn unconnect(&self) -> Result<(), Fault> {
        rustix::net::connect_unspec(&self.0).map_err(std::io::Error::from)?;
        Ok(())
    }

    pub(super) fn listen(&self, backlog: i32) -> Result<(), Fault> {
        Ok(self.0.listen(backlog)?)
    }

    pub(super) fn local_addr(&self) -> Result<SocketAddr, Fault> {
        inet(&self.0.local_addr()?)
    }

    pub(super) fn peer_addr(&self) -> Result<SocketAddr, Fault> {
        inet(&self.0.peer_addr()?)
    }

    pub(super) fn send(&self, data: &[u8]) -> Result<(), Fault> {
        Ok((&self.0).write_all(data)?)
    }

    pub(super) fn send_to(&self, addr: SocketAddr, data: &[u8]) -> Result<(), Fault> {
        self.0.send_to(data, &addr.into())?;
        Ok(())
    }

    pub(super) fn send_many(&self, addrs: &[SocketAddr], data: &[u8]) -> Result<usize, Fault> {
        datagram::send_many(&self.0, addrs, data)
    }

    pub(super) fn recv_from(&self) -> Result<(Vec<u8>, SocketAddr), Fault> {
        datagram::receive(&self.0)
    }

    pub(super) fn recv(&self, max: usize) -> Result<Vec<u8>, Fault> {
        let mut data = vec![0; max];
        let len = (&self.0).read(&mut data)?;
        data.truncate(len);
        Ok(data)
    }

    pub(super) fn recv_to_end(&self) -> Result<Ending, Fault> {
        let mut data = Vec::new();
        loop {
            match self.recv(64 << 10) {
                Ok(more) if more.is_empty() => return Ok(Ending { data, fault: None }),
                Ok(more) => data.extend(more),
                Err(fault) => {
                    return Ok(Ending {
                        data,
                        fault: Some(fault),
                    });
                }
            }
            if data.len() > ENDING_MAX {
                return Err(Fault::other("the connection does not end"));
            }
        }
    }

    pub(super) fn shutdown_write(&self) -> Result<(), Fault> {
        Ok(self.0.shutdown(Shutdown::Write)?)
    }

    pub(super) fn follow(&self, seed: u64) -> Followed {
        same_bytes(&self.0, seed)
    }

    /// Sends and receives at once: only so can both directions be full.
    pub(super) fn bulk(&self, seed: u64, send: u64, receive: u64) -> Result<BulkReport, Fault> {
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| send_hashed(&self.0, seed, send));
            let (received, received_hash) = receive_hashed(&self.0, receive)?;
            let sent_hash = sender
                .join()
                .map_err(|_| Fault::other("the sender panicked"))??;
            Ok(BulkReport {
                received,
                sent_hash,
                received_hash,
            })
        })
    }
}

fn same_bytes(mut socket: &Socket, seed: u64) -> Followed {
    let mut noise = Noise(seed | 1);
    let (mut chunk, mut wanted) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut received = 0;
    let (mut at, mut spoilt) = (wanted.len(), false);
    let fault = loop {
        if at == wanted.len() {
            noise.fill(&mut wanted);
            at = 0;
        }
        let room = wanted.len() - at;
        match socket.read(&mut chunk[..room]) {
            Ok(0) => break None,
            Ok(len) if chunk[..len] == wanted[at..at + len] => {
                at += len;
                received += len as u64;
            }
            Ok(_) => {
                spoilt = true;
                break None;
            }
            Err(error) => break Some(error.into()),
        }
    };
    Followed {
        received,
        spoilt,
        fault,
    }
}

fn inet(addr: &socket2::SockAddr) -> Result<SocketAddr, Fault> {
    addr.as_socket()
        .ok_or_else(|| Fault::other("no internet address"))
}

fn send_hashed(mut socket: &Socket, seed: u64, mut left: u64) -> Result<String, Fault> {
    let mut hash = Sha256::new();
    let mut noise = Noise(seed | 1);
    let mut chunk = vec![0; 64 << 10];
    while left > 0 {
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        noise.fill(&mut chunk[..len]);
        hash.update(&chunk[..len]);
        socket.write_all(&chunk[..len])?;
        left -= len as u64;
    }
    Ok(hex(hash))
}

fn receive_hashed(mut socket: &Socket, wanted: u64) -> Result<(u64, String), Fault> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 256 << 10];
    let mut received = 0;
    while received < wanted {
        match socket.read(&mut chunk)? {
            0 => break,
            len => {
                hash.update(&chunk[..len]);
                received += len as u64;
            }
        }
    }
    Ok((received, hex(hash)))
}

fn hex(hash: Sha256) -> String {
    let mut text = String::new();
    for byte in hash.finalize() {
        // Writing to a string cannot fail.
        let _: std::fmt::Result = write!(text, "{byte:02x}");
    }
    text
}

/// Bytes that repeat nowhere near: a swapped or doubled chunk changes the hash.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_mut(8) {
            // xorshift64
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_le_bytes()[..word.len()]);
        }
    }
}
