//! `cgroup/connect4` and `connect6`: the decision, inside `connect()`.
//!
//! ```text
//! __sys_connect → inet_stream_connect → tcp_v4_pre_connect / tcp_v6_pre_connect → here
//!               → inet_dgram_connect  → udp_pre_connect, udpv6_pre_connect      → here
//! ```
//!
//! 1. not an enrolled netns, neither TCP nor UDP, or weir itself: untouched
//! 2. forget the note of an earlier connect of this socket
//! 3. of UDP: see `datagram`; of TCP: `decide`
//! 4. Deny: event, EPERM (ENETUNREACH without an address to dial from). Direct:
//!    untouched. Balance: see `balance`. Proxy: 5.
//! 5. pick the listener, see that it is weir's and that weir is alive, check the quota,
//!    note the dialled address on the socket, rewrite the destination
//!
//! Errors on the way are `closed`: ECONNREFUSED, and a counter says which.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    BPF_F_CURRENT_NETNS, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as Ipv4Tuple,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 as Ipv6Tuple,
};
use aya_ebpf::helpers::generated::{
    bpf_ktime_get_ns, bpf_set_retval, bpf_sk_lookup_tcp, bpf_sk_release, bpf_sk_storage_get,
};
use aya_ebpf::programs::SockAddrContext;
use aya_log_ebpf::debug;
use proxy_common::{
    Addr, Beat, Counter, Decision, Destination, Event, Flow, LISTENERS_MAX, Listener, NetnsCookie,
    Note, OnProxyDown, Reason, Transport, Verdict, Workload, decide,
};

use crate::accelerate;
use crate::balance;
use crate::context::{
    ALLOW, Family, REFUSE, destination, is_proxy, netns, raw, refuse, rewrite, transport, workload,
};
use crate::datagram::{self, Call};
use crate::event::report;
use crate::maps::{self, count};
use crate::note;
use crate::tables::KernelTables;

const ENETUNREACH: i32 = 101;

/// Sizes of a tuple's arms: they tell the look-up which family is meant.
#[expect(clippy::cast_possible_truncation, reason = "the arm has 12 bytes")]
const IPV4_TUPLE_SIZE: u32 = size_of::<Ipv4Tuple>() as u32;
#[expect(clippy::cast_possible_truncation, reason = "the arm has 36 bytes")]
const IPV6_TUPLE_SIZE: u32 = size_of::<Ipv6Tuple>() as u32;

/// Decides on one connect; the value is the hook's return value.
#[inline(always)]
pub fn run(ctx: &SockAddrContext, family: Family) -> i32 {
    let netns = netns(ctx);
    let Some(workload) = workload(netns) else {
        return ALLOW;
    };
    let Some(transport) = transport(ctx) else {
        return ALLOW;
    };
    if is_proxy() {
        if transport == Transport::Tcp {
            accelerate::mark_upstream(ctx);
        }
        return ALLOW;
    }
    note::forget(ctx);
    let dst = destination(ctx, family);
    if transport == Transport::Udp {
        return datagram::decided(ctx, family, Call::Connect, netns, workload, dst);
    }
    let mut decision = decide(&KernelTables, workload, netns, transport, dst);
    debug!(
        ctx,
        "connect to port {}: verdict {} reason {}",
        dst.port.0,
        decision.verdict as u8,
        decision.reason as u8
    );
    match decision.verdict {
        Verdict::Balance => return balance::run(ctx, family, netns, workload, dst, &decision),
        Verdict::Proxy => match proxy(ctx, family, workload, dst, &decision) {
            Outcome::Done(code) => return code,
            Outcome::Deny(reason) => decision = Decision::plain(Verdict::Deny, reason),
        },
        Verdict::Deny | Verdict::Direct => {}
    }
    finish(netns, workload, dst, &decision)
}

/// Deny or Direct.
#[inline(always)]
fn finish(netns: NetnsCookie, workload: &Workload, dst: Destination, decision: &Decision) -> i32 {
    if decision.verdict == Verdict::Deny {
        count(Counter::Denied);
        report(&Event::new(
            netns,
            workload.id,
            Transport::Tcp,
            dst,
            decision,
        ));
        if decision.reason == Reason::NoListener {
            // What the kernel itself says to a host without such an address.
            // SAFETY: sets the error of this very call.
            unsafe { bpf_set_retval(-ENETUNREACH) };
        }
        return REFUSE;
    }
    count(Counter::Direct);
    if decision.reason == Reason::EgressAudited {
        report(&Event::new(
            netns,
            workload.id,
            Transport::Tcp,
            dst,
            decision,
        ));
    }
    ALLOW
}

enum Outcome {
    /// The hook's return value.
    Done(i32),
    /// Nothing that a listener could do: denied after all.
    Deny(Reason),
}

