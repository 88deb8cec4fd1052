//! The run time of weir's hooks, as the kernel's own statistics tell it.
//!
//! Must never take another daemon's program for that of the one that is measured.

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result};
use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};
use testbed::programs;

/// The kernel keeps statistics while this lives.
pub(super) struct Statistics {
    _on: OwnedFd,
}

impl Statistics {
    /// Turns them on.
    pub(super) fn on() -> Result<Self> {
        let on = enable_stats(Stats::RunTime).context("the kernel keeps no BPF statistics")?;
        Ok(Self { _on: on })
    }
}

/// How long a hook ran so far, and how often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Runs {
    time: Duration,
    count: u64,
}

impl Runs {
    /// Reads them of `program` among those that the process `daemon` holds.
    pub(super) fn of(daemon: u32, program: &str) -> Result<Self> {
        let held = programs::held_by(daemon)?;
        let mut runs = Self {
            time: Duration::ZERO,
            count: 0,
        };
        for info in loaded_programs() {
            // One that is unloaded meanwhile is none of ours.
            let Ok(info) = info else { continue };
            if held.contains(&info.id()) && info.name_as_str() == Some(program) {
                runs.time += info.run_time();
                runs.count += info.run_count();
            }
        }
        Ok(runs)
    }

    /// Nanoseconds of one run since `earlier`; none if there was no run.
    #[expect(clippy::cast_precision_loss, reason = "counts are small")]
    pub(super) fn mean_ns_since(self, earlier: Self) -> Option<f64> {
        let count = self.count.checked_sub(earlier.count).filter(|n| *n > 0)?;
        let time = self.time.checked_sub(earlier.time)?;
        Some(time.as_nanos() as f64 / count as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_needs_a_run() {
        let runs = |nanos, count| Runs {
            time: Duration::from_nanos(nanos),
            count,
        };
        assert_eq!(runs(500, 5).mean_ns_since(runs(100, 1)), Some(100.0));
        assert_eq!(runs(500, 5).mean_ns_since(runs(500, 5)), None);
    }
}
