//! Waiting for a condition, with an end.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::patience::patiently;

/// Calls `check` until it gives a value, at most for `limit`, [`patiently`].
///
/// # Errors
/// When the time is over: what was waited for, and the last reason.
pub fn try_eventually<T>(
    what: &str,
    limit: Duration,
    mut check: impl FnMut() -> Result<T, String>,
) -> Result<T> {
    let limit = patiently(limit);
    let end = Instant::now() + limit;
    loop {
        let reason = match check() {
            Ok(value) => return Ok(value),
            Err(reason) => reason,
        };
        if Instant::now() >= end {
            bail!("{what}: not within {limit:?}: {reason}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The same for tests.
///
/// # Panics
/// When the time is over.
pub fn eventually<T>(what: &str, limit: Duration, check: impl FnMut() -> Result<T, String>) -> T {
    try_eventually(what, limit, check).unwrap_or_else(|error| panic!("{error}"))
}
