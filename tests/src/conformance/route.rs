//! Where a connection leaves from: bound addresses and ports, devices, marks.

use anyhow::Result;
use socket2::Socket;

use super::Case;
use super::call::{outcome, recv, send};
use super::scene::Scene;
use super::way::Way;

pub(super) const CASES: &[Case] = &[
    Case::new("route/bound-port", bound_port),
    Case::new("route/bound-address", bound_address),
    Case::new("route/same-source-port", same_source_port),
    Case::new("route/device-eth0", |scene| device(scene, "eth0")),
    Case::new("route/device-eth1", |scene| device(scene, "eth1")),
    Case::new("route/no-device", |scene| device(scene, "eth9")),
    Case::new("route/time-to-live", time_to_live),
    Case::new("route/mark", mark),
];

/// Two ports that no case lets the kernel choose.
const PORT: u16 = 9_401;
const SHARED_PORT: u16 = 9_402;
/// What the pod's routing rules send nowhere.
const MARK: u32 = 7;

/// An application that chooses its source port keeps it.
fn bound_port(scene: &Scene) -> Result<()> {
    let peer = scene.peer()?;
    let socket = scene.tcp()?;
    let own = scene.own(PORT);
    scene.note("bind", outcome(socket.bind(&own.into())));
    scene.names("after bind", &socket);
    scene.note("connect", outcome(socket.connect(&scene.live().into())));
    let kept = socket.local_addr()?.as_socket() == Some(own);
    scene.note("getsockname is what was bound", kept.to_string());
    send(&socket, b"?")?;
    let (conn, from) = peer.accept(0)?;
    scene.note("peer sees from", scene.part_at_peer(from));
    let same = if from.port() == PORT {
        "the same"
    } else {
        "another"
    };
    scene.note("peer sees the port", same);
    conn.hear(8)?;
    scene.exchange("then", &socket, &conn)
}

/// The address of the other device, and a port of the kernel's choice.
fn bound_address(scene: &Scene) -> Result<()> {
    let peer = scene.peer()?;
    let socket = scene.tcp()?;
    let own = scene.other_own(0);
    scene.note("bind", outcome(socket.bind(&own.into())));
    scene.note("connect", outcome(socket.connect(&scene.live().into())));
    scene.names("then", &socket);
    send(&socket, b"?")?;
    let (conn, from) = peer.accept(0)?;
    scene.note("peer sees from", scene.part_at_peer(from));
    conn.hear(8)?;
    scene.exchange("then", &socket, &conn)
}

/// One source port, two destinations: the kernel tells them apart.
fn same_source_port(scene: &Scene) -> Result<()> {
    let peer = scene.peer()?;
    let own = scene.own(SHARED_PORT);
    let dial = |name: &str, whom: std::net::SocketAddr| -> Result<Socket> {
        let socket = scene.tcp()?;
        socket.set_reuse_address(true)?;
        scene.note(
            &format!("bind for {name}"),
            outcome(socket.bind(&own.into())),
        );
        let connected = socket.connect(&whom.into());
        scene.note(&format!("connect to {name}"), outcome(connected));
        Ok(socket)
    };
    let first = dial("live", scene.live())?;
    let second = dial("second", scene.second())?;
    scene.names("of the first", &first);
    scene.names("of the second", &second);
    scene.note("send on the second", outcome(send(&second, b"?")));
    send(&first, b"?")?;
    let (conn, _) = peer.accept(0)?;
    conn.hear(8)?;
    scene.exchange("first", &first, &conn)
}

/// `SO_BINDTODEVICE`: the connection leaves by this device or not at all.
fn device(scene: &Scene, name: &str) -> Result<()> {
    let peer = scene.peer()?;
    let socket = scene.tcp()?;
    let bound = socket.bind_device(Some(name.as_bytes()));
    scene.note("SO_BINDTODEVICE", outcome(bound));
    scene.note("connect", outcome(socket.connect(&scene.live().into())));
    scene.names("then", &socket);
    send(&socket, b"?")?;
    let (conn, from) = peer.accept(0)?;
    scene.note("peer sees from", scene.part_at_peer(from));
    conn.hear(8)?;
    scene.exchange("then", &socket, &conn)
}

/// The way over `eth1` has a router on it; one hop is too few.
fn time_to_live(scene: &Scene) -> Result<()> {
    let _listening = scene.peer()?;
    let socket = scene.tcp()?;
    socket.bind_device(Some(b"eth1"))?;
    let limited = match scene.way {
        Way::V4 | Way::Mapped => socket.set_ttl_v4(1),
        Way::V6 => socket.set_unicast_hops_v6(1),
    };
    scene.note("setting the hop limit", outcome(limited));
    scene.note("connect", outcome(socket.connect(&scene.live().into())));
    scene.names("then", &socket);
    Ok(())
}

/// The pod's routing rules send this mark nowhere.
fn mark(scene: &Scene) -> Result<()> {
    let peer = scene.peer()?;
    let socket = scene.tcp()?;
    scene.note("SO_MARK", outcome(socket.set_mark(MARK)));
    let connected = socket.connect(&scene.live().into());
    scene.note("connect", outcome(connected));
    scene.names("then", &socket);
    // A mark that means nothing to the routes changes nothing.
    let socket = scene.tcp()?;
    socket.set_mark(MARK + 1)?;
    let connected = socket.connect(&scene.second().into());
    scene.note("connect with another mark", outcome(connected));
    send(&socket, b"?")?;
    let (conn, _) = peer.accept(1)?;
    conn.hear(8)?;
    conn.say(b"!")?;
    recv(&socket, 8)?;
    scene.exchange("then", &socket, &conn)
}
