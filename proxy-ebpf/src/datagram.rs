//! UDP: `connect()`, every datagram that names its destination, and every one
//! that is received with its source.
//!
//! ```text
//! udp_pre_connect → connect4, connect6    decided on; a balanced peer is the endpoint
//! udp_sendmsg     → sendmsg4, sendmsg6    the same for each datagram with an address
//! udp_recvmsg     → recvmsg4, recvmsg6    from an endpoint: seems to come from what was dialled
//! ```
//!
//! The kernel holds the socket's lock around each of them, so what a socket
//! remembers is changed by one of them at a time. Nothing here needs a daemon
//! to be alive. Must never send a datagram to an endpoint that the service does
//! not list, nor give one endpoint's share to another.

use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_ns};
use aya_ebpf::programs::SockAddrContext;
use aya_log_ebpf::debug;
use proxy_common::{
    BlockGeneration, CELLS, Cells, Counter, Decision, Destination, Event, NetnsCookie, Note, Peer,
    Reason, Talking, Target, Transport, Verdict, Workload, choose, decide,
};

use crate::context::{
    ALLOW, Family, REFUSE, cookie, destination, is_connected, is_proxy, netns, refuse, rewrite,
    transport, workload,
};
use crate::maps::{self, count};
use crate::tables::KernelTables;
use crate::{ending, event, note, outside};

/// Cells beside a socket's talks: its lock is held, so nobody else is at them.
struct SocketCells(*mut [u64; CELLS]);

impl Cells for SocketCells {
    #[inline(always)]
    fn put(&self, cell: usize, value: u64) {
        // SAFETY: in the socket's storage, which lives as long as the socket.
        // Volatile: the compiler must not keep it in a register.
        unsafe { (&raw mut (*self.0)[cell]).write_volatile(value) };
    }

    #[inline(always)]
    fn get(&self, cell: usize) -> u64 {
        // SAFETY: as above.
        unsafe { (&raw const (*self.0)[cell]).read_volatile() }
    }
}

/// Which call it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `connect()`: the destination becomes the socket's peer.
    Connect,
    /// `sendmsg()` and its kin, with an address.
    Send,
}

/// Decides on one datagram; the value is the hook's return value.
#[inline(always)]
pub fn send(ctx: &SockAddrContext, family: Family) -> i32 {
    let netns = netns(ctx);
    let Some(workload) = workload(netns) else {
        return ALLOW;
    };
    if transport(ctx) != Some(Transport::Udp) || is_proxy() {
        return ALLOW;
    }
    let dst = destination(ctx, family);
    // A socket of IPv6 whose peer is of IPv4 comes by here with each datagram
    // to that peer, which was decided on when it was dialled.
    if is_connected(ctx) && note::is_of(ctx, dst) {
        return ALLOW;
    }
    decided(ctx, family, Call::Send, netns, workload, dst)
}

/// Decides on a connect or datagram to `dst`; the value is the hook's return value.
#[inline(always)]
pub fn decided(
    ctx: &SockAddrContext,
    family: Family,
    call: Call,
    netns: NetnsCookie,
    workload: &Workload,
    dst: Destination,
) -> i32 {
    let decision = decide(&KernelTables, workload, netns, Transport::Udp, dst);
    debug!(
        ctx,
        "datagram to port {}: verdict {} reason {}",
        dst.port.0,
        decision.verdict as u8,
        decision.reason as u8
    );
    if call == Call::Connect {
        forget_peer(ctx);
    }
    match decision.verdict {
        Verdict::Balance => return balance(ctx, family, call, netns, workload, dst, &decision),
        Verdict::Direct if decision.reason != Reason::EgressAudited => {
            outside::sent(ctx, netns, workload, dst, &decision);
            straight(ctx, dst, &decision);
        }
        _ if outside::is_answer(ctx, netns, dst, &decision) => {}
        Verdict::Direct => {
            outside::sent(ctx, netns, workload, dst, &decision);
            tell(ctx, netns, workload, dst, &decision);
        }
        // No decision on UDP says Proxy; one that did would have nowhere to go.
        Verdict::Deny | Verdict::Proxy => {
            count(Counter::UdpDenied);
            tell(ctx, netns, workload, dst, &decision);
            return REFUSE;
        }
    }
    count(Counter::UdpDirect);
    ALLOW
}

