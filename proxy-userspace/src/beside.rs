//! Two things at the same time: the one way in which an apply uses a second core.
//!
//! Must never leave a thread behind, nor lose a panic.

use std::panic::resume_unwind;
use std::thread;

/// Does `one` on a thread of its own while this one does `other`, and gives both.
/// A panic of either goes on in the caller.
pub fn both<A: Send, B>(one: impl FnOnce() -> A + Send, other: impl FnOnce() -> B) -> (A, B) {
    thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        let one = one.join().unwrap_or_else(|panic| resume_unwind(panic));
        (one, other)
    })
}
