//! `cgroup/sock_release`: the application closes its socket. Of a UDP socket that
//! was sent to an endpoint nobody has to be woken any more, and a note of a dial that
//! got nowhere is nobody's.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::programs::SockContext;
use proxy_common::Transport;

use crate::context::ALLOW;
use crate::maps;
use crate::note;

/// Forgets the socket's peer and note, if it has them; the value is the hook's return value.
#[inline(always)]
pub fn run(ctx: &SockContext) -> i32 {
    note::release(ctx);
    // SAFETY: the kernel hands over a valid socket.
    let protocol = unsafe { (*ctx.sock).protocol };
    if Transport::from_protocol(protocol) == Some(Transport::Udp) {
        // SAFETY: any context is a valid argument of this helper.
        let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
        let _absent = maps::PEERS.remove(cookie);
    }
    ALLOW
}
