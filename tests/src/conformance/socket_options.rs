//! Socket options that no crate has a name for.

use std::os::fd::AsFd;

use nix::sys::socket::{GetSockOpt, SetSockOpt, sockopt};
use nix::{getsockopt_impl, libc, setsockopt_impl, sockopt_impl};

// From the kernel's <linux/tcp.h>; libc does not have them all.
const TCP_IS_MPTCP: i32 = 43;
const TCPI_OPT_SYN_DATA: u8 = 32;

sockopt_impl!(
    /// All that TCP tells of a connection.
    TcpInfo, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, libc::tcp_info);
sockopt_impl!(
    /// Whether the connection is one of Multipath TCP in fact.
    IsMultipath, GetOnly, libc::IPPROTO_TCP, TCP_IS_MPTCP, u32);
sockopt_impl!(
    /// Bytes that make a socket readable.
    LowWater, Both, libc::SOL_SOCKET, libc::SO_RCVLOWAT, u32);

/// `TCP_INFO`.
pub(super) fn tcp_info(socket: &impl AsFd) -> nix::Result<libc::tcp_info> {
    TcpInfo.get(socket)
}

/// The name of the connection's state in `TCP_INFO`.
pub(super) fn state(socket: &impl AsFd) -> String {
    // From the kernel's <net/tcp_states.h>.
    const STATES: [&str; 12] = [
        "none",
        "ESTABLISHED",
        "SYN_SENT",
        "SYN_RECV",
        "FIN_WAIT1",
        "FIN_WAIT2",
        "TIME_WAIT",
        "CLOSE",
        "CLOSE_WAIT",
        "LAST_ACK",
        "LISTEN",
        "CLOSING",
    ];
    match tcp_info(socket) {
        Ok(info) => STATES
            .get(usize::from(info.tcpi_state))
            .map_or_else(|| info.tcpi_state.to_string(), ToString::to_string),
        Err(errno) => format!("{errno:?}"),
    }
}

/// Whether the peer took the data that came with the SYN.
pub(super) fn is_syn_data_acked(socket: &impl AsFd) -> nix::Result<bool> {
    tcp_info(socket).map(|info| info.tcpi_options & TCPI_OPT_SYN_DATA != 0)
}

/// `TCP_IS_MPTCP`.
pub(super) fn is_multipath(socket: &impl AsFd) -> nix::Result<u32> {
    IsMultipath.get(socket)
}

/// `SO_RCVLOWAT`.
pub(super) fn set_low_water(socket: &impl AsFd, bytes: u32) -> nix::Result<()> {
    LowWater.set(socket, &bytes)
}

/// `TCP_FASTOPEN_CONNECT`.
pub(super) fn set_fast_open_connect(socket: &impl AsFd) -> nix::Result<()> {
    sockopt::TcpFastOpenConnect.set(socket, &true)
}

/// `TCP_MAXSEG`.
pub(super) fn segment(socket: &impl AsFd) -> nix::Result<u32> {
    sockopt::TcpMaxSeg.get(socket)
}
