//! The daemon's sign of life.

/// How old the last beat may be: an older one means that a worker hangs.
pub const BEAT_AGE_MAX_NANOS: u64 = 1_000_000_000;

/// When the slowest worker was seen alive: `CLOCK_MONOTONIC`, which is
/// `bpf_ktime_get_ns`. The value of `BEAT`; 0 before the first.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Beat(pub u64);

impl Beat {
    /// Whether the daemon counts as alive at `now`. A beat of a moment after
    /// `now` was read is one.
    #[inline(always)]
    pub const fn is_fresh(self, now: Self) -> bool {
        now.0.saturating_sub(self.0) <= BEAT_AGE_MAX_NANOS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_is_fresh_for_a_second() {
        let beat = Beat(5_000_000_000);
        for (now, fresh) in [
            (4_999_999_999, true),
            (5_000_000_000, true),
            (6_000_000_000, true),
            (6_000_000_001, false),
        ] {
            assert_eq!(beat.is_fresh(Beat(now)), fresh, "{now}");
        }
    }
}
