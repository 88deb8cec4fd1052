//! The heartbeat: every worker says that it is alive, and the slowest of them
//! is what the hooks hear of. A worker that hangs is as good as none: the
//! connects that the kernel gives to its listeners would wait for ever.
//!
//! Must never beat for a worker from another thread than its own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use proxy_common::Beat;

use crate::kernel::Heartbeat;

/// How often a worker beats, and how often the hooks hear of it: the oldest
/// that they see in good health is twice this, well below what they bear.
pub const PERIOD: Duration = Duration::from_millis(200);

/// One worker's beat.
#[derive(Debug)]
pub struct Pulse(AtomicU64);

impl Pulse {
    /// The pulse of a worker that starts now.
    pub fn start() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(now().0)))
    }

    /// The worker is alive.
    pub fn beat(&self) {
        self.0.store(now().0, Ordering::Relaxed);
    }
}

/// The thread that tells the hooks; it ends with this handle.
#[derive(Debug)]
pub struct Heart {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Heart {
    /// Starts to tell of the slowest of these, at once and regularly.
    pub fn start(pulses: Vec<Arc<Pulse>>, mut heartbeat: Heartbeat) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("weir-heart".into())
            .spawn(move || {
                loop {
                    if let Some(slowest) = slowest(&pulses)
                        && let Err(error) = heartbeat.tell(slowest)
                    {
                        tracing::error!(%error, "the hooks cannot be told that weir is alive");
                    }
                    match stopped.recv_timeout(PERIOD) {
                        Err(RecvTimeoutError::Timeout) => {}
                        Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the heartbeat ended by a panic");
        }
    }
}

/// Whether every worker beats: what `/healthz` says.
pub fn health(pulses: &[Arc<Pulse>]) -> Result<(), String> {
    match slowest(pulses) {
        Some(slowest) if !slowest.is_fresh(now()) => {
            Err("a worker hangs: proxied connections get no answer".into())
        }
        _ => Ok(()),
    }
}

fn slowest(pulses: &[Arc<Pulse>]) -> Option<Beat> {
    let beats = pulses
        .iter()
        .map(|pulse| Beat(pulse.0.load(Ordering::Relaxed)));
    beats.min()
}

/// The time by the clock that the hooks read.
fn now() -> Beat {
    // The clock is there on every Linux, so there is no error to tell.
    let nanos = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .ok()
        .map(Duration::from)
        .and_then(|time| u64::try_from(time.as_nanos()).ok());
    Beat(nanos.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_worker_is_what_is_told() {
        let (quick, slow) = (Pulse::start(), Pulse::start());
        slow.0.store(7, Ordering::Relaxed);
        quick.beat();
        assert!(health(&[Arc::clone(&quick), Arc::clone(&slow)]).is_err());
        assert!(health(&[Arc::clone(&quick)]).is_ok());
        assert_eq!(slowest(&[quick, slow]), Some(Beat(7)));
        assert_eq!(slowest(&[]), None);
    }
}
