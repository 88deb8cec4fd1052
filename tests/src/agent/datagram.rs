//! Datagrams, as an agent sends and takes them.

use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};
use socket2::Socket;

use super::proto::Fault;
use super::sockets::TIMEOUT;
use crate::patience::patiently;

/// The largest datagram that a test sends.
const DATAGRAM_MAX: usize = 2048;

/// One datagram there and one back.
pub(super) fn exchange(addr: SocketAddr, data: &[u8]) -> Result<Vec<u8>, Fault> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(patiently(TIMEOUT)))?;
    socket.connect(addr)?;
    socket.send(data)?;
    let mut answer = vec![0; DATAGRAM_MAX];
    let len = socket.recv(&mut answer)?;
    answer.truncate(len);
    Ok(answer)
}

/// One datagram to each of `addrs`, in one call: how many were sent.
pub(super) fn send_many(
    socket: &Socket,
    addrs: &[SocketAddr],
    data: &[u8],
) -> Result<usize, Fault> {
    let to: Vec<_> = addrs
        .iter()
        .copied()
        .map(SockaddrStorage::from)
        .map(Some)
        .collect();
    let slices = vec![[IoSlice::new(data)]; addrs.len()];
    let mut headers = MultiHeaders::preallocate(addrs.len(), None);
    let control: [nix::sys::socket::ControlMessage<'_>; 0] = [];
    let sent = sendmmsg(
        socket.as_raw_fd(),
        &mut headers,
        &slices,
        &to,
        control,
        MsgFlags::empty(),
    )
    .map_err(std::io::Error::from)?;
    Ok(sent.count())
}

/// One datagram, and from where it came.
pub(super) fn receive(socket: &Socket) -> Result<(Vec<u8>, SocketAddr), Fault> {
    let socket: UdpSocket = socket.try_clone()?.into();
    let mut data = vec![0; DATAGRAM_MAX];
    let (len, from) = socket.recv_from(&mut data)?;
    data.truncate(len);
    Ok((data, from))
}

/// Answers each datagram with who answers, who asked, and what.
pub(super) fn whoami(socket: &UdpSocket, name: &str) {
    let mut packet = [0; DATAGRAM_MAX];
    while let Ok((len, peer)) = socket.recv_from(&mut packet) {
        let said = String::from_utf8_lossy(&packet[..len]);
        let answer = format!("{name} {peer} {said}");
        // A client that went away asks no more.
        let _: std::io::Result<usize> = socket.send_to(answer.as_bytes(), peer);
    }
}
