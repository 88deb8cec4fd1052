//! Multipath TCP: which socket, if any, a TCP socket is a subflow of.
//!
//! The one place that asks for the kernel's type of such a socket. Must never ask
//! where the kernel has none.

use aya_ebpf::Global;
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::bpf_skc_to_mptcp_sock;
use core::ffi::c_void;
use core::ptr::null_mut;

/// Whether the kernel speaks Multipath TCP. One that does not lacks the type of
/// such a socket too, and would refuse a program that can ask for one. The daemon
/// puts it in before it loads this.
// SAFETY: no other symbol of the object has this name.
#[unsafe(no_mangle)]
static MULTIPATH: Global<u8> = Global::new(0);

/// The Multipath TCP socket that `sk`, a valid socket, is a subflow of; else null.
#[inline(always)]
pub fn above(sk: *mut bpf_sock) -> *mut c_void {
    if MULTIPATH.load() == 0 {
        return null_mut();
    }
    // SAFETY: the helper checks the kind of the socket, which is a valid one.
    unsafe { bpf_skc_to_mptcp_sock(sk.cast()).cast() }
}
