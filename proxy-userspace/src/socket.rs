//! Sockets inside other network namespaces: entering and leaving them, the
//! listeners, the upstream sockets, and what the standard library has no call for.
//!
//! Owns every `setns`. Must never await between entering and leaving, and
//! never return on a thread that could not get back: such a thread would open
//! its next socket in a stranger's namespace, so the process aborts instead.
#![expect(
    unsafe_code,
    reason = "SO_NETNS_COOKIE, IP_BIND_ADDRESS_NO_PORT and TCP_FASTOPEN have no safe form"
)]

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::libc;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType};
use proxy_common::NetnsCookie;
use socket2::{Domain, Protocol, SockFilter, Socket, TcpKeepalive, Type};

use crate::diag::Diag;

/// Connections that may wait for `accept` on one listener.
const BACKLOG: i32 = 4_096;

/// Connections of one listener that may be under way with data in their SYN. They
/// cost memory before the handshake is over; whoever is one too many gets a
/// handshake. They come from the pod itself, which has one round trip to wait for.
const FAST_OPEN_QUEUE: libc::c_int = 256;

/// Who is gone without a word is found out within two minutes, also where nobody
/// sends: what is silent for one is asked, and asked again. An endpoint, since the
/// client's own probes are answered by weir's socket; and a client, since one that
/// has closed both halves looks like one that waits for its answer.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_mins(1))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);

/// The node's own choice may pace what it sends, with a timer for each segment,
/// and between two namespaces of one node there is no congestion to avoid. Every
/// kernel has this one.
const NODE_CONGESTION: &[u8] = b"reno";

/// How far a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// To a workload of this node.
    Node,
    /// Elsewhere, or who knows where: the node's choice of congestion control holds.
    Beyond,
}

/// A network namespace, held open.
#[derive(Debug)]
pub struct Netns {
    file: File,
    identity: (u64, u64),
    cookie: NetnsCookie,
}

/// An address that is configured on an interface of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddr {
    /// The address.
    pub ip: IpAddr,
    /// Its interface.
    pub ifindex: u32,
    /// Whether the interface is the loopback.
    pub loopback: bool,
    /// What can be done with it.
    pub state: AddrState,
}

/// How far an address can be used; an IPv4 one always can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddrState {
    /// For good.
    Stable,
    /// For now: a temporary or deprecated address, which the kernel takes away.
    Passing,
    /// Not yet: the kernel is still asking whether another host has it (RFC 4862).
    Tentative,
    /// Never: another host has it.
    Duplicate,
}

/// What enrolment has to know of a namespace.
#[derive(Clone, Debug)]
pub struct NetnsView {
    /// Its addresses, in the order of its interfaces.
    pub addrs: Vec<LocalAddr>,
    /// Index of its loopback interface, if that is up.
    pub loopback: Option<u32>,
}

impl Netns {
    /// Opens the namespace behind a file such as `/run/netns/a` or `/proc/7/ns/net`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let here = File::open("/proc/thread-self/ns/net")?;
        let cookie = inside(&file, &here, || {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            netns_cookie(&socket)
        })??;
        let meta = file.metadata()?;
        Ok(Self {
            identity: (meta.dev(), meta.ino()),
            file,
            cookie,
        })
    }

    /// The namespace that this thread lives in.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The kernel's cookie of the namespace.
    pub fn cookie(&self) -> NetnsCookie {
        self.cookie
    }

    /// Device and inode of the namespace: no other has them while this is open.
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Addresses and loopback of the namespace, seen from a thread that lives in `home`.
    pub fn look(&self, home: &Self) -> io::Result<NetnsView> {
        inside(&self.file, &home.file, view)?
    }

    /// A listener on `addr` inside the namespace that shares its port with
    /// those of other workers, and takes SYNs from the loopback interface
    /// `loopback` only: whoever is outside the pod gets no answer.
    pub fn listen(
        &self,
        home: &Self,
        addr: SocketAddr,
        loopback: u32,
    ) -> io::Result<std::net::TcpListener> {
        inside(&self.file, &home.file, || {
            let socket = stream(addr)?;
            if addr.is_ipv6() {
                // Each family has a listener of its own.
                socket.set_only_v6(true)?;
            }
            socket.set_reuse_port(true)?;
            socket.attach_filter(&from_interface(loopback))?;
            // Accepted sockets inherit these. A small answer must not wait for
            // the acknowledgement of the ones before.
            socket.set_tcp_nodelay(true)?;
            socket.set_tcp_congestion(NODE_CONGESTION)?;
            socket.set_tcp_keepalive(&KEEPALIVE)?;
            socket.bind(&addr.into())?;
            // Whether a cookie is given out is the pod's own setting.
            set(
                &socket,
                libc::IPPROTO_TCP,
                libc::TCP_FASTOPEN,
                FAST_OPEN_QUEUE,
            )?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })?
    }

    /// What lists the namespace's sockets.
    pub fn diag(&self, home: &Self) -> io::Result<Diag> {
        let socket = inside(&self.file, &home.file, || {
            nix::sys::socket::socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::NetlinkSockDiag,
            )
        })??;
        Ok(Diag::new(socket))
    }

    /// A socket inside the namespace that begins to connect to `to`, bound to
    /// the address `from`: the upstream sees the pod, not the node.
    pub fn connect(
        &self,
        home: &Self,
        from: IpAddr,
        to: SocketAddr,
        reach: Reach,
    ) -> io::Result<std::net::TcpStream> {
        inside(&self.file, &home.file, || {
            let socket = stream(to)?;
            socket.set_tcp_nodelay(true)?;
            socket.set_tcp_keepalive(&KEEPALIVE)?;
            if reach == Reach::Node {
                socket.set_tcp_congestion(NODE_CONGESTION)?;
            }
            bind_late(&socket)?;
            socket.bind(&SocketAddr::new(from, 0).into())?;
            match socket.connect(&to.into()) {
                Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
                _ => Ok(socket.into()),
            }
        })?
    }
}

