//! Space is handed out once, rests before it is used again, and never leaks.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use proptest::prelude::*;
use proxy_common::{Destination, Target};

use super::*;

/// A table of `len` slots; `seed` tells contents apart.
fn content(seed: u8, len: u16) -> Masses {
    let at = |port| SocketAddr::from((Ipv4Addr::new(10, 0, 0, seed), port));
    let targets = (1..=len).map(|port| Target::new(Destination::from(at(port))));
    Masses::of(&[(100, targets.collect())])
}

fn named(blocks: impl IntoIterator<Item = Block>) -> OrdMap<Block, usize> {
    blocks.into_iter().map(|block| (block, 1_usize)).collect()
}

fn later(start: Instant, rounds: u32) -> Instant {
    start + GRACE * rounds
}

#[test]
fn the_same_content_is_the_same_block() {
    let mut blocks = Blocks::new(16, 5);
    let (one, slots) = blocks.place(content(1, 3)).unwrap();
    assert_eq!(blocks.place(content(1, 3)).unwrap().0, one);
    assert_ne!(blocks.place(content(2, 3)).unwrap().0, one);
    assert!(slots.iter().all(|slot| slot.generation == one.generation));
    assert_eq!(blocks.place(Masses::default()).unwrap().0, Block::EMPTY);
}

#[test]
fn space_rests_before_it_is_used_again() {
    let start = Instant::now();
    let mut blocks = Blocks::new(4, 1);
    let (one, _) = blocks.place(content(1, 4)).unwrap();
    blocks.begin(&named([one]), start);
    assert!(blocks.place(content(2, 1)).is_err(), "it is in use");
    blocks.begin(&OrdMap::new(), start);
    assert!(blocks.place(content(2, 1)).is_err(), "it rests");
    blocks.begin(&OrdMap::new(), later(start, 1));
    let (two, _) = blocks.place(content(2, 4)).unwrap();
    assert_ne!(two.generation, one.generation);
}

#[test]
fn blocks_of_an_earlier_life_are_left_alone() {
    let start = Instant::now();
    let foreign = Block {
        offset: 2,
        len: 3,
        generation: BlockGeneration(9),
        scale: 3,
    };
    let mut blocks = Blocks::new(8, 100);
    blocks.begin(&named([foreign]), start);
    let (before, _) = blocks.place(content(1, 2)).unwrap();
    let (after, _) = blocks.place(content(2, 3)).unwrap();
    assert_eq!((before.offset, after.offset), (0, 5));
    let refused = blocks.place(content(3, 1)).unwrap_err();
    assert_eq!((refused.wanted, refused.capacity), (1, 8));
    blocks.begin(&named([before, after]), start);
    blocks.begin(&named([before, after]), later(start, 1));
    assert_eq!(blocks.place(content(3, 3)).unwrap().0.offset, 2);
}

#[test]
fn what_was_never_written_is_free_at_once() {
    let mut blocks = Blocks::new(4, 1);
    blocks.begin(&OrdMap::new(), Instant::now());
    blocks.place(content(1, 3)).unwrap();
    blocks.place(content(2, 2)).unwrap_err();
    blocks.cancel();
    blocks.place(content(2, 4)).unwrap();
}

proptest! {
    /// Whatever is applied in whatever order: blocks that the kernel names, or
    /// named within the grace, never overlap one that is placed; and all space
    /// comes back.
    #[test]
    fn no_block_overlaps_another_in_use(
        rounds in proptest::collection::vec(
            (proptest::collection::vec((1..30_u8, 1..12_u16), 0..8), any::<bool>(), 0..3_u32),
            1..25,
        ),
    ) {
        let start = Instant::now();
        let mut blocks = Blocks::new(128, 1);
        let (mut present, mut former, mut time) = (BTreeSet::new(), BTreeSet::new(), 0);
        for (wanted, succeeds, wait) in rounds {
            time += wait;
            blocks.begin(&named(present.iter().copied()), later(start, time));
            if wait > 0 {
                former.clear();
            }
            let mut placed = BTreeSet::new();
            let mut refused = false;
            for (seed, len) in wanted {
                match blocks.place(content(seed, len)) {
                    Ok((block, _)) => { placed.insert(block); }
                    Err(_) => refused = true,
                }
            }
            let in_use: BTreeSet<Block> = present.union(&placed).chain(&former).copied().collect();
            let mut end = 0;
            for block in &in_use {
                prop_assert!(block.offset >= end, "{in_use:?}");
                end = block.offset + block.len;
            }
            prop_assert!(end <= 128);
            if refused {
                blocks.cancel();
            } else if succeeds {
                former.extend(std::mem::replace(&mut present, placed));
            }
        }
        blocks.begin(&OrdMap::new(), later(start, time + 1));
        blocks.begin(&OrdMap::new(), later(start, time + 2));
        prop_assert_eq!(&blocks.free, &BTreeMap::from([(0, 128)]));
    }
}
