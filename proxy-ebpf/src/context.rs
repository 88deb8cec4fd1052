//! What the hooks read from and write to a `bpf_sock_addr`, and who is exempt.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::bpf_get_current_cgroup_id;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval};
use aya_ebpf::programs::SockAddrContext;
use proxy_common::{Addr, Counter, Destination, NetnsCookie, Port, Transport, Workload};

use crate::maps::{self, count};

/// Let the call go on.
pub const ALLOW: i32 = 1;
/// Fail the call: EPERM, unless another error was set before.
pub const REFUSE: i32 = 0;

/// Of a UDP socket: it has a peer. The kernel's number is TCP's for established.
const CONNECTED: u32 = 1;
const ECONNREFUSED: i32 = 111;

/// Which hook of a pair runs: it decides which address fields are valid.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `user_ip4`.
    V4,
    /// `user_ip6`.
    V6,
}

/// The raw context.
#[inline(always)]
pub fn raw(ctx: &SockAddrContext) -> *mut bpf_sock_addr {
    ctx.sock_addr
}

/// What the socket speaks (an MPTCP subflow TCP); `None`: no business of weir's.
#[inline(always)]
pub fn transport(ctx: &SockAddrContext) -> Option<Transport> {
    // SAFETY: the kernel hands over a valid context.
    Transport::from_protocol(unsafe { (*raw(ctx)).protocol })
}

/// Whether a UDP socket has a peer.
#[inline(always)]
pub fn is_connected(ctx: &SockAddrContext) -> bool {
    // SAFETY: `sk` is a valid socket in every sock_addr hook.
    unsafe { (*(*raw(ctx)).__bindgen_anon_1.sk).state == CONNECTED }
}

/// The socket's own port; 0 as long as it has none.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a port")]
pub fn local_port(ctx: &SockAddrContext) -> Port {
    // SAFETY: as above.
    Port(unsafe { (*(*raw(ctx)).__bindgen_anon_1.sk).src_port } as u16)
}

/// The cookie of the context's socket: no other has it as long as the machine is up.
#[inline(always)]
pub fn cookie(ctx: &impl EbpfContext) -> u64 {
    // SAFETY: any context is a valid argument of this helper.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

/// The cookie of the socket's network namespace.
#[inline(always)]
pub fn netns(ctx: &SockAddrContext) -> NetnsCookie {
    // SAFETY: any context is a valid argument of this helper.
    NetnsCookie(unsafe { bpf_get_netns_cookie(ctx.as_ptr()) })
}

/// The enrolled workload that owns the namespace. Nobody else pays for more than a
/// look at one bit.
#[inline(always)]
pub fn workload(netns: NetnsCookie) -> Option<&'static Workload> {
    if maps::ENROLLED.get(0)?.may_hold(netns) {
        known(netns)
    } else {
        None
    }
}

/// The same, where most are enrolled.
#[inline(always)]
pub fn known(netns: NetnsCookie) -> Option<&'static Workload> {
    // SAFETY: elements are freed after a grace period, later than this program ends.
    unsafe { maps::WORKLOADS.get(netns) }
}

/// Whether the calling task is weir itself: exempt by its own cgroup, which no
/// workload can enter.
#[inline(always)]
pub fn is_proxy() -> bool {
    maps::NODE.get(0).is_some_and(|node| {
        // SAFETY: the helper takes no argument.
        node.proxy_cgroup == unsafe { bpf_get_current_cgroup_id() }
    })
}

/// The address and port in the context.
#[inline(always)]
pub fn destination(ctx: &SockAddrContext, family: Family) -> Destination {
    let raw = raw(ctx);
    // SAFETY: a valid context; each field is read in the width that the
    // verifier allows, only those of the hook's own family.
    unsafe {
        let addr = match family {
            Family::V4 => Addr::from_v4_word((*raw).user_ip4),
            Family::V6 => Addr::from_words([
                (&raw const (*raw).user_ip6[0]).read_volatile(),
                (&raw const (*raw).user_ip6[1]).read_volatile(),
                (&raw const (*raw).user_ip6[2]).read_volatile(),
                (&raw const (*raw).user_ip6[3]).read_volatile(),
            ]),
        };
        Destination {
            addr,
            port: Port::from_user_port((*raw).user_port),
        }
    }
}

/// The port in the context: all that `bind` is about.
#[inline(always)]
pub fn port(ctx: &SockAddrContext) -> Port {
    // SAFETY: a valid context.
    Port::from_user_port(unsafe { (*raw(ctx)).user_port })
}

/// Puts another address and port into the context.
#[inline(always)]
pub fn rewrite(ctx: &SockAddrContext, family: Family, to: Destination) {
    let raw = raw(ctx);
    let words = to.addr.words();
    // SAFETY: as in `destination`. Volatile, so that the compiler does not
    // merge the words into one store that the verifier refuses.
    unsafe {
        match family {
            Family::V4 => (&raw mut (*raw).user_ip4).write_volatile(words[3]),
            Family::V6 => {
                (&raw mut (*raw).user_ip6[0]).write_volatile(words[0]);
                (&raw mut (*raw).user_ip6[1]).write_volatile(words[1]);
                (&raw mut (*raw).user_ip6[2]).write_volatile(words[2]);
                (&raw mut (*raw).user_ip6[3]).write_volatile(words[3]);
            }
        }
        (&raw mut (*raw).user_port).write_volatile(to.port.to_user_port());
    }
}

/// ECONNREFUSED: the call fails, but no policy said so.
#[inline(always)]
pub fn refuse(counter: Counter) -> i32 {
    count(counter);
    // SAFETY: sets the error of this very call.
    unsafe { bpf_set_retval(-ECONNREFUSED) };
    REFUSE
}
