//! Waiting for a condition, with an end.

use std::time::{Duration, Instant};

/// Calls `check` until it gives a value, at most for `limit`.
///
/// # Panics
/// When the time is over, naming `what` was waited for and the last reason.
pub fn eventually<T>(
    what: &str,
    limit: Duration,
    mut check: impl FnMut() -> Result<T, String>,
) -> T {
    let end = Instant::now() + limit;
    loop {
        let reason = match check() {
            Ok(value) => return value,
            Err(reason) => reason,
        };
        assert!(
            Instant::now() < end,
            "{what}: not within {limit:?}: {reason}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
