//! What a UDP socket remembers.

use core::cell::Cell;
use core::net::{Ipv4Addr, SocketAddr};

use super::*;
use crate::addr::{Addr, Destination};
use crate::balance::{EndpointSlot, Route, RouteKey};
use crate::egress::{EgressEntry, PortEntry, PortKey};
use crate::id::PolicySetId;
use crate::service::{ServiceEntry, ServiceKey};
use crate::table::{AddressEntry, AddressKey, LocalKey};

/// Cells in plain memory.
#[derive(Default)]
struct Plain([Cell<u64>; CELLS]);

impl Cells for Plain {
    fn put(&self, cell: usize, value: u64) {
        self.0[cell].set(value);
    }
    fn get(&self, cell: usize) -> u64 {
        self.0[cell].get()
    }
}

fn target(last: u8) -> Target {
    let at = SocketAddr::from((Ipv4Addr::new(10, 0, 0, last), 53));
    Target::new(Destination::from(at))
}

fn vip(last: u8) -> Target {
    let at = SocketAddr::from((Ipv4Addr::new(10, 96, 0, last), 53));
    Target::new(Destination::from(at))
}

/// A block of the endpoints with these last bytes, in order.
struct Slots<'a>(u32, &'a [u8]);

impl Slots<'_> {
    fn block(&self) -> Block {
        Block {
            offset: 5,
            len: u32::try_from(self.1.len()).unwrap(),
            generation: BlockGeneration(self.0),
            scale: 1,
        }
    }
}

impl Tables for Slots<'_> {
    fn is_local(&self, _: &LocalKey) -> bool {
        false
    }
    fn address(&self, _: &AddressKey) -> Option<AddressEntry> {
        None
    }
    fn service(&self, _: &ServiceKey) -> Option<ServiceEntry> {
        None
    }
    fn route(&self, _: &RouteKey) -> Option<Route> {
        None
    }
    fn endpoint(&self, index: u32) -> Option<EndpointSlot> {
        let last = self.1.get(usize::try_from(index.checked_sub(5)?).ok()?)?;
        Some(EndpointSlot {
            generation: BlockGeneration(self.0),
            threshold: 1,
            first: target(*last),
            second: target(99),
        })
    }
    fn egress(&self, _: PolicySetId, _: &Addr) -> Option<EgressEntry> {
        None
    }
    fn egress_port(&self, _: &PortKey) -> Option<PortEntry> {
        None
    }
}

#[test]
fn a_block_lists_its_first_endpoints_and_no_others() {
    let all: [u8; 9] = [1, 3, 5, 7, 9, 11, 13, 15, 17];
    for len in 0..all.len() {
        let slots = Slots(4, &all[..len]);
        for last in 0..20 {
            let listed = lists(&slots, &Plain::default(), slots.block(), &target(last));
            assert_eq!(listed, all[..len].contains(&last), "{last} of {len}");
        }
        let gone = Block {
            generation: BlockGeneration(3),
            ..slots.block()
        };
        assert!(
            !lists(&slots, &Plain::default(), gone, &target(1)),
            "its place was used again"
        );
    }
}

#[test]
fn an_endpoint_is_kept_as_long_as_it_is_listed() {
    let mut talks = Talks::default();
    let before = Slots(1, &[1, 2]);
    let kept = |talks: &Talks, slots: &Slots<'_>| {
        talks.endpoint(slots, &Plain::default(), slots.block(), &vip(1))
    };
    assert_eq!(kept(&talks, &before), Target::NOBODY);
    assert!(!talks.note(&Plain::default(), vip(1), target(2), BlockGeneration(1)));
    assert_eq!(kept(&talks, &before), target(2));
    assert_eq!(kept(&talks, &Slots(2, &[2, 3])), target(2), "another block");
    assert_eq!(kept(&talks, &Slots(3, &[1, 3])), Target::NOBODY);
    let other = talks.endpoint(&before, &Plain::default(), before.block(), &vip(2));
    assert_eq!(other, Target::NOBODY, "another service");
}

