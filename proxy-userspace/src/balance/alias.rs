//! Exact shares in whole numbers, and the alias table that draws by them.
//!
//! Must never give a target another mass than its share: the slots' masses are
//! integers, and those of one target sum to what [`Masses`] says.

use proxy_common::{BlockGeneration, EndpointSlot, Target};

/// Masses that have no smaller common denominator are rounded to this one, so
/// that the 32 random bits of a draw reach over thousands of slots. Rounded
/// shares are off by less than two in a million.
const SCALE_MAX: u64 = 1 << 20;

/// How much of all connections each target gets, in whole numbers without a
/// common divisor. No target: nobody is ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Masses {
    /// Ordered by target, each once, none of mass 0.
    list: Box<[(Target, u32)]>,
    /// The sum.
    scale: u32,
}

impl Masses {
    /// Of shares, each with its weight, that are spread evenly over their
    /// targets. A share without targets goes to [`Target::NOBODY`].
    pub fn of(shares: &[(u32, Vec<Target>)]) -> Self {
        let shares: Vec<(u64, &[Target])> = shares
            .iter()
            .filter(|(weight, _)| *weight > 0)
            .map(|(weight, targets)| match targets.as_slice() {
                [] => (u64::from(*weight), &[Target::NOBODY][..]),
                targets => (u64::from(*weight), targets),
            })
            .collect();
        let all = exact(&shares).unwrap_or_else(|| rounded(&shares));
        let mut list: Vec<(Target, u32)> = Vec::with_capacity(all.len());
        for (target, mass) in all {
            match list.last_mut() {
                Some((last, sum)) if *last == target => *sum += mass,
                _ => list.push((target, mass)),
            }
        }
        if list.iter().all(|(target, _)| *target == Target::NOBODY) {
            return Self::default();
        }
        Self {
            scale: list.iter().map(|(_, mass)| mass).sum(),
            list: list.into(),
        }
    }

    /// Whether nobody is ready.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many slots the table has.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// What all masses sum to.
    pub fn scale(&self) -> u32 {
        self.scale
    }

    /// The alias table (Vose): as many slots as targets, each of mass `scale`,
    /// each shared by at most two targets. Slots are ordered by their first ones,
    /// which are all the targets there are.
    pub(super) fn table(&self, generation: BlockGeneration) -> Vec<EndpointSlot> {
        let full = u64::from(self.scale);
        // What of each target is not in a slot yet, in slots of mass `full`.
        let mut left: Vec<u64> = self
            .list
            .iter()
            .map(|(_, mass)| u64::from(*mass) * self.list.len() as u64)
            .collect();
        let mut slots: Vec<EndpointSlot> = self
            .list
            .iter()
            .map(|(target, _)| EndpointSlot {
                generation,
                threshold: self.scale,
                first: *target,
                second: *target,
            })
            .collect();
        let (mut poor, mut rich): (Vec<usize>, Vec<usize>) =
            (0..left.len()).partition(|index| left[*index] < full);
        // The masses sum to all slots: as long as one is not full, another has too much.
        while let (Some(low), Some(high)) = (poor.pop(), rich.pop()) {
            slots[low].threshold = u32::try_from(left[low]).expect("less than the scale");
            slots[low].second = self.list[high].0;
            left[high] -= full - left[low];
            if left[high] < full {
                poor.push(high);
            } else {
                rich.push(high);
            }
        }
        slots
    }
}

/// Masses over the smallest common denominator, ordered by target; `None`: it is too large.
fn exact(shares: &[(u64, &[Target])]) -> Option<Vec<(Target, u32)>> {
    let mut common = 1_u64;
    for (_, targets) in shares {
        let len = targets.len() as u64;
        common = common.checked_mul(len / gcd(common, len))?;
    }
    let mut masses = Vec::new();
    for (weight, targets) in shares {
        let mass = weight.checked_mul(common / targets.len() as u64)?;
        masses.extend(targets.iter().map(|target| (*target, mass)));
    }
    let divisor = masses
        .iter()
        .fold(0, |divisor, (_, mass)| gcd(divisor, *mass));
    let sum = masses
        .iter()
        .try_fold(0_u64, |sum, (_, mass)| sum.checked_add(*mass))?;
    if sum / divisor.max(1) > SCALE_MAX {
        return None;
    }
    masses.sort_unstable();
    let small = |mass: u64| u32::try_from(mass / divisor).expect("at most the sum");
    Some(
        masses
            .into_iter()
            .map(|(target, mass)| (target, small(mass)))
            .collect(),
    )
}

