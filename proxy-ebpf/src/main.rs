//! weir's kernel half: entry points only. Each hook hands its context to the
//! module of its family, which returns the verdict exactly once.
//!
//! Must never decide anything here, and nothing in this crate may allocate,
//! loop without a bound, or let an error pass as "allow" for an enrolled
//! workload.
#![no_std]
#![no_main]
// The BPF target has no compare-and-swap, so core offers it no atomic
// arithmetic; the instruction itself (`lock *(u64 *) +=`) exists.
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "atomic_xadd is all that is used")]
#![expect(
    clippy::needless_pass_by_value,
    reason = "aya's macros hand every entry point its context by value"
)]

mod accelerate;
mod balance;
mod bind;
mod connect;
mod context;
mod datagram;
mod ending;
mod event;
mod fence;
mod flow;
mod maps;
mod multipath;
mod note;
mod outside;
mod peername;
mod redirect;
mod release;
mod tables;

use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr, sk_msg, sock_ops};
use aya_ebpf::programs::{SkMsgContext, SockAddrContext, SockContext, SockOpsContext};

use crate::context::Family;

/// Decides on `connect()` of an IPv4 socket.
#[cgroup_sock_addr(connect4)]
fn weir_connect4(ctx: SockAddrContext) -> i32 {
    connect::run(&ctx, Family::V4)
}

/// Decides on `connect()` of an IPv6 socket, v4-mapped destinations included.
#[cgroup_sock_addr(connect6)]
fn weir_connect6(ctx: SockAddrContext) -> i32 {
    connect::run(&ctx, Family::V6)
}

/// Keeps the listeners' ports from everybody else in the pod.
#[cgroup_sock_addr(bind4)]
fn weir_bind4(ctx: SockAddrContext) -> i32 {
    bind::run(&ctx)
}

/// The same for IPv6 sockets, which can hold an IPv4 port too.
#[cgroup_sock_addr(bind6)]
fn weir_bind6(ctx: SockAddrContext) -> i32 {
    bind::run(&ctx)
}

/// Shows the application whom it dialled.
#[cgroup_sock_addr(getpeername4)]
fn weir_getpeername4(ctx: SockAddrContext) -> i32 {
    peername::run(&ctx, Family::V4)
}

/// The same for IPv6 sockets.
#[cgroup_sock_addr(getpeername6)]
fn weir_getpeername6(ctx: SockAddrContext) -> i32 {
    peername::run(&ctx, Family::V6)
}

/// Decides on a datagram that names an IPv4 destination, a v4-mapped one included.
#[cgroup_sock_addr(sendmsg4)]
fn weir_sendmsg4(ctx: SockAddrContext) -> i32 {
    datagram::send(&ctx, Family::V4)
}

/// The same for IPv6 destinations.
#[cgroup_sock_addr(sendmsg6)]
fn weir_sendmsg6(ctx: SockAddrContext) -> i32 {
    datagram::send(&ctx, Family::V6)
}

/// Shows the application from where a datagram seems to come.
#[cgroup_sock_addr(recvmsg4)]
fn weir_recvmsg4(ctx: SockAddrContext) -> i32 {
    datagram::receive(&ctx, Family::V4)
}

/// The same for IPv6 sockets, v4-mapped sources included.
#[cgroup_sock_addr(recvmsg6)]
fn weir_recvmsg6(ctx: SockAddrContext) -> i32 {
    datagram::receive(&ctx, Family::V6)
}

/// Forgets a socket that is closed.
#[cgroup_sock(sock_release)]
fn weir_release(ctx: SockContext) -> i32 {
    release::run(&ctx)
}

/// Attached to each enrolled cgroup: denies connects from unknown namespaces.
#[cgroup_sock_addr(connect4)]
fn weir_fence4(ctx: SockAddrContext) -> i32 {
    fence::run(&ctx, Family::V4)
}

/// The same for IPv6 sockets.
#[cgroup_sock_addr(connect6)]
fn weir_fence6(ctx: SockAddrContext) -> i32 {
    fence::run(&ctx, Family::V6)
}

/// The same for datagrams.
#[cgroup_sock_addr(sendmsg4)]
fn weir_fence_sendmsg4(ctx: SockAddrContext) -> i32 {
    fence::run(&ctx, Family::V4)
}

/// The same for datagrams of IPv6.
#[cgroup_sock_addr(sendmsg6)]
fn weir_fence_sendmsg6(ctx: SockAddrContext) -> i32 {
    fence::run(&ctx, Family::V6)
}

/// Hands the flow from the dialling socket to the accepted one, and tells how
/// balanced connections ended.
#[sock_ops]
fn weir_flow(ctx: SockOpsContext) -> u32 {
    flow::run(&ctx)
}

/// Finds the two sockets of a connection on this node. Loaded and attached only
/// while somebody accelerates.
#[sock_ops]
fn weir_accelerate(ctx: SockOpsContext) -> u32 {
    accelerate::run(&ctx)
}

/// Hands bytes to the socket opposite. Loaded and attached with the former.
#[sk_msg]
fn weir_redirect(ctx: SkMsgContext) -> u32 {
    redirect::run(&ctx)
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: the verifier refuses programs that could get here.
    loop {}
}
