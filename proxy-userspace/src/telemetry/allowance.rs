//! How many denials a source may have in the log.
//!
//! Denials are logged whether the access log is on or not, and a workload that
//! dials in a tight loop makes very many of them. Must never let one source use
//! up what another may write.

use std::time::{Duration, Instant};

use hashbrown::HashMap;

/// Lines per source, window and worker.
pub(super) const LINES_MAX: u32 = 200;

/// When everybody begins anew.
const WINDOW: Duration = Duration::from_secs(1);

/// How many sources are told apart; further ones share one allowance.
const SOURCES_MAX: usize = 1024;

/// The lines of the present window.
#[derive(Debug)]
pub(super) struct Allowance {
    begun: Instant,
    used: HashMap<String, u32>,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            begun: now,
            used: HashMap::new(),
        }
    }

    /// Whether `source` may write one more line.
    pub(super) fn take(&mut self, source: &str, now: Instant) -> bool {
        if now.duration_since(self.begun) >= WINDOW {
            self.begun = now;
            self.used.clear();
        }
        let is_known = self.used.len() < SOURCES_MAX || self.used.contains_key(source);
        let used = self
            .used
            .entry_ref(if is_known { source } else { "" })
            .or_default();
        *used = used.saturating_add(1);
        *used <= LINES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_its_own_allowance_in_each_window() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let mut written = |source: &str, now| {
            (0..2 * LINES_MAX)
                .filter(|_| allowance.take(source, now))
                .count()
        };
        let all = LINES_MAX as usize;
        assert_eq!((written("a", start), written("b", start)), (all, all));
        assert_eq!(written("a", start + WINDOW / 2), 0);
        assert_eq!(written("a", start + WINDOW), all);
    }

    #[test]
    fn sources_are_bounded() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        for source in 0..2 * SOURCES_MAX {
            allowance.take(&source.to_string(), start);
        }
        assert!(allowance.used.len() <= SOURCES_MAX + 1);
        assert!(allowance.take("0", start), "those known keep theirs");
    }
}
