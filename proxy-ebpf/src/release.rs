//! `cgroup/sock_release`: a UDP socket that was sent to an endpoint is closed,
//! and nobody has to wake it any more. Sockets of other protocols pay nothing.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::programs::SockContext;
use proxy_common::Transport;

use crate::context::ALLOW;
use crate::maps;

/// Forgets the socket's peer, if it has one; the value is the hook's return value.
#[inline(always)]
pub fn run(ctx: &SockContext) -> i32 {
    // SAFETY: the kernel hands over a valid socket.
    let protocol = unsafe { (*ctx.sock).protocol };
    if Transport::from_protocol(protocol) == Some(Transport::Udp) {
        // SAFETY: any context is a valid argument of this helper.
        let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
        let _absent = maps::PEERS.remove(cookie);
    }
    ALLOW
}