/// Sends the connect to the listener, or refuses it.
#[inline(always)]
fn proxy(
    ctx: &SockAddrContext,
    family: Family,
    workload: &Workload,
    dst: Destination,
    decision: &Decision,
) -> Outcome {
    if workload.listeners_len == 0 {
        return Outcome::Done(proxy_down(workload, decision, Absence::Dead));
    }
    let Some(listener) = pick_listener(ctx, workload, &dst.addr) else {
        return Outcome::Deny(Reason::BoundDevice);
    };
    if !is_alive(ctx, &listener) {
        return Outcome::Done(proxy_down(workload, decision, Absence::Dead));
    }
    if !is_beating() {
        return Outcome::Done(proxy_down(workload, decision, Absence::Hung));
    }
    if let Some(counter) = over_limit(workload) {
        return Outcome::Done(refuse(counter));
    }
    let to = Destination {
        addr: listener.addr,
        port: listener.port,
    };
    let mut note = Note::proxied(Flow::new(workload.id, dst, decision), to);
    if !note::write(ctx, &mut note) {
        return Outcome::Done(refuse(Counter::TableFull));
    }
    rewrite(ctx, family, to);
    count(Counter::Proxied);
    Outcome::Done(ALLOW)
}

/// The first listener of the dialled family, on the device that the socket is
/// bound to if it is bound to one. `None`: no listener sits on that device.
#[inline(always)]
fn pick_listener(ctx: &SockAddrContext, workload: &Workload, dialled: &Addr) -> Option<Listener> {
    // SAFETY: `sk` is a valid socket in every sock_addr hook.
    let device = unsafe { (*(*raw(ctx)).__bindgen_anon_1.sk).bound_dev_if };
    let mut index = 0;
    while index < LISTENERS_MAX {
        let listener = &workload.listeners[index];
        if listener.takes(dialled) && (device == 0 || listener.ifindex == device) {
            return Some(*listener);
        }
        index += 1;
    }
    None
}

/// Whether somebody listens there and carries weir's mark: a dead daemon is
/// known at once, and a pod that got hold of the port cannot pose as weir.
#[inline(always)]
fn is_alive(ctx: &SockAddrContext, listener: &Listener) -> bool {
    // SAFETY: all-zero is a valid tuple.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let dport = listener.port.0.to_be();
    let size = if listener.addr.is_v4() {
        let word = listener.addr.v4_word();
        // SAFETY: writes to the arm of the union that `size` tells.
        let v4 = unsafe { &mut tuple.__bindgen_anon_1.ipv4 };
        (v4.saddr, v4.daddr, v4.dport) = (word, word, dport);
        IPV4_TUPLE_SIZE
    } else {
        let words = listener.addr.words();
        // SAFETY: as above.
        let v6 = unsafe { &mut tuple.__bindgen_anon_1.ipv6 };
        (v6.saddr, v6.daddr, v6.dport) = (words, words, dport);
        IPV6_TUPLE_SIZE
    };
    // SAFETY: a valid context and an initialised tuple.
    let sk = unsafe {
        bpf_sk_lookup_tcp(
            ctx.as_ptr(),
            &raw mut tuple,
            size,
            i64::from(BPF_F_CURRENT_NETNS).cast_unsigned(),
            0,
        )
    };
    if sk.is_null() {
        return false;
    }
    // SAFETY: `sk` is a referenced socket; the reference is released below on the only path.
    unsafe {
        let map = core::ptr::from_ref(&maps::LISTENERS).cast_mut().cast();
        let mark = bpf_sk_storage_get(map, sk.cast(), core::ptr::null_mut(), 0);
        bpf_sk_release(sk.cast());
        !mark.is_null()
    }
}

/// Whether every worker was alive a moment ago: a hung daemon still has its
/// listeners, and who is sent there waits for nobody.
#[inline(always)]
fn is_beating() -> bool {
    // SAFETY: the helper takes no argument.
    let now = Beat(unsafe { bpf_ktime_get_ns() });
    maps::BEAT.get(0).is_some_and(|beat| beat.is_fresh(now))
}

/// The counter of the limit that one more pending flow would break.
#[inline(always)]
fn over_limit(workload: &Workload) -> Option<Counter> {
    // SAFETY: a plain read; the count may be a moment old, which the table's
    // reserve over `pending_max` allows for.
    let own = unsafe { maps::PENDING.get(workload.id) }
        .copied()
        .map_or(i64::MAX, u64::cast_signed);
    // One that fell below nothing is no reason to refuse for good.
    if own >= i64::from(workload.pending_max) {
        return Some(Counter::QuotaExceeded);
    }
    let total = maps::PENDING_TOTAL.get(0).copied();
    let total = total.map_or(i64::MAX, u64::cast_signed);
    let limit = maps::NODE.get(0).map_or(0, |node| node.pending_max);
    (total >= limit.cast_signed()).then_some(Counter::TableFull)
}

/// In which way there is no daemon.
#[derive(Clone, Copy)]
enum Absence {
    /// Nobody of weir's listens.
    Dead,
    /// Its listeners are there, but nobody serves them.
    Hung,
}

/// No daemon: `closed`, or `open` where the address alone was enough to allow
/// the connect. A name can only be checked by the proxy, so that stays closed.
#[inline(always)]
fn proxy_down(workload: &Workload, decision: &Decision, absence: Absence) -> i32 {
    let (open, closed) = match absence {
        Absence::Dead => (Counter::ProxyDownOpen, Counter::ProxyDownClosed),
        Absence::Hung => (Counter::ProxyHungOpen, Counter::ProxyHungClosed),
    };
    if workload.on_proxy_down() == OnProxyDown::Open && decision.reason != Reason::EgressByName {
        count(open);
        return ALLOW;
    }
    refuse(closed)
}
