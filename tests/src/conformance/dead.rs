//! Connecting to what does not answer: each error is the kernel's own.

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::event::PollFlags;
use socket2::{Socket, TcpKeepalive};

use super::Case;
use super::call::{fault, heard, outcome, poll, poll_reset, recv, send};
use super::scene::Scene;

pub(super) const CASES: &[Case] = &[
    Case::new("dead/closed", |scene| dial(scene, scene.closed())),
    Case::new("dead/closed-nonblocking", closed_nonblocking),
    Case::new("dead/unreachable", |scene| dial(scene, scene.unreachable())),
    Case::new("dead/time-out", time_out),
    Case::new("dead/connecting", connecting),
    Case::new("dead/vanished", vanished),
    Case::new("dead/probed", probed),
];

/// A blocking connect that fails, and what is left of the socket.
fn dial(scene: &Scene, whom: std::net::SocketAddr) -> Result<()> {
    let socket = scene.tcp()?;
    scene.note("connect", outcome(socket.connect(&whom.into())));
    scene.note("receive", heard(recv(&socket, 8)));
    scene.note("send", outcome(send(&socket, b"?")));
    scene.names("then", &socket);
    // After `AF_UNSPEC` the socket is as good as new.
    rustix::net::connect_unspec(&socket)?;
    let peer = scene.peer()?;
    let reconnect = socket.connect(&scene.live().into());
    scene.note("connect to live with the same socket", outcome(reconnect));
    send(&socket, b"?")?;
    let (conn, _) = peer.accept(0)?;
    conn.hear(8)?;
    scene.exchange("then", &socket, &conn)
}

/// The error of a nonblocking connect comes by `poll` and `SO_ERROR`.
fn closed_nonblocking(scene: &Scene) -> Result<()> {
    let socket = scene.tcp()?;
    socket.set_nonblocking(true)?;
    let connected = socket.connect(&scene.closed().into());
    scene.note("connect", outcome(connected));
    // Not for OUT: that a proxy's connect succeeds first is seen in `dead/closed`.
    let limit = Duration::from_secs(5);
    let ready = poll_reset(&socket, PollFlags::IN, limit)?;
    scene.note("poll for IN", ready);
    scene.note("SO_ERROR", pending(&socket));
    scene.note("SO_ERROR, once more", pending(&socket));
    Ok(())
}

/// `TCP_USER_TIMEOUT` bounds a connect that nobody answers.
fn time_out(scene: &Scene) -> Result<()> {
    let socket = scene.tcp()?;
    socket.set_tcp_user_timeout(Some(Duration::from_millis(300)))?;
    let connected = socket.connect(&scene.blackhole().into());
    scene.note("connect", outcome(connected));
    scene.note("receive", heard(recv(&socket, 8)));
    Ok(())
}

/// What a socket says while it connects.
fn connecting(scene: &Scene) -> Result<()> {
    let socket = scene.tcp()?;
    let to = scene.blackhole().into();
    socket.set_nonblocking(true)?;
    scene.note("connect", outcome(socket.connect(&to)));
    scene.note(
        "poll for OUT",
        poll(&socket, PollFlags::OUT, Duration::from_millis(100))?,
    );
    scene.names("meanwhile", &socket);
    scene.note("receive", heard(recv(&socket, 8)));
    scene.note("connect, meanwhile", outcome(socket.connect(&to)));
    let parted = rustix::net::connect_unspec(&socket);
    scene.note("connect to AF_UNSPEC", outcome(parted));
    Ok(())
}

/// `TCP_USER_TIMEOUT` tells of a peer that is gone without a word.
fn vanished(scene: &Scene) -> Result<()> {
    let (socket, _conn) = scene.connected()?;
    socket.set_tcp_user_timeout(Some(Duration::from_millis(300)))?;
    let _lost = Lost::new(scene.peer_at().ip())?;
    scene.note("send", outcome(send(&socket, b"?")));
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    scene.note("receive", heard(recv(&socket, 8)));
    Ok(())
}

/// Keep-alive probes find out the same where nobody sends.
fn probed(scene: &Scene) -> Result<()> {
    let (socket, _conn) = scene.connected()?;
    let second = Duration::from_secs(1);
    let keepalive = TcpKeepalive::new().with_time(second).with_interval(second);
    socket.set_tcp_keepalive(&keepalive.with_retries(1))?;
    let _lost = Lost::new(scene.peer_at().ip())?;
    socket.set_read_timeout(Some(Duration::from_secs(4)))?;
    scene.note("receive", heard(recv(&socket, 8)));
    Ok(())
}

/// A host to which the pod loses every packet, until this is dropped. Of such a
/// route IPv6 tells by an error of its own, which the time-out then ends with.
struct Lost(IpAddr);

impl Lost {
    fn new(host: IpAddr) -> Result<Self> {
        route("add", host)?;
        Ok(Self(host))
    }
}

impl Drop for Lost {
    fn drop(&mut self) {
        if let Err(error) = route("del", self.0) {
            eprintln!("{error:#}");
        }
    }
}

fn route(verb: &str, host: IpAddr) -> Result<()> {
    let host = host.to_string();
    let status = Command::new("ip")
        .args(["route", verb, "blackhole", &host])
        .status()
        .context("`ip` does not start")?;
    ensure!(status.success(), "ip route {verb} blackhole {host} failed");
    Ok(())
}

fn pending(socket: &Socket) -> String {
    match socket.take_error() {
        Ok(None) => "OK".to_owned(),
        Ok(Some(error)) | Err(error) => fault(&error),
    }
}