/// Rewrites the destination to the endpoint that the socket talks with under
/// this address, or to one that is drawn.
#[inline(always)]
fn balance(
    ctx: &SockAddrContext,
    family: Family,
    call: Call,
    netns: NetnsCookie,
    workload: &Workload,
    dst: Destination,
    decision: &Decision,
) -> i32 {
    // SAFETY: made from zeros, which is a value of this type; `ctx` holds a valid socket.
    let talking = unsafe { maps::TALKS.get_or_insert_ptr_mut(ctx, None).as_mut() };
    let Some(Talking { talks, cells }) = talking else {
        return refuse(Counter::TableFull);
    };
    let cells = &SocketCells(cells);
    let dialled = Target::new(dst);
    let mut target = talks.endpoint(&KernelTables, cells, decision.block, &dialled);
    if target.port.0 == 0 {
        // SAFETY: the helper takes no argument.
        let random = unsafe { bpf_get_prandom_u32() };
        let tables = &KernelTables;
        let block = decision.block;
        let drawn = choose(tables, workload, Transport::Udp, dst, block, random);
        if drawn.stale {
            return refuse(Counter::ServiceChanged);
        }
        target = drawn.target;
    }
    let Some(endpoint) = target.destination() else {
        return nobody(ctx, netns, workload, dst, decision);
    };
    if call == Call::Connect {
        if !remember(ctx, workload, dst, decision, endpoint) {
            return refuse(Counter::TableFull);
        }
        watch(ctx, netns, dialled, target);
    }
    if talks.note(cells, dialled, target, decision.block.generation) {
        count(Counter::UdpForgotten);
    }
    rewrite(ctx, family, endpoint);
    count(Counter::UdpBalanced);
    ALLOW
}

/// The daemon finds by this who is to be woken when the endpoint dies.
#[inline(always)]
fn watch(ctx: &SockAddrContext, netns: NetnsCookie, dialled: Target, endpoint: Target) {
    let peer = Peer {
        netns,
        dialled,
        endpoint,
    };
    if maps::PEERS.insert(cookie(ctx), peer, 0).is_err() {
        count(Counter::UdpUnwatched);
    }
}

/// A socket that connects again has another peer, or none.
#[inline(always)]
fn forget_peer(ctx: &SockAddrContext) {
    let _absent = maps::PEERS.remove(cookie(ctx));
}

/// The socket's peer is to be an endpoint: `getpeername` answers from the note.
#[inline(always)]
fn remember(
    ctx: &SockAddrContext,
    workload: &Workload,
    dst: Destination,
    decision: &Decision,
    endpoint: Destination,
) -> bool {
    // SAFETY: the helper takes no argument.
    let now = unsafe { bpf_ktime_get_ns() };
    let mut note = Note::balanced(workload.id, dst, decision, endpoint, now);
    note::write(ctx, &mut note)
}

/// No endpoint is ready for it.
#[inline(always)]
fn nobody(
    ctx: &SockAddrContext,
    netns: NetnsCookie,
    workload: &Workload,
    dst: Destination,
    decision: &Decision,
) -> i32 {
    if event::may_tell(ctx, dst, decision.reason) {
        ending::no_endpoint(netns, workload, dst, decision);
    }
    refuse(Counter::UdpNoEndpoint)
}

/// The application sends to an endpoint by its own address, and hears from it
/// by that from now on.
#[inline(always)]
fn straight(ctx: &SockAddrContext, dst: Destination, decision: &Decision) {
    if decision.reason != Reason::Workload {
        return;
    }
    // SAFETY: `ctx` holds a valid socket; the value lives as long as it does.
    if let Some(Talking { talks, cells }) = unsafe { maps::TALKS.get_ptr_mut(ctx).as_mut() } {
        let itself = Target::new(dst);
        let cells = &SocketCells(cells);
        if talks.knows(&itself) && talks.note(cells, itself, itself, BlockGeneration::NONE) {
            count(Counter::UdpForgotten);
        }
    }
}

#[inline(always)]
fn tell(
    ctx: &SockAddrContext,
    netns: NetnsCookie,
    workload: &Workload,
    dst: Destination,
    decision: &Decision,
) {
    if event::may_tell(ctx, dst, decision.reason) {
        event::report(&Event::new(
            netns,
            workload.id,
            Transport::Udp,
            dst,
            decision,
        ));
    }
}

/// Shows the application whom it hears from under the address that it sent to.
#[inline(always)]
pub fn receive(ctx: &SockAddrContext, family: Family) -> i32 {
    let netns = netns(ctx);
    let Some(workload) = workload(netns) else {
        return ALLOW;
    };
    let from = destination(ctx, family);
    // SAFETY: `ctx` holds a valid socket; the value lives as long as it does.
    if let Some(Talking { talks, cells }) = unsafe { maps::TALKS.get_ptr_mut(ctx).as_mut() } {
        let dialled = talks.seen_as(&SocketCells(cells), &Target::new(from));
        if let Some(dialled) = dialled.destination() {
            rewrite(ctx, family, dialled);
            return ALLOW;
        }
    }
    outside::received(ctx, netns, workload, from);
    ALLOW
}
