//! Attached to each enrolled cgroup beside the node-wide hooks: a socket of
//! that cgroup in a namespace that weir does not know (one that the pod made
//! for itself) reaches nobody. It sits on the pod's own cgroup so that
//! everybody else does not pay for it.

use aya_ebpf::programs::SockAddrContext;
use proxy_common::{Counter, Decision, Event, NetnsCookie, Reason, Transport, Verdict, WorkloadId};

use crate::context::{ALLOW, Family, REFUSE, destination, known, netns, transport};
use crate::event::{may_tell, report};
use crate::maps::count;

/// Denies TCP and UDP from unknown namespaces; the value is the hook's return value.
#[inline(always)]
pub fn run(ctx: &SockAddrContext, family: Family) -> i32 {
    let Some(transport) = transport(ctx) else {
        return ALLOW;
    };
    if known(netns(ctx)).is_some() {
        return ALLOW;
    }
    let decision = Decision::plain(Verdict::Deny, Reason::UnknownNetns);
    let dst = destination(ctx, family);
    let is_news = match transport {
        Transport::Tcp => {
            count(Counter::Denied);
            true
        }
        Transport::Udp => {
            count(Counter::UdpDenied);
            may_tell(ctx, dst, decision.reason)
        }
    };
    if is_news {
        let nobody = (NetnsCookie(0), WorkloadId(0));
        report(&Event::new(nobody.0, nobody.1, transport, dst, &decision));
    }
    REFUSE
}
