//! What `connect()` notes of its socket: whom the application dialled.
//!
//! A note stands in `NOTES`, by the socket's cookie, where room is there from the
//! start: storage on the socket itself would be two allocations for each connect.
//! Only what cannot be there is on the socket (`SOCKET_NOTES`): what finds `NOTES`
//! full, and Multipath TCP. There the socket that dials is a subflow, which nobody
//! releases, and the application holds another one above it, which answers for its
//! names; both carry the note. A socket has it in one of the two places.
//!
//! A note is changed under its socket's lock alone. It leaves `NOTES` when the dial is
//! forgotten, when the connection closes, or when the application closes the socket of
//! one that nobody watches, or whose end has nothing to tell.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_sk_storage_delete, bpf_sk_storage_get};
use aya_ebpf::programs::{SockAddrContext, SockContext, SockOpsContext};
use core::ffi::c_void;
use core::ptr::{from_mut, from_ref, null_mut};
use proxy_common::{Destination, Note};

use crate::context::{cookie, raw};
use crate::flow;
use crate::maps;
use crate::multipath::above;

/// Notes of the socket; false: there is no memory for it.
#[inline(always)]
pub fn write(ctx: &SockAddrContext, note: &mut Note) -> bool {
    let above = above(socket(ctx));
    if above.is_null() {
        return maps::NOTES.insert(cookie(ctx), *note, 0).is_ok() || put(socket(ctx).cast(), note);
    }
    put(socket(ctx).cast(), note) && put(above, note)
}

/// What is noted of the socket. It may be of an earlier dial: see [`Note::is_of`].
#[inline(always)]
pub fn read(ctx: &SockAddrContext) -> Option<&'static Note> {
    find(ctx, socket(ctx)).map(|note| &*note)
}

/// Whether `to` is what the socket's last `connect` was sent to.
#[inline(always)]
pub fn is_of(ctx: &SockAddrContext, to: Destination) -> bool {
    read(ctx).is_some_and(|note| note.is_of(to))
}

/// A socket can dial again after a dial that failed, or after `AF_UNSPEC`: what was
/// noted then is void now. A subflow that joins later has noted nothing, and so takes
/// no name away.
#[inline(always)]
pub fn forget(ctx: &SockAddrContext) {
    // Only looked for, which is all that a first dial pays for.
    if find(ctx, socket(ctx)).is_none() || maps::NOTES.remove(cookie(ctx)).is_ok() {
        return;
    }
    take(socket(ctx).cast());
    let above = above(socket(ctx));
    if !above.is_null() {
        take(above);
    }
}

/// What is noted of the connection that a callback is about.
#[inline(always)]
pub fn of(ctx: &SockOpsContext) -> Option<&'static mut Note> {
    let sk = flow::socket(ctx);
    if sk.is_null() {
        return None;
    }
    find(ctx, sk)
}

/// The connection of this note is closed. On a socket the note is void from now on, and
/// stays: of Multipath TCP the socket above goes on, and by this note a subflow that
/// dials again is told from one that joins.
#[inline(always)]
pub fn end(ctx: &SockOpsContext, note: &mut Note) {
    if maps::NOTES.remove(cookie(ctx)).is_err() {
        note.end();
    }
}

/// The application has closed the socket. A connection whose end will be told keeps its
/// note until then.
#[inline(always)]
pub fn release(ctx: &SockContext) {
    let cookie = cookie(ctx);
    // SAFETY: read at once. No lock is held here: if the connection closes meanwhile,
    // the answer may be another note's, and there is nothing left to remove.
    let is_of_use = unsafe { maps::NOTES.get(cookie) }.map(Note::outlives_its_socket);
    if is_of_use == Some(false) {
        let _gone = maps::NOTES.remove(cookie);
    }
}

/// The note of a valid socket, which is the one of the context.
#[inline(always)]
fn find(ctx: &impl EbpfContext, sk: *mut bpf_sock) -> Option<&'static mut Note> {
    // SAFETY: both places keep the value until a hook that holds the socket's lock, as
    // this one does, takes it away. `sk` is a valid socket; a null value without CREATE
    // only looks.
    unsafe {
        if let Some(note) = maps::NOTES.get_ptr_mut(cookie(ctx)) {
            return note.as_mut();
        }
        bpf_sk_storage_get(on_sockets(), sk.cast(), null_mut(), 0)
            .cast::<Note>()
            .as_mut()
    }
}

/// Puts the note on a valid socket; false: there is no memory for it.
#[inline(always)]
fn put(sk: *mut c_void, note: &mut Note) -> bool {
    // SAFETY: `sk` is a valid socket, the helper copies `note`.
    let stored = unsafe {
        bpf_sk_storage_get(
            on_sockets(),
            sk,
            from_mut(note).cast(),
            BPF_SK_STORAGE_GET_F_CREATE.into(),
        )
    };
    !stored.is_null()
}

/// Takes the note off a valid socket, if one is there.
#[inline(always)]
fn take(sk: *mut c_void) {
    // SAFETY: `sk` is a valid socket; deleting nothing is an error that means nothing.
    unsafe { bpf_sk_storage_delete(on_sockets(), sk) };
}

#[inline(always)]
fn socket(ctx: &SockAddrContext) -> *mut bpf_sock {
    // SAFETY: `sk` is a valid socket in every sock_addr hook.
    unsafe { (*raw(ctx)).__bindgen_anon_1.sk }
}

#[inline(always)]
fn on_sockets() -> *mut c_void {
    from_ref(&maps::SOCKET_NOTES).cast_mut().cast()
}
