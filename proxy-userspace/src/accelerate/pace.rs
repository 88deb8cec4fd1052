//! How slow this machine is: the cases' limits are those of a usual one, and
//! every wait of theirs goes through here.
//!
//! A machine that is emulated, or busy, needs longer for the same; what is
//! merely slow must not be told as broken. Must never lengthen a limit without
//! a bound.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::arena::{Family, Fault, Pair, Road, expect_text, write};

/// What a connection with one word each way takes on a usual machine, with room.
const USUAL: Duration = Duration::from_micros(200);

/// Connections that are timed; the one in the middle counts.
const SAMPLES: usize = 41;

/// The slowest that is waited for; a slower machine fails cases.
pub const SLOWEST: u32 = 20;

static FACTOR: AtomicU32 = AtomicU32::new(1);

/// Times plain TCP here: how often the usual it takes, from 1 to [`SLOWEST`], now or
/// when it was timed before: a machine that became busy may be so for long.
pub fn measure() -> io::Result<u32> {
    let mut times = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let began = Instant::now();
        one().map_err(io::Error::other)?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let factor = factor(times[SAMPLES / 2]);
    Ok(FACTOR.fetch_max(factor, Ordering::Relaxed).max(factor))
}

fn one() -> Result<(), Fault> {
    let Pair { near, far } = Road::plain(Family::V4).pair()?;
    write(&near, b"ping")?;
    expect_text(&far, "ping")?;
    write(&far, b"pong")?;
    expect_text(&near, "pong")
}

fn factor(took: Duration) -> u32 {
    let times = took.as_micros().div_ceil(USUAL.as_micros());
    u32::try_from(times).unwrap_or(SLOWEST).clamp(1, SLOWEST)
}

/// A limit of the usual machine, for this one.
pub fn paced(limit: Duration) -> Duration {
    limit * FACTOR.load(Ordering::Relaxed)
}

/// Sleeps for so long on the usual machine.
pub fn pause(moment: Duration) {
    std::thread::sleep(paced(moment));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_grow_with_what_a_connection_takes_and_have_an_end() {
        for (micros, times) in [
            (0, 1),
            (60, 1),
            (200, 1),
            (201, 2),
            (2_000, 10),
            (1_000_000, SLOWEST),
        ] {
            assert_eq!(factor(Duration::from_micros(micros)), times, "{micros}");
        }
    }
}