/// Masses that sum to [`SCALE_MAX`], ordered by target: what does not divide
/// evenly goes to the first shares, and within a share to its first targets.
fn rounded(shares: &[(u64, &[Target])]) -> Vec<(Target, u32)> {
    let sum: u64 = shares.iter().map(|(weight, _)| weight).sum();
    let mut masses = Vec::new();
    let (mut weights, mut given) = (0, 0);
    for (weight, targets) in shares {
        weights += weight;
        let until = weights * SCALE_MAX / sum;
        let len = targets.len() as u64;
        let (each, over) = ((until - given) / len, (until - given) % len);
        given = until;
        for (index, target) in (0_u64..).zip(*targets) {
            let mass = each + u64::from(index < over);
            masses.push((*target, u32::try_from(mass).expect("at most the scale")));
        }
    }
    masses.sort_unstable();
    masses.retain(|(_, mass)| *mass > 0);
    masses
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{Ipv4Addr, SocketAddr};

    use proptest::prelude::*;
    use proxy_common::Destination;

    use super::*;

    fn target(number: u16) -> Target {
        let at = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), number));
        Target::new(Destination::from(at))
    }

    /// Weights that sum to 100, each with targets of its own, perhaps none.
    fn shares(targets_max: u16) -> impl Strategy<Value = Vec<(u32, Vec<Target>)>> {
        let cuts = proptest::collection::vec(0..=100_u32, 0..6);
        let sizes = proptest::collection::vec(0..=targets_max, 7);
        (cuts, sizes).prop_map(|(mut cuts, sizes)| {
            cuts.extend([0, 100]);
            cuts.sort_unstable();
            let mut next = 1;
            let weights = cuts.windows(2).map(|pair| pair[1] - pair[0]);
            weights
                .zip(sizes)
                .map(|(weight, size)| {
                    let targets = (next..next + size).map(target).collect();
                    next += size;
                    (weight, targets)
                })
                .collect()
        })
    }

    /// The mass of each target over all slots.
    fn masses_in(table: &[EndpointSlot], scale: u32) -> BTreeMap<Target, u64> {
        let mut masses = BTreeMap::new();
        for slot in table {
            assert!(slot.threshold <= scale);
            *masses.entry(slot.first).or_default() += u64::from(slot.threshold);
            *masses.entry(slot.second).or_default() += u64::from(scale - slot.threshold);
        }
        masses.retain(|_, mass| *mass > 0);
        masses
    }

    proptest! {
        /// The slots hold exactly the weights: `mass / (slots * scale) = weight / (100 * targets)`.
        #[test]
        fn the_table_holds_exactly_the_weights(shares in shares(9)) {
            let masses = Masses::of(&shares);
            prop_assume!(!masses.is_empty());
            let table = masses.table(BlockGeneration(7));
            prop_assert_eq!(table.len(), masses.len());
            // So the hook finds out by halving whether a block lists an endpoint.
            prop_assert!(table.is_sorted_by(|one, next| one.first < next.first));
            let found = masses_in(&table, masses.scale());
            let whole = table.len() as u64 * u64::from(masses.scale());
            let mut nobody = 0;
            for (weight, targets) in &shares {
                if targets.is_empty() {
                    nobody += u64::from(*weight);
                }
                for target in targets {
                    let mass = found.get(target).copied().unwrap_or_default();
                    prop_assert_eq!(mass * 100 * targets.len() as u64, whole * u64::from(*weight));
                }
            }
            let mass = found.get(&Target::NOBODY).copied().unwrap_or_default();
            prop_assert_eq!(mass * 100, whole * nobody);
        }

        /// Also where no small denominator exists, the slots hold exactly the
        /// masses, and these are off by less than two in a million.
        #[test]
        fn large_denominators_are_rounded_alone(shares in shares(400)) {
            let masses = Masses::of(&shares);
            prop_assume!(!masses.is_empty());
            let found = masses_in(&masses.table(BlockGeneration(1)), masses.scale());
            let slots = masses.len() as u64;
            for (target, mass) in &masses.list {
                prop_assert_eq!(found[target], u64::from(*mass) * slots);
            }
            prop_assert!(u64::from(masses.scale()) <= SCALE_MAX);
            for (weight, targets) in &shares {
                let count = u32::try_from(targets.len()).unwrap();
                let wanted = f64::from(*weight) / 100.0 / f64::from(count);
                for target in targets {
                    let found = masses.list.binary_search_by_key(target, |(other, _)| *other);
                    let mass = found.map_or(0, |index| masses.list[index].1);
                    let got = f64::from(mass) / f64::from(masses.scale());
                    prop_assert!((got - wanted).abs() < 2.0 / 1_048_576.0, "{got} {wanted}");
                }
            }
        }
    }

    #[test]
    fn equal_targets_need_one_look_each() {
        let masses = Masses::of(&[(100, (1..=3).map(target).collect())]);
        assert_eq!((masses.len(), masses.scale()), (3, 3));
        for slot in masses.table(BlockGeneration(1)) {
            assert_eq!(slot.threshold, 3);
        }
    }

    #[test]
    fn a_target_of_two_shares_gets_both() {
        let masses = Masses::of(&[(30, vec![target(1)]), (70, vec![target(1), target(2)])]);
        assert_eq!(*masses.list, [(target(1), 13), (target(2), 7)]);
    }

    #[test]
    fn shares_without_anybody_are_nobody() {
        assert!(Masses::of(&[]).is_empty());
        assert!(Masses::of(&[(100, vec![])]).is_empty());
        assert!(Masses::of(&[(0, vec![target(1)]), (100, vec![])]).is_empty());
        let masses = Masses::of(&[(75, vec![target(1)]), (25, vec![])]);
        assert_eq!(*masses.list, [(Target::NOBODY, 1), (target(1), 3)]);
    }
}
