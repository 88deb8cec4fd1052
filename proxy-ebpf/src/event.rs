//! Tells the daemon of denials and audits through the ring buffer. A full
//! buffer costs the log line, never the denial; lost lines are counted.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::programs::SockAddrContext;
use proxy_common::{Counter, Destination, Event, Reason, Target};

use crate::maps::{self, count};

/// Reports `event`.
#[inline(always)]
pub fn report(event: &Event) {
    let Some(mut entry) = maps::EVENTS.reserve(0) else {
        count(Counter::EventsLost);
        return;
    };
    entry.write(*event);
    entry.submit(0);
}

/// Whether it is time to tell again of what a socket sends to `dst`: of UDP each
/// datagram is decided on, but not each is news.
#[inline(always)]
pub fn may_tell(ctx: &SockAddrContext, dst: Destination, reason: Reason) -> bool {
    // SAFETY: made from zeros, which is a value of this type; `ctx` holds a valid socket.
    let told = unsafe { maps::TOLD.get_or_insert_ptr_mut(ctx, None).as_mut() };
    // SAFETY: the helper takes no argument.
    let now = unsafe { bpf_ktime_get_ns() };
    told.is_none_or(|told| told.tell(Target::new(dst), reason, now))
}
