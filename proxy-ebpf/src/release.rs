//! `cgroup/sock_release`: the application closes its socket. Of a UDP socket that
//! was sent to an endpoint nobody has to be woken any more, and a note goes but where
//! the end of its connection has still to be told.

use aya_ebpf::programs::SockContext;
use proxy_common::Transport;

use crate::context::{ALLOW, cookie};
use crate::maps;
use crate::note;

/// Forgets the socket's peer and note, if it has them; the value is the hook's return value.
#[inline(always)]
pub fn run(ctx: &SockContext) -> i32 {
    note::release(ctx);
    // SAFETY: the kernel hands over a valid socket.
    let protocol = unsafe { (*ctx.sock).protocol };
    if Transport::from_protocol(protocol) == Some(Transport::Udp) {
        let _absent = maps::PEERS.remove(cookie(ctx));
    }
    ALLOW
}
