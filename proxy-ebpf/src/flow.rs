//! `sock_ops`: carries the original destination from the dialling socket to
//! the accepted one, by exact key, and cleans up after what never arrives.
//!
//! ```text
//! tcp_connect → CONNECT_CB             source final, SYN not sent: NOTES → FLOWS
//! tcp_check_req … PASSIVE_ESTABLISHED  the accepted socket exists:  FLOWS → ACCEPTED
//! tcp_set_state → STATE_CB(CLOSE)      refused, timed out, closed:  FLOWS entry deleted
//! ```
//!
//! A balanced connection has no flow to hand over; `ending` tells of it.
//!
//! An entry leaves `FLOWS` exactly once: whoever's delete succeeds gives the
//! quota back. Moving at `PASSIVE_ESTABLISHED`, not at `accept()`, keeps the
//! flow of a client that closes early apart from the next one with its source
//! port.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    BPF_NOEXIST, BPF_SK_STORAGE_GET_F_CREATE, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
    BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, bpf_sock,
};
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_sk_storage_get};
use aya_ebpf::programs::SockOpsContext;
use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::ptr::{from_mut, from_ref};
use proxy_common::{
    Addr, Counter, Destination, Flow, FlowKey, NetnsCookie, Note, Port, TcpState, WorkloadId,
};

use crate::ending;
use crate::maps::{self, count};
use crate::note;

const AF_INET6: u32 = 10;
const EEXIST: i32 = -17;

/// One of a socket's two ends.
#[derive(Clone, Copy)]
pub enum End {
    /// The socket's own.
    Local,
    /// Its peer's.
    Remote,
}

/// Handles one callback. The value means nothing to the callbacks handled here.
#[inline(always)]
pub fn run(ctx: &SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => connecting(ctx),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => accepted(ctx),
        BPF_SOCK_OPS_STATE_CB => moved(ctx),
        _ => {}
    }
    1
}

/// The SYN is about to leave: whoever accepts it must find the flow, and the
/// end of a balanced connection must be seen.
#[inline(always)]
fn connecting(ctx: &SockOpsContext) {
    let Some(note) = note(ctx) else {
        return;
    };
    // Without this flag CLOSE would not be seen and the entry would stay.
    let flags = ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG;
    let is_watched = ctx.set_cb_flags(flags.cast_signed()).is_ok();
    if is_watched {
        note.watch();
    }
    if note.is_balanced() {
        if !is_watched {
            count(Counter::EndingsLost);
        }
    } else if is_watched {
        hand_over(key(ctx, End::Local), note.flow);
    } else {
        count(Counter::FlowWriteFailed);
    }
}

#[inline(always)]
fn hand_over(key: FlowKey, flow: Flow) {
    match maps::FLOWS.insert(key, flow, BPF_NOEXIST.into()) {
        Ok(()) => add_pending(flow.workload, 1),
        // Left behind by nobody known. It is given up as any other, so that the
        // counts stay those of the entries.
        Err(EEXIST) => {
            give_up(key);
            match maps::FLOWS.insert(key, flow, BPF_NOEXIST.into()) {
                Ok(()) => add_pending(flow.workload, 1),
                Err(_) => count(Counter::FlowWriteFailed),
            }
        }
        Err(_) => count(Counter::FlowWriteFailed),
    }
}

/// The dialling socket changes its state.
#[inline(always)]
fn moved(ctx: &SockOpsContext) {
    let old = TcpState::from_number(ctx.arg(0));
    let new = TcpState::from_number(ctx.arg(1));
    // To be established, above all, says nothing of a connection's end; a socket that
    // was reset is closed once more when the application closes it.
    if new == TcpState::Other || old == TcpState::Close {
        return;
    }
    let mut note = note(ctx);
    match &mut note {
        Some(note) if note.is_balanced() => ending::moved(ctx, note, old, new),
        _ if new == TcpState::Close => closed(ctx),
        _ => {}
    }
    if let Some(note) = note
        && new == TcpState::Close
    {
        note::end(ctx, note);
    }
}

/// What `connect` noted on the socket for this very connection: a pod that was
/// unenrolled dials past the hook that forgets an earlier dial.
#[inline(always)]
fn note(ctx: &SockOpsContext) -> Option<&'static mut Note> {
    let peer = Destination {
        addr: addr(ctx, End::Remote),
        port: port(ctx, End::Remote),
    };
    note::of(ctx).filter(|note| note.is_of(peer))
}

