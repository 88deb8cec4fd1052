//! How much longer than usual everything may take, on a machine that is
//! emulated: the one place that knows.
//!
//! Must never shorten a limit, nor lengthen one where it was not asked to.

use std::sync::OnceLock;
use std::time::Duration;

/// The variable that holds the factor. Programs in pods inherit it.
const VARIABLE: &str = "TESTBED_PATIENCE";
/// The largest factor: waiting keeps an end.
const FACTOR_MAX: u32 = 100;

/// `limit`, times `TESTBED_PATIENCE`; that is 1 where it is not set.
///
/// # Panics
/// If the variable holds anything but a whole number from 1 to 100.
pub fn patiently(limit: Duration) -> Duration {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    limit
        * *FACTOR.get_or_init(|| {
            let set = std::env::var(VARIABLE).ok();
            factor(set.as_deref())
                .unwrap_or_else(|| panic!("{VARIABLE} is a whole number from 1 to {FACTOR_MAX}"))
        })
}

fn factor(set: Option<&str>) -> Option<u32> {
    let factor = set.map_or(Some(1), |set| set.parse().ok())?;
    (1..=FACTOR_MAX).contains(&factor).then_some(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_usual_unless_asked_for() {
        assert_eq!(factor(None), Some(1));
        assert_eq!(factor(Some("20")), Some(20));
        for wrong in ["", "0", "-1", "1.5", "101", "much"] {
            assert_eq!(factor(Some(wrong)), None, "{wrong}");
        }
    }
}
