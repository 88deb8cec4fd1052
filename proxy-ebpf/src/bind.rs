//! `cgroup/bind4` and `bind6`: nobody in a pod may take a listener's port.
//! `SO_REUSEPORT` would let any socket of the same UID join it.

use aya_ebpf::programs::SockAddrContext;
use proxy_common::Transport;

use crate::context::{ALLOW, REFUSE, is_proxy, netns, port, transport, workload};

/// Refuses a listener's port to all but weir; the value is the hook's return value.
#[inline(always)]
pub fn run(ctx: &SockAddrContext) -> i32 {
    match workload(netns(ctx)) {
        Some(workload)
            if transport(ctx) == Some(Transport::Tcp)
                && workload.is_listener_port(port(ctx))
                && !is_proxy() =>
        {
            REFUSE
        }
        _ => ALLOW,
    }
}
