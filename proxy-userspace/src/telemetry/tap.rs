//! The live view: every log line, to whoever is listening at the moment.
//!
//! Must cost the data plane one relaxed load while nobody listens, and must never
//! wait for a listener: who is too slow misses lines and is told how many.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// How many lines a listener may lag behind before it misses some.
const LAG_MAX: usize = 1024;

/// Where the lines go out.
#[derive(Debug)]
pub(super) struct Sender {
    channel: broadcast::Sender<Arc<str>>,
    // The channel's own count is behind a lock that all workers would share.
    listeners: Arc<AtomicUsize>,
}

impl Default for Sender {
    fn default() -> Self {
        Self {
            channel: broadcast::Sender::new(LAG_MAX),
            listeners: Arc::default(),
        }
    }
}

impl Sender {
    pub(super) fn is_heard(&self) -> bool {
        self.listeners.load(Ordering::Relaxed) > 0
    }

    pub(super) fn send(&self, line: &str) {
        // An error says that the last listener has just left.
        let _ = self.channel.send(line.into());
    }

    pub(super) fn listen(&self) -> Tap {
        self.listeners.fetch_add(1, Ordering::Relaxed);
        Tap {
            lines: self.channel.subscribe(),
            listeners: self.listeners.clone(),
        }
    }
}

/// A listener. Lines begin with its creation and end being made with its drop.
#[derive(Debug)]
pub struct Tap {
    lines: broadcast::Receiver<Arc<str>>,
    listeners: Arc<AtomicUsize>,
}

/// What a [`Tap`] gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tapped {
    /// A log line, JSON without a line feed.
    Line(Arc<str>),
    /// The listener was too slow; so many lines were skipped.
    Missed(u64),
}

impl Tap {
    /// The next line; `None` once the daemon's telemetry is gone.
    pub async fn recv(&mut self) -> Option<Tapped> {
        match self.lines.recv().await {
            Ok(line) => Some(Tapped::Line(line)),
            Err(RecvError::Lagged(missed)) => Some(Tapped::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
impl From<broadcast::Receiver<Arc<str>>> for Tap {
    fn from(lines: broadcast::Receiver<Arc<str>>) -> Self {
        Self {
            lines,
            listeners: Arc::new(AtomicUsize::new(1)),
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}
