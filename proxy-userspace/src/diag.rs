//! The TCP and UDP sockets of a network namespace, as the kernel lists them
//! (`sock_diag`, netlink), and their end before their time.
//!
//! A socket's cookie is its own as long as the machine is up, so whoever has
//! the cookies of a moment knows its sockets exactly. Must never close a
//! socket by address alone.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::libc::{AF_INET, AF_INET6};
use nix::sys::socket::{MsgFlags, NetlinkAddr, recv, sendto};
use proxy_common::Transport;

/// `TCPDIAG_GETSOCK`, `SOCK_DIAG_BY_FAMILY` and `SOCK_DESTROY`.
const TCP_OF_ALL: u16 = 18;
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
/// `NLM_F_REQUEST | NLM_F_DUMP` and `NLM_F_REQUEST | NLM_F_ACK`.
const DUMP: u16 = 0x301;
const ACKNOWLEDGED: u16 = 0x5;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
pub(crate) const ERROR: u16 = 2;
const DONE: u16 = 3;

/// Sizes of `nlmsghdr`, `inet_diag_sockid` and `inet_diag_msg`.
const HEADER: usize = 16;
const ID: usize = 48;
const MESSAGE: usize = 72;

/// TCP states, by the kernel's numbers. A UDP socket that has a peer is established.
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const CLOSE: u8 = 7;
const CLOSE_WAIT: u8 = 8;
const LISTEN: u8 = 10;
const STATES: u32 = 1 << ESTABLISHED | 1 << SYN_SENT | 1 << CLOSE_WAIT | 1 << LISTEN;
/// One of UDP that has no peer is closed.
const UDP_STATES: u32 = 1 << ESTABLISHED | 1 << CLOSE;

/// Room for one answer; the kernel fills at most 32 KiB.
const BUFFER: usize = 64 * 1024;

/// Sockets of one namespace that are looked at.
const SOCKETS_MAX: usize = 1 << 20;

/// A socket's number: never another's while the machine is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SocketCookie(pub u64);

/// A connection that a socket of the namespace dialled, or is dialling.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// The socket.
    pub cookie: SocketCookie,
    /// Its peer; a mapped address as what it stands for.
    pub peer: SocketAddr,
    transport: Transport,
    family: u8,
    id: [u8; ID],
}

impl Connection {
    /// A UDP socket of IPv4 that has itself for a peer, by its address alone:
    /// for whoever holds it.
    pub fn with_itself(addr: SocketAddrV4) -> Self {
        let mut id = [0; ID];
        for (at, bytes) in [
            (0, &addr.port().to_be_bytes()[..]),
            (2, &addr.port().to_be_bytes()),
            (4, &addr.ip().octets()),
            (20, &addr.ip().octets()),
            // Any cookie.
            (40, &[0xff; 8]),
        ] {
            id[at..at + bytes.len()].copy_from_slice(bytes);
        }
        Self {
            cookie: SocketCookie(u64::MAX),
            peer: addr.into(),
            transport: Transport::Udp,
            family: u8::try_from(AF_INET).unwrap_or(0),
            id,
        }
    }
}

/// A netlink socket inside a namespace.
#[derive(Debug)]
pub struct Diag {
    socket: OwnedFd,
}

/// One line of a list.
pub(crate) struct Entry {
    state: u8,
    local_port: u16,
    connection: Connection,
}

impl Entry {
    /// Whether it waits for whoever comes.
    fn is_serving(&self) -> bool {
        self.state == LISTEN || self.state == CLOSE
    }

    /// Its port, as far as sockets can share it on purpose only: a listener of TCP
    /// takes both families, and ports of UDP are each family's own.
    fn port(&self) -> (Transport, u8, u16) {
        let Connection {
            transport, family, ..
        } = self.connection;
        match transport {
            Transport::Tcp => (transport, 0, self.local_port),
            Transport::Udp => (transport, family, self.local_port),
        }
    }
}

