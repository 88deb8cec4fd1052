//! Where the self-test tries things: connections over the loopback of a private
//! namespace, of which one address of a family is accelerated and the other is not.
//!
//! Must never touch a socket outside it.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use nix::libc;
use socket2::{Domain, Socket, Type};

use super::pace::paced;

/// How long a read may wait on a usual machine: what takes longer hangs.
pub const PATIENCE: Duration = Duration::from_millis(1_500);

/// What sockets a connection is made of. Those of IPv6 have operations of their
/// own in the kernel, of TCP and of membership among the accelerated alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// IPv4 between sockets of IPv6.
    Mapped,
}

impl Family {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::V4, Self::V6, Self::Mapped];

    /// Those that this kernel has.
    pub fn here() -> io::Result<&'static [Self]> {
        match Socket::new(Domain::IPV6, Type::STREAM, None) {
            Ok(_) => Ok(Self::ALL),
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(&[Self::V4]),
            Err(error) => Err(error),
        }
    }

    /// For a reader.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
            Self::Mapped => "IPv4 between sockets of IPv6",
        }
    }
}

/// Which way a connection's bytes take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Road {
    family: Family,
    is_accelerated: bool,
}

impl Road {
    /// The address of IPv6 of [`Road::plain`], which a namespace has to be given.
    pub const PLAIN_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

    /// TCP.
    pub const fn plain(family: Family) -> Self {
        Self {
            family,
            is_accelerated: false,
        }
    }

    /// From socket to socket.
    pub const fn accelerated(family: Family) -> Self {
        Self {
            family,
            is_accelerated: true,
        }
    }

    /// The address whose connections take this road.
    pub fn addr(self) -> IpAddr {
        let v4 = if self.is_accelerated {
            Ipv4Addr::LOCALHOST
        } else {
            Ipv4Addr::new(127, 0, 0, 2)
        };
        match self.family {
            Family::V4 => v4.into(),
            Family::Mapped => v4.to_ipv6_mapped().into(),
            Family::V6 if self.is_accelerated => Ipv6Addr::LOCALHOST.into(),
            Family::V6 => Self::PLAIN_V6.into(),
        }
    }

    /// A socket that can take it.
    pub fn socket(self) -> io::Result<Socket> {
        let domain = match self.family {
            Family::V4 => Domain::IPV4,
            Family::V6 | Family::Mapped => Domain::IPV6,
        };
        Socket::new(domain, Type::STREAM, None)
    }

    /// A listener whose connections take it.
    pub fn listen(self) -> io::Result<TcpListener> {
        TcpListener::bind(SocketAddr::from((self.addr(), 0)))
    }

    /// A connection on it.
    pub fn pair(self) -> io::Result<Pair> {
        let listener = self.listen()?;
        let near = TcpStream::connect(listener.local_addr()?)?;
        let (far, _) = listener.accept()?;
        patient(&near)?;
        patient(&far)?;
        Ok(Pair { near, far })
    }

    /// A listener with room for `backlog` connections that nobody accepted.
    pub fn listen_with(self, backlog: i32) -> io::Result<TcpListener> {
        let socket = self.socket()?;
        socket.bind(&SocketAddr::from((self.addr(), 0)).into())?;
        socket.listen(backlog)?;
        Ok(socket.into())
    }
}

/// The two ends of a connection: `near` dialled.
pub struct Pair {
    /// The end that dialled.
    pub near: TcpStream,
    /// The end that was accepted.
    pub far: TcpStream,
}

/// Why a case did not go as it must.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A call failed.
    #[error("{0}")]
    Call(#[from] io::Error),
    /// A call did something else than it must.
    #[error("{0}")]
    Wrong(String),
}

impl From<nix::errno::Errno> for Fault {
    fn from(errno: nix::errno::Errno) -> Self {
        Self::Call(errno.into())
    }
}

/// `Ok` if `held`, else what was seen.
pub fn expect(held: bool, seen: impl FnOnce() -> String) -> Result<(), Fault> {
    if held {
        Ok(())
    } else {
        Err(Fault::Wrong(seen()))
    }
}

/// Lets reads and writes of a socket that hang come back.
pub fn patient(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(paced(PATIENCE)))?;
    stream.set_write_timeout(Some(paced(PATIENCE)))?;
    stream.set_nodelay(true)
}

/// Reads once. A blocking read that says EAGAIN has either waited in vain for
/// [`PATIENCE`], or not waited at all.
pub fn read(mut stream: &TcpStream, buffer: &mut [u8]) -> Result<usize, Fault> {
    let began = Instant::now();
    match stream.read(buffer) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(Fault::Wrong(if began.elapsed() < paced(PATIENCE) / 2 {
                "a blocking read returned EAGAIN".to_owned()
            } else {
                "a read never saw what was sent".to_owned()
            }))
        }
        other => Ok(other?),
    }
}

/// Reads exactly `len` bytes; fewer if the end comes before.
pub fn read_some(stream: &TcpStream, len: usize) -> Result<Vec<u8>, Fault> {
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match read(stream, &mut bytes[filled..])? {
            0 => break,
            more => filled += more,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Reads to the end.
pub fn read_to_end(stream: &TcpStream) -> Result<Vec<u8>, Fault> {
    let (mut all, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        match read(stream, &mut buffer)? {
            0 => return Ok(all),
            more => all.extend_from_slice(&buffer[..more]),
        }
    }
}

/// Writes all of `bytes`.
pub fn write(mut stream: &TcpStream, bytes: &[u8]) -> Result<(), Fault> {
    Ok(stream.write_all(bytes)?)
}

/// Wants exactly `text` next.
pub fn expect_text(stream: &TcpStream, text: &str) -> Result<(), Fault> {
    let read = read_some(stream, text.len())?;
    expect(read == text.as_bytes(), || {
        let read = String::from_utf8_lossy(&read);
        format!("{text:?} was sent, {read:?} was read")
    })
}

/// Wants the end next, in order.
pub fn expect_end(stream: &TcpStream) -> Result<(), Fault> {
    let mut byte = [0];
    match read(stream, &mut byte)? {
        0 => Ok(()),
        _ => Err(Fault::Wrong("bytes came instead of the end".to_owned())),
    }
}

/// Wants a reset next.
pub fn expect_reset(stream: &TcpStream) -> Result<(), Fault> {
    let mut byte = [0];
    match read(stream, &mut byte) {
        Err(Fault::Call(error)) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        Err(other) => Err(other),
        Ok(read) => Err(Fault::Wrong(format!(
            "a reset was due, the read returned {read}"
        ))),
    }
}

/// Numbered bytes: what is missing, twice there or out of order shows.
pub fn numbered(from: u32, words: u32) -> Vec<u8> {
    (from..from + words).flat_map(u32::to_be_bytes).collect()
}
