//! `cgroup/getpeername4` and `getpeername6`: the application sees whom it
//! dialled, not weir's listener or the endpoint that was chosen.
//!
//! Must never answer from the note of an earlier dial: a pod that was unenrolled
//! dials past the hook that forgets it.

use aya_ebpf::programs::SockAddrContext;

use crate::context::{ALLOW, Family, destination, rewrite};
use crate::note;

/// Answers from the socket's note, if it has one of the peer that it has.
#[inline(always)]
pub fn run(ctx: &SockAddrContext, family: Family) -> i32 {
    if let Some(note) = note::read(ctx)
        && note.is_of(destination(ctx, family))
    {
        rewrite(ctx, family, note.flow.destination());
    }
    ALLOW
}
