//! The ways to name an address: each case is run in all that it knows.

use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// Which addresses a socket speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// IPv4 by `::ffff:a.b.c.d`, as runtimes with one dual-stack socket do it.
    Mapped,
}

impl Way {
    /// All of them.
    pub const ALL: &[Self] = &[Self::V4, Self::V6, Self::Mapped];

    /// What the name of a family of cases ends with.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::V4 => "",
            Self::V6 => "6",
            Self::Mapped => "-mapped",
        }
    }

    /// What people call it.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
            Self::Mapped => "mapped",
        }
    }

    /// A socket that speaks it.
    pub(super) fn socket(self, kind: Type, protocol: Protocol) -> std::io::Result<Socket> {
        if self == Self::V4 {
            return Socket::new(Domain::IPV4, kind, Some(protocol));
        }
        let socket = Socket::new(Domain::IPV6, kind, Some(protocol))?;
        socket.set_only_v6(false)?;
        Ok(socket)
    }

    /// Whether its sockets are those of IPv6.
    pub(super) fn is_six(self) -> bool {
        self != Self::V4
    }

    /// Of one host's two addresses the one that it speaks, as it names it.
    pub(super) fn named(self, four: SocketAddr, six: SocketAddr) -> SocketAddr {
        match self {
            Self::V4 => four,
            Self::V6 => six,
            Self::Mapped => self.of_peer(four),
        }
    }

    /// How it names an address that the peer saw: the peer has no mapped ones.
    pub(super) fn of_peer(self, seen: SocketAddr) -> SocketAddr {
        match (self, seen.ip()) {
            (Self::Mapped, IpAddr::V4(ip)) => {
                SocketAddr::new(ip.to_ipv6_mapped().into(), seen.port())
            }
            _ => seen,
        }
    }

    /// What is to be said of an address that is not of its form.
    pub(super) fn oddity(self, ip: IpAddr) -> String {
        let form = match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(six) if six.to_ipv4_mapped().is_some() => Self::Mapped,
            // A dual-stack socket that has no address yet has none of either family.
            IpAddr::V6(six) if six.is_unspecified() && self.is_six() => return String::new(),
            IpAddr::V6(_) => Self::V6,
        };
        if form == self {
            String::new()
        } else {
            format!(" ({})", form.text())
        }
    }
}
