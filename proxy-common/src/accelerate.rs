//! Socket-to-socket acceleration: who takes part, and how the two ends of a
//! connection on this node know each other.
//!
//! A **seat** is a socket's place among those that bytes can be handed to. Both
//! seats of a connection are named by the cookie of the socket that dialled, so
//! neither end has to be told the other's. Must stay pure, like everything here.

use crate::addr::{Addr, Port};
use crate::id::NetnsCookie;

/// What a workload asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Acceleration {
    /// Never.
    #[default]
    Off,
    /// Where the self-test found that all known cases hold.
    Auto,
    /// Whatever the self-test found.
    Force,
}

impl Acceleration {
    /// The word for it in settings and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Auto => "auto",
            Self::Force => "force",
        }
    }

    /// The one with this number; an unknown number asks for nothing.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Auto,
            2 => Self::Force,
            _ => Self::Off,
        }
    }
}

/// For whom the hooks accelerate now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Extent {
    /// For nobody: the programs are not attached.
    #[default]
    Nobody,
    /// For workloads that force it.
    Forced,
    /// For all that do not refuse it.
    All,
}

impl Extent {
    /// The one with this number; an unknown number accelerates nobody.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Forced,
            2 => Self::All,
            _ => Self::Nobody,
        }
    }

    /// Whether a workload that asks for `asked` takes part.
    #[inline(always)]
    pub const fn covers(self, asked: Acceleration) -> bool {
        match self {
            Self::Nobody => false,
            Self::Forced => matches!(asked, Acceleration::Force),
            Self::All => matches!(asked, Acceleration::Force | Acceleration::Auto),
        }
    }
}

/// Key of `SEATS`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat(u64);

impl Seat {
    /// That of the socket with this cookie, which dials. Cookies are counted
    /// from 1 up, so that none ever needs the top bit.
    #[inline(always)]
    pub const fn dialling(cookie: u64) -> Self {
        Self(cookie << 1)
    }

    /// That of whoever sits opposite.
    #[inline(always)]
    #[must_use]
    pub const fn opposite(self) -> Self {
        Self(self.0 ^ 1)
    }

    /// The cookie of the socket that dialled: one for both seats.
    #[inline(always)]
    pub const fn dialler(self) -> u64 {
        self.0 >> 1
    }

    /// Whether the socket in it dialled.
    #[inline(always)]
    pub const fn dialled(self) -> bool {
        self.0 & 1 == 0
    }
}

/// How far a socket is on its way to its seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// weir's own socket is about to dial for a pod.
    Upstream,
    /// It dialled; whoever accepts finds the offer.
    Offered,
    /// It has its seat; its bytes may be handed over.
    Seated,
    /// It has its seat; its own bytes go through TCP.
    Receives,
}

impl Stage {
    /// The stage with this number; an unknown one hands nothing over.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Upstream,
            1 => Self::Offered,
            2 => Self::Seated,
            _ => Self::Receives,
        }
    }
}

/// What is known of a socket that takes part: value of `PARTNERS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Partner {
    /// Its own seat.
    pub seat: Seat,
    /// Of a socket that dials: where its connection is accepted.
    pub accepted_in: NetnsCookie,
    /// The sequence number at which its first byte would go through TCP: as long
    /// as TCP still stands there, none did.
    pub first_byte: u32,
    /// A [`Stage`], as its number.
    pub stage: u8,
    /// 1: what it hands over is counted in `HANDED`.
    counted: u8,
    /// Always 0.
    pub pad: [u8; 2],
}

impl Partner {
    /// That of weir's own socket, before it dials.
    pub const UPSTREAM: Self = Self {
        seat: Seat(0),
        accepted_in: NetnsCookie(0),
        first_byte: 0,
        stage: Stage::Upstream as u8,
        counted: 0,
        pad: [0; 2],
    };

    /// That of a socket that dialled; `is_counted`: its connection has its place in `HANDED`.
    #[inline(always)]
    pub const fn offered(seat: Seat, accepted_in: NetnsCookie, is_counted: bool) -> Self {
        Self {
            seat,
            accepted_in,
            first_byte: 0,
            stage: Stage::Offered as u8,
            counted: is_counted as u8,
            pad: [0; 2],
        }
    }

    /// That of a socket that was accepted, before it has its seat.
    #[inline(always)]
    pub const fn accepted(seat: Seat, is_counted: bool) -> Self {
        Self::offered(seat, NetnsCookie(0), is_counted)
    }

    /// Whether what it hands over is counted.
    #[inline(always)]
    pub const fn is_counted(&self) -> bool {
        self.counted != 0
    }

    /// The same socket on its seat; `spoke`: TCP has carried bytes of it.
    #[inline(always)]
    #[must_use]
    pub const fn seated(self, first_byte: u32, spoke: bool) -> Self {
        let stage = if spoke {
            Stage::Receives
        } else {
            Stage::Seated
        };
        Self {
            first_byte,
            stage: stage as u8,
            ..self
        }
    }

    /// How far it is.
    #[inline(always)]
    pub const fn stage(&self) -> Stage {
        Stage::from_number(self.stage)
    }
}

/// What the two ends of a balanced connection handed to each other past TCP,
/// whose own counters know nothing of it; value of `HANDED`, by the cookie of the
/// socket that dialled. Each number has one writer, under its socket's lock.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handed {
    /// Bytes from the socket that dialled.
    pub sent: u64,
    /// Bytes to it.
    pub received: u64,
}

impl Handed {
    /// Counts `bytes` that the socket in `seat` has handed over.
    #[inline(always)]
    pub const fn add(&mut self, seat: Seat, bytes: u32) {
        let way = if seat.dialled() {
            &mut self.sent
        } else {
            &mut self.received
        };
        *way = way.wrapping_add(bytes as u64);
    }
}

/// Key of `OFFERS`: a connection as its accepting side will see it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OfferKey {
    /// Where it is accepted.
    pub netns: NetnsCookie,
    /// The dialling socket's address.
    pub from: Addr,
    /// The accepting socket's address.
    pub to: Addr,
    /// The dialling socket's port.
    pub from_port: Port,
    /// The accepting socket's port.
    pub to_port: Port,
    /// Always 0.
    pub pad: u32,
}

const _: () = {
    assert!(size_of::<Partner>() == 24);
    assert!(size_of::<Handed>() == 16);
    assert!(size_of::<OfferKey>() == 48);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_name_their_seats_by_one_cookie() {
        let dialling = Seat::dialling(7);
        let accepting = dialling.opposite();
        assert_ne!(dialling, accepting);
        assert_eq!(accepting.opposite(), dialling);
        assert!(dialling.dialled() && !accepting.dialled());
        assert_ne!(accepting, Seat::dialling(8));
        assert_eq!((dialling.dialler(), accepting.dialler()), (7, 7));
    }

    #[test]
    fn bytes_count_for_the_way_that_they_go() {
        let mut handed = Handed::default();
        let dialling = Seat::dialling(7);
        handed.add(dialling, 3);
        handed.add(dialling.opposite(), 5);
        handed.add(dialling, 4);
        assert_eq!((handed.sent, handed.received), (7, 5));
    }

    #[test]
    fn an_extent_covers_who_asked_for_as_much() {
        use Acceleration::{Auto, Force, Off};
        let covered = |extent: Extent| [Off, Auto, Force].map(|asked| extent.covers(asked));
        assert_eq!(covered(Extent::Nobody), [false, false, false]);
        assert_eq!(covered(Extent::Forced), [false, false, true]);
        assert_eq!(covered(Extent::All), [false, true, true]);
    }
}
