//! A balanced TCP connect: the hook picks the endpoint itself, and the proxy never
//! sees the connection. Nothing here needs a daemon to be alive.
//!
//! Must never give one endpoint's share to another: who draws a share that
//! nobody serves is refused.

use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_ns};
use aya_ebpf::programs::SockAddrContext;
use proxy_common::{
    Counter, Decision, Destination, NetnsCookie, Note, Transport, Workload, choose,
};

use crate::context::{ALLOW, Family, refuse, rewrite};
use crate::ending::no_endpoint;
use crate::maps::count;
use crate::note;
use crate::tables::KernelTables;

/// Rewrites the destination to an endpoint, or refuses; the value is the
/// hook's return value.
#[inline(always)]
pub fn run(
    ctx: &SockAddrContext,
    family: Family,
    netns: NetnsCookie,
    workload: &Workload,
    dst: Destination,
    decision: &Decision,
) -> i32 {
    // SAFETY: the helper takes no argument.
    let random = unsafe { bpf_get_prandom_u32() };
    let tables = &KernelTables;
    let drawn = choose(
        tables,
        workload,
        Transport::Tcp,
        dst,
        decision.block,
        random,
    );
    if drawn.stale {
        return refuse(Counter::ServiceChanged);
    }
    let Some(endpoint) = drawn.target.destination() else {
        no_endpoint(netns, workload, dst, decision);
        return refuse(Counter::NoEndpoint);
    };
    // SAFETY: the helper takes no argument.
    let now = unsafe { bpf_ktime_get_ns() };
    let mut note = Note::balanced(workload.id, dst, decision, endpoint, now);
    if !note::write(ctx, &mut note) {
        return refuse(Counter::TableFull);
    }
    rewrite(ctx, family, endpoint);
    count(Counter::Balanced);
    ALLOW
}
