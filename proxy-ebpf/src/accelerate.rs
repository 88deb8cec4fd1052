//! `sock_ops` again, for acceleration: gives both sockets of a connection that
//! stays on this node their seats. Attached only while somebody accelerates.
//!
//! ```text
//! tcp_connect → CONNECT_CB             who will accept is known: OFFERS
//! tcp_finish_connect → ACTIVE_EST.     the dialling socket:      SEATS
//! tcp_check_req → PASSIVE_ESTABLISHED  OFFERS → the accepted socket: SEATS
//! tcp_set_state → STATE_CB(CLOSE)      never accepted:           OFFERS entry deleted
//! ```
//!
//! Only pairs get seats: a connection whose other end is on another node, or is
//! not known, stays what it was. Must never seat a socket before it is
//! established, nor one that MPTCP reads behind the socket's back.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    BPF_NOEXIST, BPF_SK_STORAGE_GET_F_CREATE, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB,
    BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
    BPF_SOCK_OPS_TCP_CONNECT_CB, bpf_sock,
};
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_sk_storage_delete, bpf_sk_storage_get, bpf_sock_hash_update,
};
use aya_ebpf::programs::{SockAddrContext, SockOpsContext};
use core::ptr::{from_mut, from_ref, null_mut};
use proxy_common::{
    AddressKey, Counter, Extent, Handed, NetnsCookie, NodeConfig, OfferKey, Partner, Seat, Stage,
    TcpState,
};

use crate::context::{cookie, workload};
use crate::flow::{End, addr, port, socket};
use crate::maps::{self, count};
use crate::multipath::above;
use crate::note;

/// weir itself is about to dial for a pod: notes that, if anybody accelerates.
#[inline(always)]
pub fn mark_upstream(ctx: &SockAddrContext) {
    if extent() == Extent::Nobody {
        return;
    }
    let mut partner = Partner::UPSTREAM;
    // SAFETY: the helper copies `partner`; without it the connection is not accelerated.
    unsafe { maps::PARTNERS.get_or_insert_ptr_mut(ctx, Some(&mut partner)) };
}

/// Handles one callback. The value means nothing to the callbacks handled here.
#[inline(always)]
pub fn run(ctx: &SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => dialling(ctx),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => dialled(ctx),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => accepted(ctx),
        BPF_SOCK_OPS_STATE_CB if TcpState::from_number(ctx.arg(1)) == TcpState::Close => {
            closed(ctx);
        }
        _ => {}
    }
    1
}

/// For whom the hooks accelerate now.
#[inline(always)]
fn extent() -> Extent {
    maps::NODE.get(0).map_or(Extent::Nobody, NodeConfig::extent)
}

/// The SYN is about to leave. A note of an earlier dial of the socket is void.
#[inline(always)]
fn dialling(ctx: &SockOpsContext) {
    let sk = socket(ctx);
    if sk.is_null() {
        return;
    }
    let is_upstream = partner(sk).is_some_and(|partner| partner.stage() == Stage::Upstream);
    // SAFETY: `sk` is a valid socket; deleting nothing is an error that means nothing.
    unsafe {
        let map = from_ref(&maps::PARTNERS).cast_mut().cast();
        bpf_sk_storage_delete(map, sk.cast());
    }
    let Some(to) = accepting_netns(ctx, sk, is_upstream) else {
        return;
    };
    // Without this flag CLOSE would not be seen and the offer would stay.
    let flags = ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG;
    if ctx.set_cb_flags(flags.cast_signed()).is_err() {
        return count(Counter::AccelerationRefused);
    }
    let cookie = cookie(ctx);
    // Of a balanced connection nobody but the hooks counts the bytes. The end
    // of its socket gives the place up, also if it gets no further than this.
    let is_counted = if let Some(note) = note::of(ctx).filter(|note| note.is_balanced()) {
        let nothing = Handed::default();
        if maps::HANDED.insert(cookie, nothing, 0).is_err() {
            return count(Counter::AccelerationRefused);
        }
        note.handed = 1;
        true
    } else {
        false
    };
    let key = offer(ctx, to, End::Local);
    let kept = maps::OFFERS.insert(key, cookie, 0).is_ok()
        && remember(sk, Partner::offered(Seat::dialling(cookie), to, is_counted));
    if !kept {
        count(Counter::AccelerationRefused);
    }
}

/// Where the connection will be accepted, if both ends take part; a workload
/// that does not want it is not even counted.
#[inline(always)]
fn accepting_netns(
    ctx: &SockOpsContext,
    sk: *mut bpf_sock,
    is_upstream: bool,
) -> Option<NetnsCookie> {
    let extent = extent();
    let own = netns(ctx);
    let source = workload(own)?;
    if !extent.covers(source.acceleration()) {
        return None;
    }
    let to = match note::of(ctx) {
        Some(note) if !note.is_balanced() => Some(own),
        None if !is_upstream => return None,
        _ => {
            let key = AddressKey {
                network: source.network,
                addr: addr(ctx, End::Remote),
            };
            // SAFETY: copied at once.
            let to = unsafe { maps::NEARBY.get(key) }.copied();
            to.filter(|to| workload(*to).is_some_and(|target| extent.covers(target.acceleration())))
        }
    };
    if to.is_none() || is_mptcp(sk) {
        count(Counter::AccelerationPassed);
        return None;
    }
    to
}

