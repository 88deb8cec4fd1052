//! How far the turns of one list were taken.

use std::sync::atomic::AtomicU64;

/// What takes a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taker {
    /// An HTTP request.
    Request,
    /// A connection of bytes, or one that may yet turn out to carry requests:
    /// a silent client's server is dialled before anyone knows.
    Connection,
}

/// Where in one order the node is: shared by all workers, and by one
/// configuration with the next.
///
/// Requests and connections each take turns of their own, so that a dial for a
/// client that then speaks HTTP costs no request its turn.
#[derive(Debug, Default)]
pub struct Places {
    requests: AtomicU64,
    connections: AtomicU64,
}

impl Places {
    /// The counter that `taker` advances.
    pub fn of(&self, taker: Taker) -> &AtomicU64 {
        match taker {
            Taker::Request => &self.requests,
            Taker::Connection => &self.connections,
        }
    }
}
