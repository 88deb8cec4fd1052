//! `cgroup/getpeername4` and `getpeername6`: the application sees whom it
//! dialled, not weir's listener or the endpoint that was chosen.

use aya_ebpf::programs::SockAddrContext;

use crate::context::{ALLOW, Family, rewrite};
use crate::maps;

/// Answers from the socket's note, if it has one.
#[inline(always)]
pub fn run(ctx: &SockAddrContext, family: Family) -> i32 {
    // SAFETY: `ctx` holds a valid socket.
    let note = unsafe { maps::NOTES.get_ptr_mut(ctx) };
    if !note.is_null() {
        // SAFETY: not null, and alive as long as the socket is.
        rewrite(ctx, family, unsafe { (*note).flow.destination() });
    }
    ALLOW
}
