//! What carries a connection or a datagram: the other half of a port number.
//!
//! Must never take an unknown protocol for one of these: weir decides on TCP
//! and UDP, and leaves everything else alone.

use core::fmt;

/// TCP or UDP, with IP's own numbers for them.
#[repr(u16)]
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// Connections.
    Tcp = 6,
    /// Datagrams.
    Udp = 17,
}

/// UDP with a partial checksum (RFC 3828; gone from Linux after 7.0): the same
/// calls reach the same hooks, so the rules for UDP hold for it too.
const UDP_LITE: u32 = 136;

impl Transport {
    /// That of a socket's IP protocol; `None`: no business of weir's.
    #[inline(always)]
    pub const fn from_protocol(protocol: u32) -> Option<Self> {
        match protocol {
            6 => Some(Self::Tcp),
            17 | UDP_LITE => Some(Self::Udp),
            _ => None,
        }
    }

    /// Its number in map keys and records.
    #[inline(always)]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The stable name that logs, metrics and `weir explain` use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
