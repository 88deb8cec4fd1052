//! Which program hangs where.
//!
//! Owns the order in which they are attached. Must never let a hook rewrite
//! anything before those that undo it are there.

use super::link::AttachType;

/// Program, attach type and name of the pin, in the order of attachment:
/// nothing is captured before everything that a captured flow needs is there.
pub(super) const HOOKS: [(&str, AttachType, &str); 12] = [
    ("weir_flow", AttachType::SockOps, "sock_ops"),
    (
        "weir_getpeername4",
        AttachType::Getpeername4,
        "getpeername4",
    ),
    (
        "weir_getpeername6",
        AttachType::Getpeername6,
        "getpeername6",
    ),
    ("weir_release", AttachType::SockRelease, "sock_release"),
    ("weir_recvmsg4", AttachType::Recvmsg4, "recvmsg4"),
    ("weir_recvmsg6", AttachType::Recvmsg6, "recvmsg6"),
    ("weir_bind4", AttachType::Bind4, "bind4"),
    ("weir_bind6", AttachType::Bind6, "bind6"),
    ("weir_connect4", AttachType::Connect4, "connect4"),
    ("weir_connect6", AttachType::Connect6, "connect6"),
    ("weir_sendmsg4", AttachType::Sendmsg4, "sendmsg4"),
    ("weir_sendmsg6", AttachType::Sendmsg6, "sendmsg6"),
];

/// The same for the fence on each enrolled cgroup.
pub(super) const FENCES: [(&str, AttachType, &str); 4] = [
    ("weir_fence4", AttachType::Connect4, "connect4"),
    ("weir_fence6", AttachType::Connect6, "connect6"),
    ("weir_fence_sendmsg4", AttachType::Sendmsg4, "sendmsg4"),
    ("weir_fence_sendmsg6", AttachType::Sendmsg6, "sendmsg6"),
];

/// The kernel programs and where they hang, for `weir status`.
pub fn hooks() -> impl Iterator<Item = (&'static str, &'static str)> {
    HOOKS.into_iter().map(|(program, _, hook)| (program, hook))
}
