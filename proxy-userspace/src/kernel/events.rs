//! The ring buffers of what the hooks report, and the hooks' debug lines.

use std::io;
use std::marker::PhantomData;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use aya::{Ebpf, Pod};
use aya_log::EbpfLogger;
use proxy_common::Record;
use tokio::io::unix::AsyncFd;

use super::error::KernelError;
use super::maps::take;
use super::record::decode;

/// Events read at most before other tasks get their turn.
const BATCH: usize = 256;

/// The reading end of a ring buffer of `T`.
pub struct Ring<T> {
    buffer: RingBuf<MapData>,
    name: &'static str,
    records: PhantomData<T>,
}

impl<T: Pod + Record> Ring<T> {
    /// Takes the ring buffer called `name` out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, KernelError> {
        take(ebpf, name).map(|buffer| Self {
            buffer,
            name,
            records: PhantomData,
        })
    }

    /// Hands every record to `handle`, for ever, waiting for `pause` before each
    /// look: the kernel wakes a reader for the first record that it has not read,
    /// so a pause spares it the others. `handle` also gets what `woken` gave when
    /// the first of them was there. What is no record is left out, and told.
    /// Needs a tokio runtime.
    pub async fn run<W>(
        self,
        pause: Duration,
        mut woken: impl FnMut() -> W,
        mut handle: impl FnMut(&W, &T),
    ) -> io::Result<()> {
        // SAFETY: the ring keeps one descriptor open for its whole life.
        let mut ring = unsafe { AsyncFd::register(self.buffer) }?;
        let mut refused = 0_u64;
        loop {
            let mut ready = ring.readable_mut().await?;
            let then = woken();
            tokio::time::sleep(pause).await;
            let mut more = true;
            while more {
                for _ in 0..BATCH {
                    let Some(item) = ready.get_inner_mut().next() else {
                        more = false;
                        break;
                    };
                    match decode(&item) {
                        Ok(record) => handle(&then, &record),
                        Err(error) => {
                            refused += 1;
                            // One wrong hook would make very many of them.
                            if refused.is_power_of_two() {
                                let ring = self.name;
                                tracing::error!(ring, refused, %error, "reports of the hooks are no reports");
                            }
                        }
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
