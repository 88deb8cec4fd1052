//! Egress by address: which prefix of a policy set covers an address, and what
//! its ports do.
//!
//! Owns the layout of `EGRESS`, `EGRESS_LENGTHS` and `EGRESS_PORTS`, and the search
//! for the longest prefix: one look-up for each length that the policy set has, the
//! longest first. So a connect costs the same behind one rule and behind a hundred
//! thousand; a trie goes one node deeper for each bit in which they differ. Must
//! never go on to an IPv6 prefix for an IPv4 address.

use crate::addr::{Addr, Port};
use crate::id::{PolicySetId, PortTableId, RuleId};
use crate::transport::Transport;

/// Bits of `::ffff:0:0/96`, in which every IPv4 address lies.
pub const V4_BITS: u32 = 96;

/// Key of `EGRESS`: a prefix of one policy set.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EgressKey {
    /// The policy set.
    pub policy_set: PolicySetId,
    /// Its length in terms of 128 bits: that of an IPv4 `/24` is 96 + 24.
    pub bits: u32,
    /// Its first address.
    pub addr: Addr,
}

/// Value of `EGRESS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EgressEntry {
    /// The ports that are open behind this prefix, those of every shorter
    /// prefix that covers it included.
    pub port_table: PortTableId,
}

/// Key of `EGRESS_PORTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortKey {
    /// The table.
    pub port_table: PortTableId,
    /// The external port.
    pub port: Port,
    /// A [`Transport`], as its number.
    pub(crate) transport: u16,
}

impl PortKey {
    /// The key of a port in one table.
    #[inline(always)]
    pub const fn new(port_table: PortTableId, port: Port, transport: Transport) -> Self {
        Self {
            port_table,
            port,
            transport: transport.number(),
        }
    }

    /// Whether the port is one of `transport`.
    pub const fn is(&self, transport: Transport) -> bool {
        self.transport == transport.number()
    }
}

/// What an egress rule does with a connect or a datagram to its port. In this
/// order the wider wins; UDP knows the first two alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EgressAction {
    /// Straight through (`tcp`, `tls`, `https`, `udp` on an address).
    Direct,
    /// Straight through, to a resolver: no rule says so, the daemon's settings do.
    Resolver,
    /// Through the proxy; allowed by address, must be HTTP (`http` on an address).
    Http,
    /// Through the proxy; allowed only if the request names a host whose
    /// addresses contain the dialled one (`http` on a host name).
    HttpByName,
}

/// Value of `EGRESS_PORTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortEntry {
    pub(crate) action: u32,
    /// The rule that opened the port. For [`EgressAction::HttpByName`] one of
    /// several: the proxy finds out which rule names the host.
    pub rule: RuleId,
}

impl PortEntry {
    /// The entry for `action`, opened by `rule`.
    pub const fn new(action: EgressAction, rule: RuleId) -> Self {
        Self {
            action: match action {
                EgressAction::Direct => 1,
                EgressAction::Http => 2,
                EgressAction::HttpByName => 3,
                EgressAction::Resolver => 4,
            },
            rule,
        }
    }

    /// What to do; the strictest for an unknown number.
    #[inline(always)]
    pub const fn action(&self) -> EgressAction {
        match self.action {
            1 => EgressAction::Direct,
            2 => EgressAction::Http,
            4 => EgressAction::Resolver,
            _ => EgressAction::HttpByName,
        }
    }
}

/// Value of `EGRESS_LENGTHS`: the lengths that the prefixes of a policy set have, by
/// family, the longest first. Each is one more than the length; 0 ends the list. It may
/// name a length that no prefix has any more, never the other way round.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    v4: [u8; 33],
    v6: [u8; 129],
    pad: [u8; 2],
}

impl Lengths {
    /// No prefix.
    pub const NONE: Self = Self {
        v4: [0; 33],
        v6: [0; 129],
        pad: [0; 2],
    };

    /// The lengths of IPv4 prefixes and of IPv6 ones, both in terms of 128 bits, in
    /// any order.
    pub fn new(v4: impl IntoIterator<Item = u32>, v6: impl IntoIterator<Item = u32>) -> Self {
        let mut lengths = Self::NONE;
        fill(&mut lengths.v4, v4);
        fill(&mut lengths.v6, v6);
        lengths
    }

    /// Those of IPv4 prefixes, the longest first.
    pub fn v4(&self) -> impl Iterator<Item = u32> {
        listed(&self.v4)
    }

