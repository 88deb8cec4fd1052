//! Addresses as both halves hold them: 128 bits, IPv4 as `::ffff:a.b.c.d`
//! (RFC 4291 section 2.5.5.2), so that every map has one key shape.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An IP address in 128 bits, network byte order, IPv4 as v4-mapped.
///
/// Held as four words because that is how the kernel hands it to a hook
/// (`bpf_sock_addr.user_ip6`) and how the verifier likes it compared.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub struct Addr {
    words: [u32; 4],
}

/// The third word of every v4-mapped address.
const MAPPED: u32 = 0xffff_u32.to_be();

impl Addr {
    /// `::`.
    pub const UNSPECIFIED: Self = Self { words: [0; 4] };

    /// From the four words of a hook's context, network byte order.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self { words }
    }

    /// From an IPv4 address in network byte order, as in `user_ip4`.
    #[inline(always)]
    pub const fn from_v4_word(word: u32) -> Self {
        Self {
            words: [0, 0, MAPPED, word],
        }
    }

    /// The four words, network byte order.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        self.words
    }

    /// The IPv4 word in network byte order; meaningful only if [`Self::is_v4`].
    #[inline(always)]
    pub const fn v4_word(&self) -> u32 {
        self.words[3]
    }

    /// Whether this is an IPv4 address in its mapped form.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.words[0] == 0 && self.words[1] == 0 && self.words[2] == MAPPED
    }

    /// Of an IPv4 address: the first address of the prefix of `bits` bits, 96 to 128,
    /// that it lies in.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the low half is the mask")]
    pub const fn in_v4(&self, bits: u32) -> Self {
        let mask = (u32::MAX as u64).wrapping_shl(128_u32.wrapping_sub(bits)) as u32;
        let [a, b, c, d] = self.words;
        Self {
            words: [a, b, c, d & mask.to_be()],
        }
    }

    /// The first address of the prefix of `bits` bits, at most 128, that it lies in.
    ///
    /// Without a branch: the hook does this in a loop, of which the verifier walks
    /// every way.
    #[inline(always)]
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "each shift leaves one word"
    )]
    pub fn prefix(&self, bits: u32) -> Self {
        let below = |bound: i64| ((i64::from(bits) - bound) >> 63).cast_unsigned();
        let [a, b, c, d] = self.words;
        let upper = (u64::MAX.wrapping_shl(64_u32.wrapping_sub(bits)) | !below(64)) & !below(1);
        let lower = u64::MAX.wrapping_shl(128_u32.wrapping_sub(bits)) & !below(65);
        Self {
            words: [
                a & ((upper >> 32) as u32).to_be(),
                b & (upper as u32).to_be(),
                c & ((lower >> 32) as u32).to_be(),
                d & (lower as u32).to_be(),
            ],
        }
    }

    /// `127.0.0.0/8` or `::1`.
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        if self.is_v4() {
            u32::from_be(self.words[3]) >> 24 == 127
        } else {
            self.words[0] == 0
                && self.words[1] == 0
                && self.words[2] == 0
                && self.words[3] == 1_u32.to_be()
        }
    }

    /// `0.0.0.0` or `::`; the kernel takes both for "this host".
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        self.words[0] == 0
            && self.words[1] == 0
            && self.words[3] == 0
            && (self.words[2] == 0 || self.words[2] == MAPPED)
    }

    /// The address in the standard library's form, IPv4 unwrapped.
    pub const fn to_ip(self) -> IpAddr {
        if self.is_v4() {
            IpAddr::V4(Ipv4Addr::from_bits(u32::from_be(self.words[3])))
        } else {
            let w = self.words;
            let bits = (u32::from_be(w[0]) as u128) << 96
                | (u32::from_be(w[1]) as u128) << 64
                | (u32::from_be(w[2]) as u128) << 32
                | u32::from_be(w[3]) as u128;
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        }
    }
}

impl From<Ipv4Addr> for Addr {
    fn from(ip: Ipv4Addr) -> Self {
        Self::from_v4_word(ip.to_bits().to_be())
    }
}

