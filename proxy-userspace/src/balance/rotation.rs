//! Plain round robin over a list that may change length.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};

/// Round robin over `len` items: any `len` consecutive picks on one counter
/// hold every item once, on any number of threads.
///
/// The counter outlives the list. Where `len` does not divide 2^64, one window
/// in 2^64 picks is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    len: NonZeroUsize,
}

impl Rotation {
    /// Turns over `len` items.
    pub fn new(len: NonZeroUsize) -> Self {
        Self { len }
    }

    /// Turns over the items of `list`; none if it is empty.
    pub fn over<T>(list: &[T]) -> Option<Self> {
        NonZeroUsize::new(list.len()).map(Self::new)
    }

    /// The index of the item whose turn it is; advances `position` by one.
    pub fn pick(self, position: &AtomicU64) -> usize {
        let turn = position.fetch_add(1, Ordering::Relaxed) % self.len.get() as u64;
        #[expect(clippy::cast_possible_truncation, reason = "a turn is below a usize")]
        {
            turn as usize
        }
    }

    /// The item after `index`, for another try: leaves the counter alone, so that
    /// a retry takes no other request's turn.
    pub fn after(self, index: usize) -> usize {
        (index + 1) % self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_window_holds_every_item_once(len in 1_usize..20, start in 0..u64::MAX / 2) {
            let rotation = Rotation::new(NonZeroUsize::new(len).unwrap());
            let position = AtomicU64::new(start);
            let picks: Vec<usize> = (0..3 * len).map(|_| rotation.pick(&position)).collect();
            for window in picks.windows(len) {
                let mut sorted = window.to_vec();
                sorted.sort_unstable();
                prop_assert_eq!(sorted, (0..len).collect::<Vec<_>>());
            }
        }

        #[test]
        fn retries_visit_all_others(len in 1_usize..20, first in 0_usize..20) {
            let rotation = Rotation::new(NonZeroUsize::new(len).unwrap());
            let mut seen = vec![false; len];
            let mut index = first % len;
            for _ in 0..len {
                seen[index] = true;
                index = rotation.after(index);
            }
            prop_assert!(seen.into_iter().all(|seen| seen));
        }
    }

    #[test]
    fn threads_share_one_sequence() {
        let rotation = Rotation::over(&[(); 4]).unwrap();
        let position = AtomicU64::new(0);
        let totals: [AtomicU64; 4] = Default::default();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        totals[rotation.pick(&position)].fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert!(
            totals
                .iter()
                .all(|total| total.load(Ordering::Relaxed) == 1000)
        );
    }

    #[test]
    fn nothing_to_pick_from_is_no_rotation() {
        assert_eq!(Rotation::over::<u8>(&[]), None);
    }
}
