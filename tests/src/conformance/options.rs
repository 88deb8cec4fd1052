//! Socket options: what is set stays set, and what is read is what was dialled.

use std::io;
use std::time::Duration;

use anyhow::Result;
use rustix::net::sockopt;
use socket2::{Socket, TcpKeepalive};

use super::Case;
use super::call::{number, outcome, recv, send};
use super::scene::Scene;
use super::socket_options::{segment, state, tcp_info};
use super::way::Way;

pub(super) const CASES: &[Case] = &[
    Case::new("options/defaults", defaults),
    Case::new("options/kept", kept),
    Case::new("options/tcp-info", information),
    Case::new("options/path", path),
];

/// What the pods' devices carry at once.
const FRAME: u32 = 1500;
/// No kernel begins with a larger send buffer for such frames.
const BUFFER: u32 = 1 << 20;

/// All that can be read without setting anything.
fn read(scene: &Scene, when: &str, socket: &Socket) {
    let note = |what: &str, seen: String| scene.note(&format!("{what} {when}"), seen);
    note("SO_TYPE", named(sockopt::socket_type(socket)));
    note("SO_DOMAIN", named(sockopt::socket_domain(socket)));
    note("SO_PROTOCOL", named(sockopt::socket_protocol(socket)));
    note("SO_ACCEPTCONN", number(sockopt::socket_acceptconn(socket)));
    note("SO_KEEPALIVE", number(sockopt::socket_keepalive(socket)));
    note("SO_REUSEADDR", number(sockopt::socket_reuseaddr(socket)));
    note("SO_REUSEPORT", number(sockopt::socket_reuseport(socket)));
    note("SO_OOBINLINE", number(sockopt::socket_oobinline(socket)));
    note("SO_LINGER", named(sockopt::socket_linger(socket)));
    note("SO_MARK", number(socket.mark()));
    note(
        "SO_RCVBUF",
        number(sockopt::socket_recv_buffer_size(socket)),
    );
    note("TCP_NODELAY", number(sockopt::tcp_nodelay(socket)));
    note("TCP_CORK", number(sockopt::tcp_cork(socket)));
    note("TCP_QUICKACK", number(sockopt::tcp_quickack(socket)));
    note("TCP_CONGESTION", number(sockopt::tcp_congestion(socket)));
    note(
        "TCP_USER_TIMEOUT",
        number(sockopt::tcp_user_timeout(socket)),
    );
    note("TCP_KEEPIDLE", named(sockopt::tcp_keepidle(socket)));
    note("TCP_KEEPINTVL", named(sockopt::tcp_keepintvl(socket)));
    note("TCP_KEEPCNT", number(sockopt::tcp_keepcnt(socket)));
    note("IP_TTL", number(sockopt::ip_ttl(socket)));
    note("IP_TOS", number(sockopt::ip_tos(socket)));
    note("IP_MTU_DISCOVER", named(sockopt::ip_mtu_discover(socket)));
    if scene.way.is_six() {
        note("IPV6_V6ONLY", number(sockopt::ipv6_v6only(socket)));
        let hops = sockopt::ipv6_unicast_hops(socket);
        note("IPV6_UNICAST_HOPS", number(hops));
        note("IPV6_TCLASS", number(sockopt::ipv6_tclass(socket)));
        note(
            "IPV6_MTU_DISCOVER",
            named(sockopt::ipv6_mtu_discover(socket)),
        );
    }
}

fn defaults(scene: &Scene) -> Result<()> {
    read(scene, "of a fresh socket", &scene.tcp()?);
    let (socket, _conn) = scene.connected()?;
    read(scene, "when connected", &socket);
    Ok(())
}

/// Everything that an application may set, before and after the connect.
fn kept(scene: &Scene) -> Result<()> {
    let peer = scene.peer()?;
    let socket = scene.tcp()?;
    set(scene, "before connect", &socket, 41)?;
    socket.connect(&scene.live().into())?;
    send(&socket, b"?")?;
    let (conn, _) = peer.accept(0)?;
    conn.hear(8)?;
    conn.say(b"!")?;
    recv(&socket, 8)?;
    read(scene, "as set before connect", &socket);
    set(scene, "when connected", &socket, 43)?;
    read(scene, "as set when connected", &socket);
    scene.exchange("then", &socket, &conn)
}