impl From<Ipv6Addr> for Addr {
    fn from(ip: Ipv6Addr) -> Self {
        let bits = ip.to_bits();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "each shift leaves one word"
        )]
        let word = |shift: u32| ((bits >> shift) as u32).to_be();
        Self {
            words: [word(96), word(64), word(32), word(0)],
        }
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => ip.into(),
            IpAddr::V6(ip) => ip.into(),
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ip().fmt(f)
    }
}

/// A TCP port in host byte order.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port(pub u16);

impl Port {
    /// From a hook's 32-bit `user_port`: network byte order in the low half.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the high half is always zero"
    )]
    pub const fn from_user_port(port: u32) -> Self {
        Self(u16::from_be(port as u16))
    }

    /// The form that a hook writes back to `user_port`.
    #[inline(always)]
    pub const fn to_user_port(self) -> u32 {
        self.0.to_be() as u32
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What an application dialled: the role, not just an address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    /// Dialled address.
    pub addr: Addr,
    /// Dialled port.
    pub port: Port,
}

impl Destination {
    /// In the standard library's form.
    pub const fn to_socket_addr(self) -> SocketAddr {
        SocketAddr::new(self.addr.to_ip(), self.port.0)
    }
}

impl From<SocketAddr> for Destination {
    fn from(addr: SocketAddr) -> Self {
        Self {
            addr: addr.ip().into(),
            port: Port(addr.port()),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_socket_addr().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v4_round_trips_through_the_mapped_form() {
        let addr = Addr::from(Ipv4Addr::new(10, 1, 2, 3));
        assert!(addr.is_v4());
        assert_eq!(addr.to_ip(), IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3)));
        let mapped = Addr::from(Ipv4Addr::new(10, 1, 2, 3).to_ipv6_mapped());
        assert_eq!(addr, mapped, "::ffff:a.b.c.d is the same destination");
    }

    #[test]
    fn prefixes_count_from_the_128_bit_front() {
        let addr = |a, b, c, d| Addr::from(Ipv4Addr::new(a, b, c, d));
        let whole = addr(10, 1, 2, 3);
        for (bits, first) in [
            (96 + 8, addr(10, 0, 0, 0)),
            (96 + 31, addr(10, 1, 2, 2)),
            (128, whole),
            (96, addr(0, 0, 0, 0)),
        ] {
            assert_eq!(whole.prefix(bits), first, "{bits}");
            assert_eq!(whole.in_v4(bits), first, "{bits}");
        }
        assert_eq!(whole.prefix(0), Addr::UNSPECIFIED);
        let v6 = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
        let whole = v6("fd12:3456:789a:bcde:f123:4567:89ab:cdef");
        assert_eq!(whole.prefix(33), v6("fd12:3456::"));
        assert_eq!(whole.prefix(64), v6("fd12:3456:789a:bcde::"));
        assert_eq!(
            whole.prefix(127),
            v6("fd12:3456:789a:bcde:f123:4567:89ab:cdee")
        );
    }

    #[test]
    fn loopback_and_unspecified_are_told_in_both_families() {
        for ip in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(
                Addr::from(ip.parse::<IpAddr>().unwrap()).is_loopback(),
                "{ip}"
            );
        }
        for ip in ["0.0.0.0", "::", "::ffff:0.0.0.0"] {
            assert!(
                Addr::from(ip.parse::<IpAddr>().unwrap()).is_unspecified(),
                "{ip}"
            );
        }
        for ip in ["10.0.0.1", "::2", "1::1", "128.0.0.1"] {
            let addr = Addr::from(ip.parse::<IpAddr>().unwrap());
            assert!(!addr.is_loopback() && !addr.is_unspecified(), "{ip}");
        }
    }

    #[test]
    fn ports_cross_the_hook_in_network_order() {
        assert_eq!(Port::from_user_port(Port(8080).to_user_port()), Port(8080));
        assert_eq!(Port(0x1234).to_user_port(), u32::from(0x1234_u16.to_be()));
    }
}
