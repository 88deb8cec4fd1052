//! The ring buffer of denials and audits, and the hooks' debug lines.

use std::io;

use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use proxy_common::Event;
use tokio::io::unix::AsyncFd;

use super::error::KernelError;
use super::maps::take;

/// Events read at most before other tasks get their turn.
const BATCH: usize = 256;

/// The reading end of the `EVENTS` ring buffer.
pub struct Events {
    ring: RingBuf<MapData>,
}

impl Events {
    /// Takes the ring buffer out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        take(ebpf, "EVENTS").map(|ring| Self { ring })
    }

    /// Hands every event to `handle`, for ever. Needs a tokio runtime.
    pub async fn run(self, mut handle: impl FnMut(&Event)) -> io::Result<()> {
        // SAFETY: the ring keeps one descriptor open for its whole life.
        let mut ring = unsafe { AsyncFd::register(self.ring) }?;
        loop {
            let mut ready = ring.readable_mut().await?;
            let mut more = true;
            for _ in 0..BATCH {
                let Some(item) = ready.get_inner_mut().next() else {
                    more = false;
                    break;
                };
                if let Some(event) = decode(&item) {
                    handle(&event);
                }
            }
            if more {
                tokio::task::yield_now().await;
            } else {
                ready.clear_ready();
            }
        }
    }
}

/// An event from the bytes of a record; `None` if the size is not ours.
fn decode(bytes: &[u8]) -> Option<Event> {
    if bytes.len() != size_of::<Event>() {
        return None;
    }
    // SAFETY: exactly the size of an Event, which is plain integers: every
    // bit pattern is a valid one. The read makes no demand on alignment.
    Some(unsafe { bytes.as_ptr().cast::<Event>().read_unaligned() })
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
    use proxy_common::{Decision, Reason, Verdict};

    use super::*;

    #[test]
    fn records_of_another_size_are_refused() {
        assert_eq!(decode(&[0; 39]), None);
        assert_eq!(decode(&[0; 41]), None);
        let event = decode(&[0; 40]).expect("all zero is an event");
        assert_eq!(event.reason(), Some(Reason::Loopback));
        assert_eq!(
            event.verdict,
            Decision::plain(Verdict::Deny, Reason::Loopback).verdict as u8
        );
    }
}
