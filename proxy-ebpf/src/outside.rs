//! Who began to talk over UDP, the pod or somebody outside the mesh. What comes
//! into a pod is not weir's business, so its answers are not either; but each of
//! them is a datagram with an address, like those that egress rules are about.
//!
//! Must never take for an answer what the pod began: a rule that is gone is gone.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::programs::SockAddrContext;
use proxy_common::{
    AddressKey, Decision, Destination, EgressDefault, Heard, HeardKey, LocalKey, NetnsCookie,
    Reason, Tables as _, Target, Workload,
};

use crate::context::{is_connected, local_port};
use crate::maps;
use crate::tables::KernelTables;

/// Whether it matters for this workload: where all is allowed it does not.
#[inline(always)]
fn matters(workload: &Workload) -> bool {
    workload.egress_default() != EgressDefault::Allow
}

/// Whether a datagram that no rule allows answers one from there.
#[inline(always)]
pub fn is_answer(
    ctx: &SockAddrContext,
    netns: NetnsCookie,
    dst: Destination,
    decision: &Decision,
) -> bool {
    let may_be = matches!(
        decision.reason,
        Reason::EgressDenied | Reason::NameOverUdp | Reason::EgressAudited
    );
    may_be && known(&key(ctx, netns, dst)).is_answer(now())
}

/// The pod sends there by a rule.
#[inline(always)]
pub fn sent(
    ctx: &SockAddrContext,
    netns: NetnsCookie,
    workload: &Workload,
    dst: Destination,
    decision: &Decision,
) {
    let is_outside = matches!(
        decision.reason,
        Reason::EgressRule | Reason::Resolver | Reason::EgressAudited
    );
    let key = key(ctx, netns, dst);
    // Before its first datagram a socket has no port: nobody can have written to it.
    if is_outside && matters(workload) && key.local.0 != 0 {
        note(key, Heard::sent(known(&key), now()));
    }
}

/// The pod hears from there. Who is connected answers without an address.
#[inline(always)]
pub fn received(ctx: &SockAddrContext, netns: NetnsCookie, workload: &Workload, from: Destination) {
    if !matters(workload) || is_connected(ctx) || from.addr.is_loopback() {
        return;
    }
    let addr = from.addr;
    let network = workload.network;
    if KernelTables.is_local(&LocalKey { netns, addr })
        || KernelTables
            .address(&AddressKey { network, addr })
            .is_some()
    {
        return;
    }
    let key = key(ctx, netns, from);
    note(key, Heard::received(known(&key), now()));
}

#[inline(always)]
fn note(key: HeardKey, (is_news, heard): (bool, Heard)) {
    if is_news {
        // Without memory the answer is denied, as if it was forgotten.
        let _full = maps::HEARD.insert(key, heard, 0);
    }
}

#[inline(always)]
fn known(key: &HeardKey) -> Heard {
    // SAFETY: copied at once; a value that is used again meanwhile is an exchange
    // of this moment too.
    unsafe { maps::HEARD.get(key) }.copied().unwrap_or_default()
}

#[inline(always)]
fn key(ctx: &SockAddrContext, netns: NetnsCookie, outside: Destination) -> HeardKey {
    HeardKey {
        netns,
        outside: Target::new(outside),
        local: local_port(ctx),
        pad: 0,
    }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper takes no argument.
    unsafe { bpf_ktime_get_ns() }
}
