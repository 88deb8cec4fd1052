//! Sets that are asked before a table is: what spares a look-up.
//!
//! Each may take a stranger for one of its own, and never the other way round:
//! "no" is final, and after "maybe" the table is asked. Must never be the only
//! one that is asked.

use crate::addr::Addr;
use crate::id::NetnsCookie;

const WORDS: usize = 64;

/// The enrolled namespaces, for those that are not: the one value of `ENROLLED`.
/// Cookies are given in turn, so two of them seldom share a bit.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enrolled {
    words: [u64; WORDS],
}

impl Enrolled {
    /// Whether the namespace may be one of them.
    #[inline(always)]
    pub const fn may_hold(&self, netns: NetnsCookie) -> bool {
        let (word, bit) = Self::place(netns);
        self.words[word] & bit != 0
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "below the number of words")]
    const fn place(netns: NetnsCookie) -> (usize, u64) {
        let word = (netns.0 / u64::BITS as u64) % WORDS as u64;
        (word as usize, 1 << (netns.0 % u64::BITS as u64))
    }
}

/// The addresses inside one namespace, for those that are elsewhere: part of
/// its entry in `WORKLOADS`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnAddresses(u64);

impl OwnAddresses {
    /// Whether the address may be one of them.
    #[inline(always)]
    pub const fn may_hold(self, addr: &Addr) -> bool {
        self.0 & Self::bit(addr) != 0
    }

    /// Every byte of the address has a say, so that neighbours part.
    #[inline(always)]
    const fn bit(addr: &Addr) -> u64 {
        let [a, b, c, d] = addr.words();
        let word = a ^ b ^ c ^ d;
        let half = word ^ (word >> 16);
        1 << ((half ^ (half >> 8)) % u64::BITS)
    }
}

impl FromIterator<Addr> for OwnAddresses {
    fn from_iter<T: IntoIterator<Item = Addr>>(addrs: T) -> Self {
        let bits = addrs.into_iter().map(|addr| Self::bit(&addr));
        Self(bits.fold(0, |all, bit| all | bit))
    }
}

impl FromIterator<NetnsCookie> for Enrolled {
    fn from_iter<T: IntoIterator<Item = NetnsCookie>>(cookies: T) -> Self {
        let mut words = [0; WORDS];
        for cookie in cookies {
            let (word, bit) = Self::place(cookie);
            words[word] |= bit;
        }
        Self { words }
    }
}

const _: () = {
    assert!(size_of::<Enrolled>() == 8 * WORDS);
    assert!(size_of::<OwnAddresses>() == 8);
};

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;

    #[test]
    fn nobody_who_was_put_in_is_denied() {
        let cookies = || (0..200).map(|number| NetnsCookie(number * 977));
        let enrolled: Enrolled = cookies().collect();
        assert!(cookies().all(|cookie| enrolled.may_hold(cookie)));
        let nobody: Enrolled = [].into_iter().collect();
        assert!(!cookies().any(|cookie| nobody.may_hold(cookie)));
    }

    #[test]
    fn neighbours_are_told_apart() {
        let enrolled: Enrolled = [NetnsCookie(70)].into_iter().collect();
        let held = (0..4_096).filter(|cookie| enrolled.may_hold(NetnsCookie(*cookie)));
        assert!(held.eq([70]));
        assert!(
            enrolled.may_hold(NetnsCookie(70 + 4_096)),
            "the table has the say"
        );

        let addr = |last: u8| Addr::from(Ipv4Addr::new(10, 244, 1, last));
        let own: OwnAddresses = [addr(2)].into_iter().collect();
        assert!(own.may_hold(&addr(2)));
        let taken = (0..=255).filter(|last| own.may_hold(&addr(*last)));
        assert_eq!(taken.count(), 256 / 64, "one of 64 is taken for it");
    }
}
