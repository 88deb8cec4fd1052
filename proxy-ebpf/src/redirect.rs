//! `sk_msg`: hands what an application writes straight to the socket opposite.
//!
//! ```text
//! sendmsg → tcp_bpf_sendmsg (socket locked) → here → the reader's ingress queue
//!                                                 └─ or TCP, as if this were not there
//! ```
//!
//! A reader empties its ingress queue before it looks at what TCP received. So
//! bytes may be handed over only while TCP has never carried one of that
//! direction: TCP's own `write_seq` tells, and it is read for every write, under
//! the lock that every write takes. Must never return what the redirect helper
//! says of a seat that is empty: that would drop the bytes.

use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_F_INGRESS, BPF_TCP_ESTABLISHED, sk_action};
use aya_ebpf::helpers::generated::{
    bpf_msg_redirect_hash, bpf_sk_storage_get, bpf_skc_to_tcp_sock,
};
use aya_ebpf::programs::SkMsgContext;
use core::ffi::c_void;
use core::ptr::{from_mut, from_ref, null_mut};
use proxy_common::{Counter, Partner, Seat, Stage};

use crate::maps::{self, count};

/// Where `write_seq` lies in the kernel's `struct tcp_sock`. The daemon reads it
/// from the kernel's type information and puts it in before it loads this.
// SAFETY: no other symbol of the object has this name.
#[unsafe(no_mangle)]
static WRITE_SEQ_OFFSET: Global<u32> = Global::new(0);

/// Redirects one write, or lets TCP have it; the value is the program's verdict.
#[inline(always)]
pub fn run(ctx: &SkMsgContext) -> u32 {
    // SAFETY: a valid context; null is checked by `partner`.
    let sk = unsafe { (*ctx.msg).__bindgen_anon_3.sk };
    if sk.is_null() {
        return sk_action::SK_PASS;
    }
    // SAFETY: `sk` is a valid socket; a null value without CREATE only looks. The
    // value lives as long as the socket, which is locked here.
    let partner = unsafe {
        let map = from_ref(&maps::PARTNERS).cast_mut().cast();
        bpf_sk_storage_get(map, sk.cast(), null_mut(), 0)
            .cast::<Partner>()
            .as_mut()
    };
    let Some(partner) = partner else {
        return sk_action::SK_PASS;
    };
    // SAFETY: `sk` is a valid socket.
    let state = unsafe { (&raw const (*sk).state).read_volatile() };
    // After the reader's FIN its socket may be gone as soon as ours is closed:
    // what it has not read yet is safer where TCP keeps it.
    if partner.stage() != Stage::Seated || state != BPF_TCP_ESTABLISHED {
        return sk_action::SK_PASS;
    }
    // SAFETY: `sk` is a valid socket; the helper checks its kind, the offset is
    // that of a u32 in the structure it returns.
    let next = unsafe {
        let tcp = bpf_skc_to_tcp_sock(sk.cast());
        if tcp.is_null() {
            return sk_action::SK_PASS;
        }
        tcp.cast::<c_void>()
            .byte_add(WRITE_SEQ_OFFSET.load() as usize)
            .cast::<u32>()
            .read_volatile()
    };
    if next != partner.first_byte {
        return pass(partner);
    }
    let mut opposite = partner.seat.opposite();
    // SAFETY: a valid context and key.
    let verdict = unsafe {
        let map = from_ref(&maps::SEATS).cast_mut().cast();
        bpf_msg_redirect_hash(
            ctx.msg,
            map,
            from_mut(&mut opposite).cast(),
            u64::from(BPF_F_INGRESS),
        )
    };
    if verdict == i64::from(sk_action::SK_PASS) {
        if partner.is_counted() {
            counted(ctx, partner.seat);
        }
        return sk_action::SK_PASS;
    }
    pass(partner)
}

/// Counts what is handed over. Its end may have given up its place by now.
#[inline(always)]
fn counted(ctx: &SkMsgContext, seat: Seat) {
    let handed = maps::HANDED.get_ptr_mut(seat.dialler());
    // SAFETY: a valid context; an aligned value that lives until this program ends,
    // and one socket alone, which is locked, writes this way's number.
    unsafe {
        if let Some(handed) = handed.and_then(|handed| handed.as_mut()) {
            handed.add(seat, (&raw const (*ctx.msg).size).read_volatile());
        }
    }
}

/// From now on TCP carries this direction.
#[inline(always)]
fn pass(partner: &mut Partner) -> u32 {
    partner.stage = Stage::Receives as u8;
    count(Counter::AccelerationPassed);
    sk_action::SK_PASS
}
