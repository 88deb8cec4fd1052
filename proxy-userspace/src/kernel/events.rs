//! The ring buffers of what the hooks report, and the hooks' debug lines.

use std::io;
use std::marker::PhantomData;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use aya::{Ebpf, Pod};
use aya_log::EbpfLogger;
use tokio::io::unix::AsyncFd;

use super::error::KernelError;
use super::maps::take;

/// Events read at most before other tasks get their turn.
const BATCH: usize = 256;

/// The reading end of a ring buffer of `T`.
pub struct Ring<T> {
    ring: RingBuf<MapData>,
    records: PhantomData<T>,
}

impl<T: Pod> Ring<T> {
    /// Takes the ring buffer called `name` out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, KernelError> {
        take(ebpf, name).map(|ring| Self {
            ring,
            records: PhantomData,
        })
    }

    /// Hands every record to `handle`, for ever, waiting for `pause` before each
    /// look: the kernel wakes a reader for the first record that it has not read,
    /// so a pause spares it the others. Needs a tokio runtime.
    pub async fn run(self, pause: Duration, mut handle: impl FnMut(&T)) -> io::Result<()> {
        // SAFETY: the ring keeps one descriptor open for its whole life.
        let mut ring = unsafe { AsyncFd::register(self.ring) }?;
        loop {
            let mut ready = ring.readable_mut().await?;
            tokio::time::sleep(pause).await;
            let mut more = true;
            while more {
                for _ in 0..BATCH {
                    let Some(item) = ready.get_inner_mut().next() else {
                        more = false;
                        break;
                    };
                    if let Some(record) = decode(&item) {
                        handle(&record);
                    }
                }
                if more {
                    tokio::task::yield_now().await;
                }
            }
            ready.clear_ready();
        }
    }
}

/// A record from its bytes; `None` if the size is not ours.
fn decode<T: Pod>(bytes: &[u8]) -> Option<T> {
    if bytes.len() != size_of::<T>() {
        return None;
    }
    // SAFETY: exactly the size of a T, for which, as it is `Pod`, every bit
    // pattern is a valid one. The read makes no demand on alignment.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// The hooks' own debug lines (aya-log), forwarded to the daemon's log.
pub struct HookLog {
    logger: EbpfLogger<&'static dyn log::Log>,
}

impl HookLog {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        EbpfLogger::init(ebpf)
            .map(|logger| Self { logger })
            .map_err(|error| KernelError::Load(format!("aya-log: {error}")))
    }

    /// Forwards lines for ever. Needs a tokio runtime.
    pub async fn run(self) -> io::Result<()> {
        // SAFETY: the logger keeps one descriptor open for its whole life.
        let mut logger = unsafe { AsyncFd::register(self.logger) }?;
        loop {
            let mut ready = logger.readable_mut().await?;
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use proxy_common::{Decision, Event, Reason, Verdict};

    use super::*;

    #[test]
    fn records_of_another_size_are_refused() {
        assert_eq!(decode::<Event>(&[0; 39]), None);
        assert_eq!(decode::<Event>(&[0; 41]), None);
        let event: Event = decode(&[0; 40]).expect("all zero is an event");
        assert_eq!(event.reason(), Some(Reason::Loopback));
        assert_eq!(
            event.verdict,
            Decision::plain(Verdict::Deny, Reason::Loopback).verdict as u8
        );
    }
}