/// The accepted socket exists: it gets the flow. Most sockets of a node are none of
/// weir's; as long as no flow is under way anywhere, and each is counted from before
/// its SYN, none of them needs a look.
#[inline(always)]
fn accepted(ctx: &SockOpsContext) {
    if maps::PENDING_TOTAL.get(0) == Some(&0) {
        return;
    }
    let key = key(ctx, End::Remote);
    // SAFETY: copied at once.
    let Some(mut flow) = (unsafe { maps::FLOWS.get(key) }).copied() else {
        return;
    };
    let sk = socket(ctx);
    if sk.is_null() {
        return;
    }
    // SAFETY: `sk` is a valid socket, the helper copies `flow`.
    let stored = unsafe {
        let map = from_ref(&maps::ACCEPTED).cast_mut().cast();
        bpf_sk_storage_get(
            map,
            sk.cast(),
            from_mut(&mut flow).cast(),
            BPF_SK_STORAGE_GET_F_CREATE.into(),
        )
    };
    if stored.is_null() {
        count(Counter::FlowWriteFailed);
    }
    remove(key, flow.workload);
}

/// The dialling socket is gone: so is a flow that nobody accepted.
#[inline(always)]
fn closed(ctx: &SockOpsContext) {
    give_up(key(ctx, End::Local));
}

/// Takes away a flow that nobody accepts.
#[inline(always)]
fn give_up(key: FlowKey) {
    // SAFETY: copied at once.
    if let Some(flow) = (unsafe { maps::FLOWS.get(key) }).copied() {
        remove(key, flow.workload);
    }
}

#[inline(always)]
fn remove(key: FlowKey, workload: WorkloadId) {
    if maps::FLOWS.remove(key).is_ok() {
        add_pending(workload, -1);
    }
}

/// Changes both pending counts by `by`.
#[inline(always)]
fn add_pending(workload: WorkloadId, by: i64) {
    for count in [
        maps::PENDING.get_ptr_mut(workload),
        maps::PENDING_TOTAL.get_ptr_mut(0),
    ] {
        let Some(count) = count else { continue };
        let by = by.cast_unsigned();
        // SAFETY: an aligned u64 in a map that every CPU changes atomically.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(count, by) };
    }
}

/// The flow's key, seen from the dialling or the accepting socket.
#[inline(always)]
fn key(ctx: &SockOpsContext, dialler: End) -> FlowKey {
    // SAFETY: any context is a valid argument of this helper.
    let netns = NetnsCookie(unsafe { bpf_get_netns_cookie(ctx.as_ptr()) });
    let (listener, end) = match dialler {
        End::Local => (port(ctx, End::Remote), End::Local),
        End::Remote => (port(ctx, End::Local), End::Remote),
    };
    FlowKey {
        netns,
        addr: addr(ctx, end),
        port: port(ctx, end),
        listener,
        pad: 0,
    }
}

/// The address of one end.
#[inline(always)]
pub fn addr(ctx: &SockOpsContext, end: End) -> Addr {
    let ops = ctx.ops;
    // SAFETY: a valid context. Word by word and volatile: the verifier allows
    // no wider access to these fields.
    unsafe {
        match (ctx.family() == AF_INET6, end) {
            (false, End::Local) => Addr::from_v4_word((*ops).local_ip4),
            (false, End::Remote) => Addr::from_v4_word((*ops).remote_ip4),
            (true, End::Local) => Addr::from_words([
                (&raw const (*ops).local_ip6[0]).read_volatile(),
                (&raw const (*ops).local_ip6[1]).read_volatile(),
                (&raw const (*ops).local_ip6[2]).read_volatile(),
                (&raw const (*ops).local_ip6[3]).read_volatile(),
            ]),
            (true, End::Remote) => Addr::from_words([
                (&raw const (*ops).remote_ip6[0]).read_volatile(),
                (&raw const (*ops).remote_ip6[1]).read_volatile(),
                (&raw const (*ops).remote_ip6[2]).read_volatile(),
                (&raw const (*ops).remote_ip6[3]).read_volatile(),
            ]),
        }
    }
}

/// Local ports come in host byte order, remote ones as a network-order word.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "in host order the high half is always zero"
)]
pub fn port(ctx: &SockOpsContext, end: End) -> Port {
    match end {
        End::Local => Port(ctx.local_port() as u16),
        End::Remote => Port(u32::from_be(ctx.remote_port()) as u16),
    }
}

/// The socket; may be null.
#[inline(always)]
pub fn socket(ctx: &SockOpsContext) -> *mut bpf_sock {
    // SAFETY: a valid context; the caller checks for null.
    unsafe { (*ctx.ops).__bindgen_anon_2.sk }
}