fn set(scene: &Scene, when: &str, socket: &Socket, value: u32) -> Result<()> {
    let note = |what: &str, done: io::Result<()>| {
        scene.note(&format!("setting {what} {when}"), outcome(done));
    };
    let time = Duration::from_secs(value.into());
    let keepalive = TcpKeepalive::new().with_time(time).with_interval(time);
    let keepalive = keepalive.with_retries(value);
    note("keep-alive", socket.set_tcp_keepalive(&keepalive));
    note("SO_KEEPALIVE", socket.set_keepalive(true));
    note("SO_LINGER", socket.set_linger(Some(time)));
    note("SO_MARK", socket.set_mark(value));
    note(
        "SO_RCVBUF",
        socket.set_recv_buffer_size(100_000 + usize::try_from(value)?),
    );
    note("SO_REUSEADDR", socket.set_reuse_address(true));
    note("TCP_NODELAY", socket.set_tcp_nodelay(true));
    note("TCP_USER_TIMEOUT", socket.set_tcp_user_timeout(Some(time)));
    note("TCP_CONGESTION", socket.set_tcp_congestion(b"reno"));
    note("IP_TTL", socket.set_ttl_v4(value));
    note("IP_TOS", socket.set_tos_v4(value & !3));
    if scene.way.is_six() {
        note("IPV6_UNICAST_HOPS", socket.set_unicast_hops_v6(value));
        note("IPV6_TCLASS", socket.set_tclass_v6(value & !3));
    }
    Ok(())
}

/// The fields of `TCP_INFO` that say something of the connection, not of the moment.
fn information(scene: &Scene) -> Result<()> {
    let fresh = scene.tcp()?;
    scene.note("state of a fresh socket", state(&fresh));
    let (socket, conn) = scene.connected()?;
    scene.exchange("first", &socket, &conn)?;
    let info = tcp_info(&socket)?;
    let note = |what: &str, value: u32| scene.note(what, value.to_string());
    scene.note("state", state(&socket));
    note("tcpi_ca_state", info.tcpi_ca_state.into());
    note("tcpi_retransmits", info.tcpi_retransmits.into());
    note("tcpi_probes", info.tcpi_probes.into());
    note("tcpi_backoff", info.tcpi_backoff.into());
    note("tcpi_options", info.tcpi_options.into());
    note("tcpi_snd_rcv_wscale", info.tcpi_snd_rcv_wscale.into());
    note("tcpi_lost", info.tcpi_lost);
    note("tcpi_total_retrans", info.tcpi_total_retrans);
    note("tcpi_reordering", info.tcpi_reordering);
    note("tcpi_snd_cwnd", info.tcpi_snd_cwnd);
    scene.note("tcpi_snd_mss", size(Ok(info.tcpi_snd_mss), FRAME));
    scene.note("tcpi_advmss", size(Ok(info.tcpi_advmss), FRAME));
    scene.note("tcpi_pmtu", size(Ok(info.tcpi_pmtu), FRAME));
    scene.note(
        "has measured the round trip",
        (info.tcpi_rtt > 0).to_string(),
    );
    Ok(())
}

/// What the size of a packet on the way is derived to.
fn path(scene: &Scene) -> Result<()> {
    let fresh = scene.tcp()?;
    scene.note("TCP_MAXSEG of a fresh socket", number(segment(&fresh)));
    scene.note("MTU of a fresh socket", number(mtu(scene, &fresh)));
    let (socket, _conn) = scene.connected()?;
    let note = |what: &str, seen: io::Result<u32>, network: u32| {
        scene.note(&format!("{what} when connected"), size(seen, network));
    };
    note(
        "TCP_MAXSEG",
        segment(&socket).map_err(io::Error::from),
        FRAME,
    );
    note("MTU", Ok(mtu(scene, &socket)?), FRAME);
    let buffer = u32::try_from(sockopt::socket_send_buffer_size(&socket)?)?;
    note("SO_SNDBUF", Ok(buffer), BUFFER);
    Ok(())
}

/// `IP_MTU`, or `IPV6_MTU`.
fn mtu(scene: &Scene, socket: &Socket) -> rustix::io::Result<u32> {
    match scene.way {
        Way::V4 | Way::Mapped => sockopt::ip_mtu(socket),
        Way::V6 => sockopt::ipv6_mtu(socket),
    }
}

/// A size that depends on the kernel, as against the network's.
fn size(value: io::Result<u32>, network: u32) -> String {
    match value {
        Ok(value) if value <= network => "the network's".to_owned(),
        Ok(_) => "larger".to_owned(),
        Err(error) => super::call::fault(&error),
    }
}

fn named<T: std::fmt::Debug>(value: rustix::io::Result<T>) -> String {
    match value {
        Ok(value) => format!("{value:?}"),
        Err(errno) => super::call::fault(&errno.into()),
    }
}
