//! What `connect()` notes on its socket: whom the application dialled.
//!
//! Of Multipath TCP the socket that dials is a subflow, and the application holds
//! another one above it, which answers for its names. Both carry the note, and both
//! lose it.

use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_sk_storage_delete, bpf_sk_storage_get};
use aya_ebpf::programs::SockAddrContext;
use core::ffi::c_void;
use core::ptr::{from_mut, from_ref, null_mut};
use proxy_common::{Destination, Note};

use crate::context::raw;
use crate::maps;
use crate::multipath::above;

/// Notes on the socket; false: there is no memory for it.
#[inline(always)]
pub fn write(ctx: &SockAddrContext, note: &mut Note) -> bool {
    // SAFETY: the helper copies `note`; the map is of this value type.
    let stored = unsafe { maps::NOTES.get_or_insert_ptr_mut(ctx, Some(note)) };
    if stored.is_null() {
        return false;
    }
    let above = above(socket(ctx));
    if above.is_null() {
        return true;
    }
    // SAFETY: `above` is a valid socket, the helper copies `note`.
    let stored = unsafe {
        bpf_sk_storage_get(
            map(),
            above,
            from_mut(note).cast(),
            BPF_SK_STORAGE_GET_F_CREATE.into(),
        )
    };
    !stored.is_null()
}

/// What is noted on the socket. It may be of an earlier dial: see [`Note::is_of`].
#[inline(always)]
pub fn read(ctx: &SockAddrContext) -> Option<&'static Note> {
    // SAFETY: `ctx` holds a valid socket; the value lives as long as it does.
    unsafe { maps::NOTES.get_ptr_mut(ctx).as_ref() }
}

/// Whether `to` is what the socket's last `connect` was sent to.
#[inline(always)]
pub fn is_of(ctx: &SockAddrContext, to: Destination) -> bool {
    read(ctx).is_some_and(|note| note.is_of(to))
}

/// A socket can dial again after `AF_UNSPEC`: what it noted then is void now. A
/// subflow that joins later has noted nothing, and so takes no name away.
#[inline(always)]
pub fn forget(ctx: &SockAddrContext) {
    // SAFETY: both are valid sockets; a null value without CREATE only looks, which
    // is all that a first dial pays for.
    unsafe {
        if bpf_sk_storage_get(map(), socket(ctx).cast(), null_mut(), 0).is_null() {
            return;
        }
        bpf_sk_storage_delete(map(), socket(ctx).cast());
        let above = above(socket(ctx));
        if !above.is_null() {
            bpf_sk_storage_delete(map(), above);
        }
    }
}

#[inline(always)]
fn socket(ctx: &SockAddrContext) -> *mut bpf_sock {
    // SAFETY: `sk` is a valid socket in every sock_addr hook.
    unsafe { (*raw(ctx)).__bindgen_anon_1.sk }
}

#[inline(always)]
fn map() -> *mut c_void {
    from_ref(&maps::NOTES).cast_mut().cast()
}
