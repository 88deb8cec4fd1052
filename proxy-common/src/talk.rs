//! What a UDP socket remembers: with which endpoints it talks under which
//! virtual addresses, and what was last told of it.
//!
//! Owns which of several talks is meant. Must stay pure, and must only ever be
//! changed under the socket's lock, which the kernel holds around these hooks.

use crate::addr::Port;
use crate::balance::{Block, Target, lists};
use crate::cells::{CELLS, Cells};
use crate::decide::{Reason, Tables};
use crate::id::{BlockGeneration, NetnsCookie};

/// Talks that one socket has at a time. With one more, that which was silent
/// longest is forgotten.
pub const TALKS_MAX: usize = 16;

/// How often one socket tells of one destination at most.
const TOLD_PAUSE_NANOS: u64 = 1_000_000_000;

/// What was dialled, and who answers there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Talk {
    /// What the application sends to and hears from; port 0: nothing is here.
    pub dialled: Target,
    /// Where its datagrams go and come from.
    pub endpoint: Target,
    /// The block that last listed the endpoint.
    pub generation: BlockGeneration,
    /// Always 0.
    pub pad: u32,
    /// The number of its last use.
    used: u64,
}

/// The talks of one socket. All zero: none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Talks {
    talks: [Talk; TALKS_MAX],
    /// Uses so far.
    clock: u64,
}

/// Value of `TALKS`: a socket's talks, and room to search them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Talking {
    /// The talks.
    pub talks: Talks,
    /// What they hold between two hooks means nothing.
    pub cells: [u64; CELLS],
}

impl Talks {
    /// The endpoint that `dialled` goes to, as long as `block` lists it;
    /// [`Target::NOBODY`]: there is none, or no more. A plain value, as in [`Draw`].
    ///
    /// [`Draw`]: crate::Draw
    #[inline(always)]
    pub fn endpoint<T: Tables, C: Cells>(
        &self,
        tables: &T,
        cells: &C,
        block: Block,
        dialled: &Target,
    ) -> Target {
        let Some(talk) = self.find(cells, dialled) else {
            return Target::NOBODY;
        };
        if talk.generation.0 == block.generation.0 || lists(tables, cells, block, &talk.endpoint) {
            talk.endpoint
        } else {
            Target::NOBODY
        }
    }

    #[inline(always)]
    fn find<C: Cells>(&self, cells: &C, dialled: &Target) -> Option<&Talk> {
        cells.put(PLACE, NOWHERE);
        let mut index = 0;
        while index < TALKS_MAX {
            if same(&self.talks[index].dialled, dialled) {
                cells.put(PLACE, index as u64);
            }
            index += 1;
        }
        self.talks.get(place(cells))
    }

    /// Notes a use of a talk, which may be new. True: another was forgotten for it.
    #[inline(always)]
    pub fn note<C: Cells>(
        &mut self,
        cells: &C,
        dialled: Target,
        endpoint: Target,
        generation: BlockGeneration,
    ) -> bool {
        self.clock = self.clock.wrapping_add(1);
        let used = self.clock;
        let is_new = self.find(cells, &dialled).is_none();
        if is_new {
            self.find_longest_silent(cells);
        }
        let Some(talk) = self.talks.get_mut(place(cells)) else {
            return false;
        };
        let forgets = is_new && talk.dialled.port.0 != 0;
        *talk = Talk {
            dialled,
            endpoint,
            generation,
            pad: 0,
            used,
        };
        forgets
    }

    /// A free place counts as silent for ever.
    #[inline(always)]
    fn find_longest_silent<C: Cells>(&self, cells: &C) {
        cells.put(USED, u64::MAX);
        let mut index = 0;
        while index < TALKS_MAX {
            let used = self.talks[index].used;
            if used < cells.get(USED) {
                cells.put(USED, used);
                cells.put(PLACE, index as u64);
            }
            index += 1;
        }
    }

    /// Whether datagrams from `endpoint` may come under another address.
    #[inline(always)]
    pub fn knows(&self, endpoint: &Target) -> bool {
        self.talks.iter().any(|talk| same(&talk.endpoint, endpoint))
    }

    /// The address that a datagram from `endpoint` seems to come from: that of
    /// the latest talk with it, or [`Target::NOBODY`].
    #[inline(always)]
    pub fn seen_as<C: Cells>(&self, cells: &C, endpoint: &Target) -> Target {
        cells.put(PLACE, NOWHERE);
        cells.put(USED, 0);
        let mut index = 0;
        while index < TALKS_MAX {
            let talk = &self.talks[index];
            if talk.used > cells.get(USED) && same(&talk.endpoint, endpoint) {
                cells.put(USED, talk.used);
                cells.put(PLACE, index as u64);
            }
            index += 1;
        }
        let talk = self.talks.get(place(cells));
        talk.map_or(Target::NOBODY, |talk| talk.dialled)
    }
}

