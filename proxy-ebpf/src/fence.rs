//! Attached to each enrolled cgroup beside the node-wide hooks: a socket of
//! that cgroup in a namespace that weir does not know (one that the pod made
//! for itself) connects nowhere. It sits on the pod's own cgroup so that
//! everybody else does not pay for it.

use aya_ebpf::programs::SockAddrContext;
use proxy_common::{Counter, Decision, NetnsCookie, Reason, Verdict, WorkloadId};

use crate::context::{ALLOW, Family, REFUSE, destination, is_tcp, netns, workload};
use crate::event::report;
use crate::maps::count;

/// Denies TCP from unknown namespaces; the value is the hook's return value.
#[inline(always)]
pub fn run(ctx: &SockAddrContext, family: Family) -> i32 {
    if !is_tcp(ctx) || workload(netns(ctx)).is_some() {
        return ALLOW;
    }
    count(Counter::Denied);
    let decision = Decision::plain(Verdict::Deny, Reason::UnknownNetns);
    report(
        NetnsCookie(0),
        WorkloadId(0),
        destination(ctx, family),
        &decision,
    );
    REFUSE
}
