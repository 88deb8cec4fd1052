//! Reports of the hooks and values of the maps, from their bytes.
//!
//! Must never hand on what no hook of this version wrote.

use aya::Pod;
use proxy_common::{Impossible, Record};

/// Bytes that are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// More or fewer than the record has.
    #[error("{record} of {found} bytes: this version of weir has {wanted} for it")]
    Length {
        /// Which record.
        record: &'static str,
        /// How many there are.
        found: usize,
        /// How many there must be.
        wanted: usize,
    },
    /// As many, but nobody wrote them.
    #[error(transparent)]
    Impossible(#[from] Impossible),
}

/// A record from its bytes, wherever they lie.
pub fn decode<T: Pod + Record>(bytes: &[u8]) -> Result<T, RecordError> {
    let record: T = raw(bytes).ok_or(RecordError::Length {
        record: T::NAME,
        found: bytes.len(),
        wanted: size_of::<T>(),
    })?;
    record.check()?;
    Ok(record)
}

/// Bytes as the value that they are, sound or not; `None`: they are too few or too many.
pub(crate) fn raw<T: Pod>(bytes: &[u8]) -> Option<T> {
    // SAFETY: exactly the size of a T, for which, as it is `Pod`, every bit
    // pattern is a valid one. The read makes no demand on alignment.
    (bytes.len() == size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use proxy_common::{Decision, Event, Reason, Verdict};

    use super::*;

    #[test]
    fn records_of_another_size_are_refused() {
        for found in [0, 39, 41] {
            let wanted = Err(RecordError::Length {
                record: "an event",
                found,
                wanted: 40,
            });
            assert_eq!(decode::<Event>(&[0; 41][..found]), wanted);
        }
    }

    #[test]
    fn numbers_that_nobody_writes_are_refused() {
        let mut bytes = [0; 40];
        // The transport: TCP.
        bytes[36] = 6;
        let event: Event = decode(&bytes).unwrap();
        assert_eq!(event.reason(), Some(Reason::Loopback));
        assert_eq!(
            event.verdict,
            Decision::plain(Verdict::Deny, Reason::Loopback).verdict as u8
        );
        for (at, member) in [(26, "reason"), (27, "verdict"), (36, "transport")] {
            let mut bytes = bytes;
            bytes[at] = 99;
            let wanted = Impossible {
                record: "an event",
                member,
                value: 99,
            };
            assert_eq!(decode::<Event>(&bytes), Err(wanted.into()));
        }
    }
}
