//! The admin socket: HTTP/1.1 and JSON for root, and the same without writes
//! for observers.
//!
//! Owns who may ask what, and the bounds on asking: connections, sizes, time.
//! Must never decide what a configuration means (that is `config`) or put one
//! in force (that is `control`).

mod answer;
pub mod body;
pub mod problem;
mod request;
pub mod selector;
mod serve;
pub mod socket;
mod tap;
#[cfg(test)]
pub(crate) mod tests;
pub mod wire;
mod write;

use std::sync::Arc;

pub use self::serve::serve;
pub use self::socket::{SocketError, SocketOptions, Sockets};
pub use self::tap::Observations;
use crate::control::Control;

/// The largest body that is taken, in bytes: all the input that one apply may
/// have, and as much again for how JSON quotes text.
pub const BODY_MAX: usize = 2 * crate::config::INPUT_MAX;

/// What the sockets speak for.
pub struct Admin {
    /// The one writer of configuration.
    pub control: Control,
    /// What was seen of the traffic.
    pub observations: Arc<dyn Observations>,
    /// Name of the node.
    pub node: String,
    /// When the daemon started.
    pub started_at: jiff::Timestamp,
}

/// On which socket a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// The admin socket: root, or the daemon's own user.
    Admin,
    /// The observers' socket: whoever its mode lets in; looks only.
    Observer,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
struct Peer {
    role: Role,
    uid: u32,
}