/// Cells of the searches: which place, and when it was used.
const PLACE: usize = 0;
const USED: usize = 1;
/// No place.
const NOWHERE: u64 = u64::MAX;

#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "places are few, and nowhere stays out of range"
)]
fn place<C: Cells>(cells: &C) -> usize {
    cells.get(PLACE) as usize
}

/// Compared by hand: the derived comparison becomes a call of `memcmp`.
#[inline(always)]
const fn same(one: &Target, other: &Target) -> bool {
    let (a, b) = (one.addr.words(), other.addr.words());
    one.port.0 == other.port.0 && a[3] == b[3] && a[2] == b[2] && a[1] == b[1] && a[0] == b[0]
}

/// A UDP socket whose peer is an endpoint; value of `PEERS`, by the socket's cookie.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Where the socket lives.
    pub netns: NetnsCookie,
    /// What was dialled.
    pub dialled: Target,
    /// Who answers.
    pub endpoint: Target,
}

/// Key of `HEARD`: a port of a pod, and somebody outside the mesh.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
pub struct HeardKey {
    /// Where the port is.
    pub netns: NetnsCookie,
    /// Who is outside.
    pub outside: Target,
    /// The pod's port.
    pub local: Port,
    /// Always 0.
    pub pad: u16,
}

/// Who began to talk, the pod or the outside; value of `HEARD`. Connections into
/// a pod are not weir's business, and of UDP the answers look like any other
/// datagram: this tells them apart.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    at: u64,
    from_outside: u32,
    /// Always 0.
    pub pad: u32,
}

/// How long somebody outside is answered after its last datagram.
const ANSWER_NANOS: u64 = 60 * 1_000_000_000;
/// How often a lasting exchange is noted again.
const NOTE_NANOS: u64 = 1_000_000_000;

impl Heard {
    /// The pod sends, by its own right: what to note, if anything.
    #[inline(always)]
    pub const fn sent(known: Self, now: u64) -> (bool, Self) {
        let age = now.wrapping_sub(known.at);
        // Who answers, answers: the beginning was the other's.
        let keeps = known.at != 0 && (known.from_outside == 0 || age < ANSWER_NANOS);
        let from_outside = if keeps { known.from_outside } else { 0 };
        (
            known.at == 0 || age >= NOTE_NANOS,
            Self::new(now, from_outside),
        )
    }

    /// A datagram from outside arrives: what to note, if anything.
    #[inline(always)]
    pub const fn received(known: Self, now: u64) -> (bool, Self) {
        let age = now.wrapping_sub(known.at);
        if known.at != 0 && known.from_outside == 0 && age < ANSWER_NANOS {
            return (false, known);
        }
        let is_news = known.at == 0 || known.from_outside == 0 || age >= NOTE_NANOS;
        (is_news, Self::new(now, 1))
    }

    /// Whether what the pod sends at `now` answers somebody outside.
    #[inline(always)]
    pub const fn is_answer(&self, now: u64) -> bool {
        self.from_outside != 0 && now.wrapping_sub(self.at) < ANSWER_NANOS
    }

    const fn new(at: u64, from_outside: u32) -> Self {
        Self {
            at,
            from_outside,
            pad: 0,
        }
    }
}

/// What was last told of a socket; value of `TOLD`. An unconnected socket is
/// decided on at every datagram: without this its log would be as long as its
/// traffic.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    destination: Target,
    reason: u32,
    at: u64,
}

impl Told {
    /// Whether `destination` may be told of at `now`, and if so, notes it.
    #[inline(always)]
    pub const fn tell(&mut self, destination: Target, reason: Reason, now: u64) -> bool {
        let is_new = !same(&self.destination, &destination) || self.reason != reason as u32;
        if !is_new && now.wrapping_sub(self.at) < TOLD_PAUSE_NANOS {
            return false;
        }
        *self = Self {
            destination,
            reason: reason as u32,
            at: now,
        };
        true
    }
}

const _: () = {
    assert!(TALKS_MAX.is_power_of_two());
    assert!(size_of::<Talk>() == 56);
    assert!(size_of::<Talks>() == 56 * TALKS_MAX + 8);
    assert!(size_of::<Told>() == 32);
    assert!(size_of::<Peer>() == 48);
    assert!(size_of::<HeardKey>() == 32);
    assert!(size_of::<Heard>() == 16);
};

#[cfg(test)]
mod tests;