/// Runs `work` in `there` and returns to `home`.
fn inside<T>(there: &File, home: &File, work: impl FnOnce() -> T) -> io::Result<T> {
    setns(there.as_fd(), CloneFlags::CLONE_NEWNET)?;
    let done = work();
    if let Err(errno) = setns(home.as_fd(), CloneFlags::CLONE_NEWNET) {
        tracing::error!(%errno, "a thread cannot return to its network namespace: aborting");
        std::process::abort();
    }
    Ok(done)
}

fn stream(addr: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking();
    Socket::new(Domain::for_address(addr), kind, Some(Protocol::TCP))
}

fn view() -> io::Result<NetnsView> {
    let states = v6_states();
    let mut view = NetnsView {
        addrs: Vec::new(),
        loopback: None,
    };
    for interface in getifaddrs()? {
        let loopback = interface.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        let ifindex = if_nametoindex(interface.interface_name.as_str())?;
        if loopback && interface.flags.contains(InterfaceFlags::IFF_UP) {
            view.loopback = Some(ifindex);
        }
        let Some(addr) = interface.address else {
            continue;
        };
        let ip = match (addr.as_sockaddr_in(), addr.as_sockaddr_in6()) {
            (Some(v4), _) => IpAddr::V4(v4.ip()),
            (_, Some(v6)) => IpAddr::V6(v6.ip()),
            _ => continue,
        };
        let known = states.iter().find(|(v6, _)| *v6 == ip);
        view.addrs.push(LocalAddr {
            ip,
            ifindex,
            loopback,
            state: known.map_or(AddrState::Stable, |(_, state)| *state),
        });
    }
    Ok(view)
}

/// The IPv6 addresses of the namespace with their states, which `getifaddrs`
/// does not tell. A kernel without IPv6 has no such file, and no such address.
fn v6_states() -> Vec<(IpAddr, AddrState)> {
    let text = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default();
    text.lines().filter_map(v6_state).collect()
}

/// One line: address, interface, prefix length, scope, flags, name; all numbers in hex.
pub(crate) fn v6_state(line: &str) -> Option<(IpAddr, AddrState)> {
    // From the kernel's <linux/if_addr.h>.
    const TEMPORARY: u8 = 0x01;
    const DUPLICATE: u8 = 0x08;
    const DEPRECATED: u8 = 0x20;
    const TENTATIVE: u8 = 0x40;
    let mut fields = line.split_ascii_whitespace();
    let bits = u128::from_str_radix(fields.next()?, 16).ok()?;
    let flags = u8::from_str_radix(fields.nth(3)?, 16).ok()?;
    let state = match flags {
        flags if flags & DUPLICATE != 0 => AddrState::Duplicate,
        flags if flags & TENTATIVE != 0 => AddrState::Tentative,
        flags if flags & (TEMPORARY | DEPRECATED) != 0 => AddrState::Passing,
        _ => AddrState::Stable,
    };
    Some((Ipv6Addr::from_bits(bits).into(), state))
}

/// A classic filter that passes packets of one interface and drops the rest:
/// `ld [SKF_AD_OFF + SKF_AD_IFINDEX]; jeq #index; ret #-1; ret #0`.
fn from_interface(index: u32) -> [SockFilter; 4] {
    const LOAD_IFINDEX: u32 = 0xffff_f000 + 8;
    [
        SockFilter::new(0x20, 0, 0, LOAD_IFINDEX),
        SockFilter::new(0x15, 0, 1, index),
        SockFilter::new(0x06, 0, 0, u32::MAX),
        SockFilter::new(0x06, 0, 0, 0),
    ]
}

/// The cookie of the namespace that `socket` lives in (Linux 5.14).
fn netns_cookie(socket: &Socket) -> io::Result<NetnsCookie> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let mut cookie = 0_u64;
    let mut len = libc::socklen_t::try_from(size_of::<u64>()).expect("eight");
    // SAFETY: `cookie` is as large as `len` says, both outlive the call.
    let ret = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &raw mut len,
        )
    };
    if ret == 0 {
        Ok(NetnsCookie(cookie))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Lets the kernel choose the source port at `connect`, by the whole tuple:
/// else one upstream address could take only as many connections as there are ports.
fn bind_late(socket: &Socket) -> io::Result<()> {
    set(socket, libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

/// An option that is an int, and that no crate has a call for.
fn set(
    socket: &Socket,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: `value` is an int, as `len` says, and outlives the call.
    let ret = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(&value).cast(),
            libc::socklen_t::try_from(size_of::<libc::c_int>()).expect("four"),
        )
    };
    if ret == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Makes the next close of `socket` send RST and drop what was not sent.
pub fn reset_on_close(socket: &impl AsFd) {
    // A socket that is already dead cannot be reset any more: nothing is lost.
    let _dead = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_which_addresses_can_be_used() {
        for (flags, state) in [
            ("80", AddrState::Stable),
            ("01", AddrState::Passing),
            ("a0", AddrState::Passing),
            ("c0", AddrState::Tentative),
            ("c8", AddrState::Duplicate),
        ] {
            let line = format!("fd000010024400010000000000000007 0b 40 00 {flags}     eth0");
            let ip = "fd00:10:244:1::7".parse().unwrap();
            assert_eq!(v6_state(&line), Some((ip, state)), "{flags}");
        }
        assert_eq!(v6_state("fd00"), None);
    }
}
