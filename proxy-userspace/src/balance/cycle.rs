//! Weighted routes: one smooth cycle, precomputed, walked by all workers.
//!
//! Must never give a window of 100 consecutive picks other shares than the
//! weights say.

use std::sync::atomic::{AtomicU64, Ordering};

/// What all weights of a rule sum to.
const PERCENT: u32 = 100;

/// Why weights do not make a cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CycleError {
    /// The weights do not sum to 100; holds the sum.
    #[error("the weights sum to {0}; they are percentages and must sum to 100")]
    NotHundred(u64),
}

/// The order in which weighted routes take their turns.
///
/// Precomputed by smooth weighted round robin, so that turns of one route are
/// spread evenly: 75/25 gives `0 0 1 0`, not `0 0 0 1`. The weights are
/// first divided by their greatest common divisor; the cycle's length therefore
/// divides 100, and any 100 consecutive positions hold every route exactly
/// `weight` times, wherever they begin.
///
/// A position is the value of a counter that all workers share and advance by
/// one relaxed `fetch_add`, so this holds across any number of threads too. Once
/// in 2^64 picks the counter wraps, and where the length does not divide 2^64 one
/// window is then off; at a million picks a second that is after 584 000 years.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cycle {
    /// Never empty; at most 100 long.
    order: Box<[usize]>,
}

impl Cycle {
    /// The cycle of these weights. A route of weight 0 never has a turn.
    pub fn new(weights: &[u32]) -> Result<Self, CycleError> {
        let sum: u64 = weights.iter().copied().map(u64::from).sum();
        if sum != u64::from(PERCENT) {
            return Err(CycleError::NotHundred(sum));
        }
        let divisor = weights.iter().copied().fold(0, gcd);
        let length = i64::from(PERCENT / divisor);
        let mut credits = vec![0_i64; weights.len()];
        let mut order = Vec::new();
        for _ in 0..length {
            let mut richest = 0;
            for (index, weight) in weights.iter().enumerate() {
                credits[index] += i64::from(weight / divisor);
                if credits[index] > credits[richest] {
                    richest = index;
                }
            }
            credits[richest] -= length;
            order.push(richest);
        }
        Ok(Self {
            order: order.into_boxed_slice(),
        })
    }

    /// The index of the route whose turn it is; advances `position` by one.
    pub fn pick(&self, position: &AtomicU64) -> usize {
        let turn = position.fetch_add(1, Ordering::Relaxed) % self.order.len() as u64;
        #[expect(clippy::cast_possible_truncation, reason = "a turn is below 100")]
        self.order[turn as usize]
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counts(picks: &[usize], routes: usize) -> Vec<u32> {
        let mut counts = vec![0; routes];
        for &pick in picks {
            counts[pick] += 1;
        }
        counts
    }

    /// Weights that sum to 100: the gaps between cuts of the interval.
    fn weights() -> impl Strategy<Value = Vec<u32>> {
        proptest::collection::vec(0..=PERCENT, 0..8).prop_map(|mut cuts| {
            cuts.extend([0, PERCENT]);
            cuts.sort_unstable();
            cuts.windows(2).map(|pair| pair[1] - pair[0]).collect()
        })
    }

    proptest! {
        #[test]
        fn any_hundred_consecutive_picks_are_exact(weights in weights(), start in 0..u64::MAX / 2) {
            let cycle = Cycle::new(&weights).unwrap();
            let position = AtomicU64::new(start);
            let picks: Vec<usize> = (0..250).map(|_| cycle.pick(&position)).collect();
            for window in picks.windows(100) {
                prop_assert_eq!(&counts(window, weights.len()), &weights);
            }
        }

        #[test]
        fn turns_are_spread(weights in weights()) {
            let cycle = Cycle::new(&weights).unwrap();
            let position = AtomicU64::new(0);
            let mut given = vec![0_u32; weights.len()];
            for n in 1..=100_u32 {
                given[cycle.pick(&position)] += 1;
                for (given, weight) in given.iter().zip(&weights) {
                    let owed = f64::from(n * weight) / 100.0;
                    prop_assert!((f64::from(*given) - owed).abs() < 8.0);
                }
            }
        }

        #[test]
        fn other_sums_are_refused(weights in proptest::collection::vec(any::<u32>(), 0..5)) {
            let sum = weights.iter().copied().map(u64::from).sum();
            prop_assume!(sum != 100);
            prop_assert_eq!(Cycle::new(&weights), Err(CycleError::NotHundred(sum)));
        }
    }

    #[test]
    fn threads_share_one_sequence() {
        let weights = [37, 13, 50];
        let cycle = Cycle::new(&weights).unwrap();
        let position = AtomicU64::new(0);
        let mut sums = vec![0; weights.len()];
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| (0..1000).map(|_| cycle.pick(&position)).collect::<Vec<_>>())
                })
                .collect();
            for worker in workers {
                for (sum, count) in sums.iter_mut().zip(counts(&worker.join().unwrap(), 3)) {
                    *sum += count;
                }
            }
        });
        assert_eq!(sums, weights.map(|weight| weight * 80));
    }

    #[test]
    fn halves_alternate() {
        let cycle = Cycle::new(&[50, 50]).unwrap();
        let position = AtomicU64::new(0);
        let picks: Vec<usize> = (0..6).map(|_| cycle.pick(&position)).collect();
        assert_eq!(picks, [0, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn three_quarters_are_smooth() {
        let cycle = Cycle::new(&[75, 25]).unwrap();
        let position = AtomicU64::new(0);
        let picks: Vec<usize> = (0..4).map(|_| cycle.pick(&position)).collect();
        assert_eq!(picks, [0, 0, 1, 0]);
    }
}
