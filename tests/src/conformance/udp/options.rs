//! What control messages and options do to single datagrams.

use std::net::IpAddr;

use anyhow::{Result, bail};
use nix::libc::{in_addr, in_pktinfo};
use nix::sys::socket::{ControlMessage, setsockopt, sockopt};
use rustix::event::PollFlags;

use super::super::call::{outcome, pattern, poll};
use super::super::way::Way;
use super::ground::{Ground, LIMIT};
use super::message;

/// Where a datagram arrived: servers with many addresses want to know.
pub(super) fn packet_info(ground: &Ground<'_>) -> Result<()> {
    let plain = ground.socket()?;
    let peer = ground.connected()?;
    for (kind, socket) in [("plain", &plain), ("connected", &peer)] {
        match ground.scene.way {
            Way::V4 => setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?,
            Way::V6 | Way::Mapped => setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?,
        }
        let sent = match kind {
            "plain" => socket.send_to(b"?", &ground.live().into()),
            _ => socket.send(b"?"),
        };
        ground.sent(&format!("send, {kind}"), sent);
        ground.far_hears(&format!("peer receives, {kind}"), 0)?;
        ground.far.say(0, b"!")?;
        ground.receives(&format!("receive, {kind}"), socket);
    }
    Ok(())
}

/// The source address for one datagram.
pub(super) fn source_by_packet_info(ground: &Ground<'_>) -> Result<()> {
    let IpAddr::V4(other) = ground.scene.other_own(0).ip() else {
        bail!("the other address is IPv4");
    };
    let info = in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: in_addr {
            s_addr: u32::from(other).to_be(),
        },
        ipi_addr: in_addr { s_addr: 0 },
    };
    let control = [ControlMessage::Ipv4PacketInfo(&info)];
    let plain = ground.socket()?;
    let sent = message::send(&plain, b"from there", &control, Some(ground.live()));
    ground.sent("sendmsg", sent);
    ground.far_hears("peer receives", 0)?;
    ground.far.say(0, b"!")?;
    ground.receives("receive", &plain);
    ground.scene.names("then", &plain);
    let peer = ground.connected()?;
    let sent = message::send(&peer, b"from there", &control, None);
    ground.sent("sendmsg to the peer", sent);
    ground.far_hears("peer receives then", 0)?;
    Ok(())
}

/// `SO_BINDTODEVICE`: a datagram leaves by this device or not at all.
pub(super) fn devices(ground: &Ground<'_>) -> Result<()> {
    for device in ["eth0", "eth1", "eth9"] {
        let socket = ground.socket()?;
        let bound = outcome(socket.bind_device(Some(device.as_bytes())));
        ground.note(&format!("SO_BINDTODEVICE {device}"), bound);
        let sent = socket.send_to(b"?", &ground.live().into());
        ground.sent(&format!("sendto by {device}"), sent);
        ground.far_hears(&format!("peer receives by {device}"), 0)?;
        ground.far.say(0, b"!")?;
        ground.receives(&format!("receive by {device}"), &socket);
        ground.connects(&format!("by {device}"), &socket, ground.live());
        ground.exchange(&format!("connected by {device}"), &socket, 0)?;
    }
    Ok(())
}

/// `UDP_SEGMENT`: many datagrams by one call.
pub(super) fn segments(ground: &Ground<'_>) -> Result<()> {
    let data = pattern(350);
    let peer = ground.connected()?;
    let plain = ground.socket()?;
    let by_message = [ControlMessage::UdpGsoSegments(&100)];
    let sent = message::send(&plain, &data, &by_message, Some(ground.live()));
    ground.sent("sendmsg", sent);
    let sent = message::send(&peer, &data, &by_message, None);
    ground.sent("sendmsg to the peer", sent);
    setsockopt(&peer, sockopt::UdpGsoSegment, &200)?;
    ground.sent("send with the option", peer.send(&data));
    for number in 1..=10 {
        ground.far_hears(&format!("peer receives the {number}th"), 0)?;
    }
    ground.far.say(0, b"!")?;
    ground.receives("receive", &peer);
    Ok(())
}

/// `UDP_GRO`: what was sent by one call is received by one.
pub(super) fn gathered(ground: &Ground<'_>) -> Result<()> {
    let plain = ground.socket()?;
    let peer = ground.connected()?;
    for (kind, socket) in [("plain", &plain), ("connected", &peer)] {
        setsockopt(socket, sockopt::UdpGroSegment, &true)?;
        socket.send_to(b"?", &ground.live().into())?;
        ground.far_hears(&format!("peer receives, {kind}"), 0)?;
        let sent = ground.far.say_segments(1_000, 300)?;
        ground.note(&format!("peer sends, {kind}"), sent);
        poll(socket, PollFlags::IN, LIMIT)?;
        ground.receives(&format!("receive, {kind}"), socket);
        ground.far.say(0, b"alone")?;
        ground.receives(&format!("receive one, {kind}"), socket);
    }
    Ok(())
}