#[test]
fn the_longest_silence_is_forgotten() {
    let mut talks = Talks::default();
    let generation = BlockGeneration(1);
    let slots = Slots(1, &[]);
    let knows = |talks: &Talks, last| {
        talks.endpoint(&slots, &Plain::default(), slots.block(), &vip(last)) != Target::NOBODY
    };
    for last in 0..16 {
        assert!(
            !talks.note(&Plain::default(), vip(last), target(1), generation),
            "{last}"
        );
    }
    assert!(
        !talks.note(&Plain::default(), vip(0), target(1), generation),
        "used again"
    );
    assert!(talks.note(&Plain::default(), vip(16), target(1), generation));
    assert!(knows(&talks, 0) && knows(&talks, 16) && !knows(&talks, 1));
}

#[test]
fn an_answer_comes_from_where_the_endpoint_was_last_asked() {
    let mut talks = Talks::default();
    let generation = BlockGeneration(1);
    assert_eq!(talks.seen_as(&Plain::default(), &target(1)), Target::NOBODY);
    talks.note(&Plain::default(), vip(1), target(1), generation);
    talks.note(&Plain::default(), vip(2), target(2), generation);
    assert_eq!(talks.seen_as(&Plain::default(), &target(1)), vip(1));
    talks.note(&Plain::default(), vip(3), target(1), generation);
    assert_eq!(talks.seen_as(&Plain::default(), &target(1)), vip(3));
    talks.note(&Plain::default(), vip(1), target(1), generation);
    assert_eq!(talks.seen_as(&Plain::default(), &target(1)), vip(1));
    // By its own address.
    assert!(talks.knows(&target(1)) && !talks.knows(&target(3)));
    talks.note(
        &Plain::default(),
        target(1),
        target(1),
        BlockGeneration::NONE,
    );
    assert_eq!(talks.seen_as(&Plain::default(), &target(1)), target(1));
}

#[test]
fn one_destination_is_told_of_once_a_second() {
    let mut told = Told::default();
    let start = 10 * TOLD_PAUSE_NANOS;
    let mut tell = |last, reason, after| told.tell(target(last), reason, start + after);
    assert!(tell(1, Reason::EgressDenied, 0));
    assert!(!tell(1, Reason::EgressDenied, TOLD_PAUSE_NANOS - 1));
    assert!(tell(1, Reason::EgressAudited, 1), "another reason");
    assert!(tell(2, Reason::EgressAudited, 2), "another destination");
    assert!(tell(2, Reason::EgressAudited, 2 + TOLD_PAUSE_NANOS));
}

#[test]
fn who_began_decides_what_is_an_answer() {
    const NEVER: Heard = Heard {
        at: 0,
        from_outside: 0,
        pad: 0,
    };
    let start = 1_000 * NOTE_NANOS;
    assert!(!NEVER.is_answer(start));
    // They began.
    let (is_news, theirs) = Heard::received(NEVER, start);
    assert!(is_news && theirs.is_answer(start));
    assert!(theirs.is_answer(start + ANSWER_NANOS - 1));
    assert!(!theirs.is_answer(start + ANSWER_NANOS));
    assert!(!Heard::received(theirs, start + 1).0, "known");
    let (_, answered) = Heard::sent(theirs, start + 2 * NOTE_NANOS);
    assert!(answered.is_answer(start + 3 * NOTE_NANOS), "still theirs");
    // We began: whatever comes back, it stays ours.
    let (is_news, ours) = Heard::sent(NEVER, start);
    assert!(is_news && !ours.is_answer(start));
    let (is_news, _) = Heard::received(ours, start + NOTE_NANOS * 2);
    assert!(!is_news);
    // Long after our last word they begin anew.
    let (is_news, later) = Heard::received(ours, start + ANSWER_NANOS);
    assert!(is_news && later.is_answer(start + ANSWER_NANOS));
}
