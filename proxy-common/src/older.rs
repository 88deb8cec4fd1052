//! Sockets that are older than the enrolment of their workload.

use crate::balance::Target;
use crate::id::NetnsCookie;

/// A socket that had a peer when its workload was enrolled; value of `OLDER`, by the
/// socket's cookie. One that has another peer by now has dialled since.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Older {
    /// Where the socket lives.
    pub netns: NetnsCookie,
    /// Whom it is connected to.
    pub peer: Target,
    /// Always 0.
    pub pad: u32,
}

const _: () = assert!(size_of::<Older>() == 32);