/// The dialling socket is established: nobody could write to it before, but for
/// what TCP Fast Open put into the SYN.
#[inline(always)]
fn dialled(ctx: &SockOpsContext) {
    let sk = socket(ctx);
    if sk.is_null() {
        return;
    }
    let Some(partner) = partner(sk) else {
        return;
    };
    if partner.stage() == Stage::Offered {
        let (seat, to) = (partner.seat, partner.accepted_in);
        *partner = seated(ctx, *partner);
        // Whoever accepts would sit opposite nobody; and what is known of this
        // socket is gone, so its end would leave the offer where it is.
        if !sit(ctx, sk, seat) {
            let _taken = maps::OFFERS.remove(offer(ctx, to, End::Local));
        }
    }
}

/// The accepted socket exists: if its connection was offered, it takes its seat.
#[inline(always)]
fn accepted(ctx: &SockOpsContext) {
    let key = offer(ctx, netns(ctx), End::Remote);
    // SAFETY: copied at once.
    let Some(cookie) = (unsafe { maps::OFFERS.get(key) }).copied() else {
        return;
    };
    // Whoever sees CLOSE may have been faster.
    let _gone = maps::OFFERS.remove(key);
    let sk = socket(ctx);
    if sk.is_null() || is_mptcp(sk) {
        return count(Counter::AccelerationPassed);
    }
    let seat = Seat::dialling(cookie).opposite();
    // SAFETY: only whether it is there is asked.
    let is_counted = unsafe { maps::HANDED.get(cookie) }.is_some();
    if !remember(sk, seated(ctx, Partner::accepted(seat, is_counted))) {
        return count(Counter::AccelerationRefused);
    }
    if sit(ctx, sk, seat) {
        count(Counter::Accelerated);
    }
}

/// The dialling socket is gone: so is an offer that nobody took.
#[inline(always)]
fn closed(ctx: &SockOpsContext) {
    let sk = socket(ctx);
    if sk.is_null() {
        return;
    }
    if let Some(partner) = partner(sk)
        && partner.seat.dialled()
    {
        let _taken = maps::OFFERS.remove(offer(ctx, partner.accepted_in, End::Local));
    }
}

/// A socket with a seat, as it is now.
#[inline(always)]
fn seated(ctx: &SockOpsContext, partner: Partner) -> Partner {
    let ops = ctx.ops;
    // SAFETY: a valid context. Volatile, so that each field is read in its own
    // width, which is all that the verifier allows.
    let (next, segments) = unsafe {
        (
            (&raw const (*ops).snd_nxt).read_volatile(),
            (&raw const (*ops).data_segs_out).read_volatile(),
        )
    };
    partner.seated(next, segments != 0)
}

/// Takes a seat; a socket that gets none is forgotten.
#[inline(always)]
fn sit(ctx: &SockOpsContext, sk: *mut bpf_sock, mut seat: Seat) -> bool {
    // SAFETY: a valid context and key; the kernel takes the socket from the context.
    let refused = unsafe {
        let map = from_ref(&maps::SEATS).cast_mut().cast();
        bpf_sock_hash_update(ctx.ops, map, from_mut(&mut seat).cast(), BPF_NOEXIST.into())
    };
    if refused == 0 {
        return true;
    }
    count(Counter::AccelerationRefused);
    // SAFETY: `sk` is a valid socket.
    unsafe {
        let map = from_ref(&maps::PARTNERS).cast_mut().cast();
        bpf_sk_storage_delete(map, sk.cast());
    }
    false
}

/// What is known of a socket.
#[inline(always)]
fn partner(sk: *mut bpf_sock) -> Option<&'static mut Partner> {
    // SAFETY: `sk` is a valid socket; a null value without CREATE only looks. The
    // value lives as long as the socket, which is locked here.
    unsafe {
        let map = from_ref(&maps::PARTNERS).cast_mut().cast();
        bpf_sk_storage_get(map, sk.cast(), null_mut(), 0)
            .cast::<Partner>()
            .as_mut()
    }
}

#[inline(always)]
fn remember(sk: *mut bpf_sock, mut partner: Partner) -> bool {
    // SAFETY: `sk` is a valid socket, the helper copies `partner`.
    let stored = unsafe {
        let map = from_ref(&maps::PARTNERS).cast_mut().cast();
        bpf_sk_storage_get(
            map,
            sk.cast(),
            from_mut(&mut partner).cast(),
            BPF_SK_STORAGE_GET_F_CREATE.into(),
        )
    };
    !stored.is_null()
}

/// A subflow of MPTCP: its bytes never pass through the socket's own calls.
#[inline(always)]
fn is_mptcp(sk: *mut bpf_sock) -> bool {
    !above(sk).is_null()
}

#[inline(always)]
fn netns(ctx: &SockOpsContext) -> NetnsCookie {
    // SAFETY: any context is a valid argument of this helper.
    NetnsCookie(unsafe { bpf_get_netns_cookie(ctx.as_ptr()) })
}

/// The connection's offer in `netns`, seen from the dialling or the accepting socket.
#[inline(always)]
fn offer(ctx: &SockOpsContext, netns: NetnsCookie, dialler: End) -> OfferKey {
    let accepter = match dialler {
        End::Local => End::Remote,
        End::Remote => End::Local,
    };
    OfferKey {
        netns,
        from: addr(ctx, dialler),
        to: addr(ctx, accepter),
        from_port: port(ctx, dialler),
        to_port: port(ctx, accepter),
        pad: 0,
    }
}