impl Diag {
    /// Speaks through `socket`, which was opened inside the namespace.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// The connections of TCP, and the UDP sockets with a peer, that were dialled
    /// from inside to somebody else than `own`: what came in through a listener's
    /// port is left out, and so is a UDP socket that shares the port of one without
    /// a peer, as servers open them for one client each.
    pub fn dialled(&self, own: &[IpAddr]) -> io::Result<Vec<Connection>> {
        let mut entries = self.list(Transport::Tcp, STATES)?;
        match self.list(Transport::Udp, UDP_STATES) {
            Ok(udp) => entries.extend(udp),
            // A kernel without CONFIG_INET_UDP_DIAG: `weir status` says so.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let served: BTreeSet<_> = entries
            .iter()
            .filter(|entry| entry.is_serving())
            .map(Entry::port)
            .collect();
        let dialled = entries.into_iter().filter(|entry| {
            let to = entry.connection.peer.ip();
            !served.contains(&entry.port()) && !to.is_loopback() && !own.contains(&to)
        });
        Ok(dialled.map(|entry| entry.connection).collect())
    }

    /// The UDP sockets that have a peer.
    pub fn connected(&self) -> io::Result<Vec<Connection>> {
        let connected = self.list(Transport::Udp, 1 << ESTABLISHED)?;
        Ok(connected
            .into_iter()
            .map(|entry| entry.connection)
            .collect())
    }

    /// Closes a connection: its owner gets ECONNABORTED, the other side of one
    /// of TCP a reset. A UDP socket has no peer any more, and can get another.
    pub fn destroy(&self, connection: &Connection) -> io::Result<()> {
        let asked = Asked {
            transport: connection.transport,
            family: connection.family,
            states: STATES,
        };
        let request = request(DESTROY, ACKNOWLEDGED, asked, &connection.id);
        self.send(&request)?;
        let mut buffer = vec![0; BUFFER];
        let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        for (kind, body) in messages(&buffer[..length]) {
            if kind == ERROR {
                return refused(body);
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }

    /// The sockets of both families in these states.
    fn list(&self, transport: Transport, states: u32) -> io::Result<Vec<Entry>> {
        let of_family = |family| {
            let asked = Asked {
                transport,
                family: u8::try_from(family).unwrap_or(0),
                states,
            };
            request(BY_FAMILY, DUMP, asked, &[0; ID])
        };
        let requests = match transport {
            // Each list is a walk through the table that all namespaces share.
            Transport::Tcp => vec![tcp_request(states)],
            Transport::Udp => [AF_INET, AF_INET6].map(of_family).to_vec(),
        };
        let mut entries = Vec::new();
        for request in requests {
            self.dump(&request, |body| {
                entries.extend(entry(transport, body));
                entries.len() <= SOCKETS_MAX
            })?;
        }
        Ok(entries)
    }

    /// Hands every answer to `take`, until that has had enough.
    fn dump(&self, request: &[u8], mut take: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
        self.send(request)?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            for (kind, body) in messages(&buffer[..length]) {
                match kind {
                    DONE => return Ok(()),
                    ERROR => return refused(body),
                    TCP_OF_ALL | BY_FAMILY if !take(body) => {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                    _ => {}
                }
            }
            if length == 0 {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }

    fn send(&self, request: &[u8]) -> io::Result<()> {
        let kernel = NetlinkAddr::new(0, 0);
        sendto(self.socket.as_raw_fd(), request, &kernel, MsgFlags::empty())?;
        Ok(())
    }
}

/// Which sockets are meant.
#[derive(Clone, Copy)]
struct Asked {
    transport: Transport,
    family: u8,
    /// One bit for each state.
    states: u32,
}

/// `nlmsghdr` and `inet_diag_req_v2`.
fn request(kind: u16, flags: u16, asked: Asked, id: &[u8; ID]) -> Vec<u8> {
    let mut request = header(kind, flags, 8 + ID);
    let protocol = u8::try_from(asked.transport.number()).unwrap_or(0);
    request.extend([asked.family, protocol, 0, 0]);
    request.extend(asked.states.to_ne_bytes());
    request.extend(id);
    request
}

/// `nlmsghdr` and `inet_diag_req`, the older form: it speaks of TCP alone, and is
/// the one that the kernel answers for both families at once.
fn tcp_request(states: u32) -> Vec<u8> {
    let mut request = header(TCP_OF_ALL, DUMP, 4 + ID + 8);
    // The family is not looked at.
    request.extend([0; 4 + ID]);
    request.extend(states.to_ne_bytes());
    request.extend([0; 4]);
    request
}

/// `nlmsghdr`, before `body` bytes.
fn header(kind: u16, flags: u16, body: usize) -> Vec<u8> {
    let length = HEADER + body;
    let mut header = Vec::with_capacity(length);
    let length = u32::try_from(length).unwrap_or(0);
    header.extend(length.to_ne_bytes());
    header.extend(kind.to_ne_bytes());
    header.extend(flags.to_ne_bytes());
    // Sequence and port: one question at a time needs neither.
    header.extend([0; 8]);
    header
}

/// Kind and body of each message.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
        let body = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// The error that a message of that kind carries; 0 is none.
pub(crate) fn refused(body: &[u8]) -> io::Result<()> {
    match body.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
        Some(0) => Ok(()),
        // The kernel's errors are negative and few.
        Some(code @ -4095..=-1) => Err(io::Error::from_raw_os_error(-code)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// `inet_diag_msg`.
pub(crate) fn entry(transport: Transport, body: &[u8]) -> Option<Entry> {
    let body: &[u8; MESSAGE] = body.first_chunk()?;
    let (family, state) = (body[0], body[1]);
    let id: [u8; ID] = *body[4..].first_chunk()?;
    let remote: [u8; 16] = *id[20..].first_chunk()?;
    let remote = if i32::from(family) == AF_INET {
        let v4: [u8; 4] = *remote.first_chunk()?;
        IpAddr::V4(Ipv4Addr::from(v4))
    } else {
        Ipv6Addr::from(remote).to_canonical()
    };
    let remote_port = u16::from_be_bytes([id[2], id[3]]);
    Some(Entry {
        state,
        local_port: u16::from_be_bytes([id[0], id[1]]),
        connection: Connection {
            peer: SocketAddr::new(remote, remote_port),
            cookie: SocketCookie(u64::from_ne_bytes(*id[40..].first_chunk()?)),
            transport,
            family,
            id,
        },
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

    use super::*;

    fn diag() -> Diag {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkSockDiag,
        );
        Diag::new(socket.unwrap())
    }

    #[test]
    fn both_families_are_listed() {
        for (address, family) in [("127.0.0.1:0", AF_INET), ("[::1]:0", AF_INET6)] {
            let listener = TcpListener::bind(address).unwrap();
            let port = listener.local_addr().unwrap().port();
            let entries = diag().list(Transport::Tcp, 1 << LISTEN).unwrap();
            let found = entries.iter().find(|entry| entry.local_port == port);
            let found = found.unwrap_or_else(|| panic!("{address}"));
            assert_eq!(i32::from(found.connection.family), family);
            assert_eq!(found.state, LISTEN);
        }
    }

    #[test]
    fn connections_are_listed_with_both_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let port = client.local_addr().unwrap().port();
        let entries = diag().list(Transport::Tcp, STATES).unwrap();
        let found = entries
            .iter()
            .find(|entry| entry.local_port == port)
            .unwrap();
        assert_eq!(found.state, ESTABLISHED);
        assert_eq!(found.connection.peer, listener.local_addr().unwrap());
        assert_ne!(found.connection.cookie, SocketCookie(0));
        let own = diag().dialled(&[]).unwrap();
        let cookie = found.connection.cookie;
        assert!(own.iter().all(|other| other.cookie != cookie), "loopback");
    }
}