    /// Those of IPv6 prefixes, the longest first.
    pub fn v6(&self) -> impl Iterator<Item = u32> {
        listed(&self.v6)
    }

    /// What either has.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self::new(self.v4().chain(other.v4()), self.v6().chain(other.v6()))
    }

    /// Whether some weir wrote it: what is listed falls, and fits its family.
    pub(crate) fn is_sound(&self) -> bool {
        let falls = |list: &[u8]| {
            let pairs = list.iter().zip(list.iter().skip(1));
            pairs
                .into_iter()
                .all(|(a, b)| a > b || (*a == 0 && *b == 0))
        };
        let v4 = self.v4().all(|bits| (V4_BITS..=128).contains(&bits));
        let v6 = self.v6().all(|bits| bits <= 128);
        falls(&self.v4) && falls(&self.v6) && v4 && v6 && self.pad == [0; 2]
    }
}

fn fill<const N: usize>(list: &mut [u8; N], lengths: impl IntoIterator<Item = u32>) {
    let mut present = [false; 129];
    for bits in lengths {
        if let Some(present) = present.get_mut(bits as usize) {
            *present = true;
        }
    }
    let longest_first = (1..=129_u8).rev().zip(present.into_iter().rev());
    let numbers = longest_first.filter_map(|(number, present)| present.then_some(number));
    for (place, number) in list.iter_mut().zip(numbers) {
        *place = number;
    }
}

fn listed(list: &[u8]) -> impl Iterator<Item = u32> {
    let numbers = list.iter().take_while(|number| **number != 0);
    numbers.map(|number| u32::from(*number) - 1)
}

/// `EGRESS` and `EGRESS_LENGTHS`.
pub trait Prefixes {
    /// Which lengths the prefixes of a policy set have.
    fn lengths(&self, policy_set: PolicySetId) -> Option<&Lengths>;
    /// What a prefix leads to.
    fn prefix(&self, key: &EgressKey) -> Option<EgressEntry>;
}

/// The entry of the longest prefix of the policy set that covers the address.
#[inline(always)]
pub fn longest<T: Prefixes>(
    tables: &T,
    policy_set: PolicySetId,
    addr: &Addr,
) -> Option<EgressEntry> {
    let lengths = tables.lengths(policy_set)?;
    if addr.is_v4() {
        first(tables, policy_set, &lengths.v4, |bits| addr.in_v4(bits))
    } else {
        first(tables, policy_set, &lengths.v6, |bits| addr.prefix(bits))
    }
}

/// The entry of the first listed length at which the address has one.
#[inline(always)]
fn first<T: Prefixes, const N: usize>(
    tables: &T,
    policy_set: PolicySetId,
    list: &[u8; N],
    prefix: impl Fn(u32) -> Addr,
) -> Option<EgressEntry> {
    let mut index = 0;
    while index < N {
        let number = list[index];
        if number == 0 {
            break;
        }
        let bits = u32::from(number) - 1;
        let key = EgressKey {
            policy_set,
            bits,
            addr: prefix(bits),
        };
        if let Some(entry) = tables.prefix(&key) {
            return Some(entry);
        }
        index += 1;
    }
    None
}

const _: () = {
    assert!(size_of::<EgressKey>() == 24);
    assert!(size_of::<EgressEntry>() == 4);
    assert!(size_of::<Lengths>() == 164);
    assert!(size_of::<PortKey>() == 8);
    assert!(size_of::<PortEntry>() == 8);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_listed_longest_first_and_once() {
        let lengths = Lengths::new([120, 128, 96, 120], [0, 64, 128]);
        assert!(lengths.v4().eq([128, 120, 96]));
        assert!(lengths.v6().eq([128, 64, 0]));
        assert!(lengths.is_sound() && Lengths::NONE.is_sound());
        let all = Lengths::new(V4_BITS..=128, 0..=128);
        assert!(all.v4().count() == 33 && all.v6().count() == 129 && all.is_sound());
        assert_eq!(lengths.union(&all), all);
        assert_eq!(lengths.union(&Lengths::NONE), lengths);
    }

    #[test]
    fn a_list_that_rises_or_names_what_is_not_there_was_never_written() {
        let mut rising = Lengths::new([128, 120], []);
        rising.v4.swap(0, 1);
        let foreign = Lengths::new([64], []);
        let too_long = Lengths {
            v6: [131; 129],
            ..Lengths::NONE
        };
        for lengths in [rising, foreign, too_long] {
            assert!(!lengths.is_sound(), "{lengths:?}");
        }
    }
}
