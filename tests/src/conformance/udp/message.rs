//! Datagrams by the calls that carry names and control messages.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd as _;

use nix::cmsg_space;
use nix::libc::{in6_pktinfo, sock_extended_err, sockaddr_in6};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage,
    recvmmsg, recvmsg, sendmmsg, sendmsg,
};
use socket2::Socket;

/// Longer than any datagram.
const ROOM: usize = 1 << 16;

/// One datagram, as a call handed it over.
pub(super) struct Received {
    pub(super) data: Vec<u8>,
    pub(super) from: Option<SocketAddr>,
    pub(super) flags: MsgFlags,
    pub(super) notes: Vec<Note>,
}

/// What a control message says.
pub(super) enum Note {
    /// `IP_PKTINFO` or `IPV6_PKTINFO`: the address that it was sent to, the
    /// address to answer from where that is told, and the device's index.
    Arrived(IpAddr, Option<IpAddr>, u32),
    /// `UDP_GRO`: the size of the datagrams that were put together.
    Segments(i32),
    /// Of the error queue, with the host that told of it.
    Fault(sock_extended_err, Option<IpAddr>),
}

/// `recvfrom`.
pub(super) fn receive_from(socket: &Socket, max: usize) -> io::Result<(Vec<u8>, SocketAddr)> {
    let udp = std::net::UdpSocket::from(socket.try_clone()?);
    let mut data = vec![0; max];
    let (len, from) = udp.recv_from(&mut data)?;
    data.truncate(len);
    Ok((data, from))
}

/// `recvmsg`, with room for `max` bytes, a name and control messages.
pub(super) fn receive(socket: &Socket, max: usize, flags: MsgFlags) -> io::Result<Received> {
    let mut data = vec![0; max];
    let mut space = cmsg_space!(in6_pktinfo, i32, sock_extended_err, sockaddr_in6);
    let mut room = [IoSliceMut::new(&mut data)];
    let fd = socket.as_raw_fd();
    let message = recvmsg::<SockaddrStorage>(fd, &mut room, Some(&mut space), flags)?;
    let (len, from, flags) = (message.bytes, name(&message), message.flags);
    let notes = message
        .cmsgs()?
        .filter_map(|control| note(&control))
        .collect();
    data.truncate(len);
    Ok(Received {
        data,
        from,
        flags,
        notes,
    })
}

/// `sendmsg` of two pieces, with a name where one is given.
pub(super) fn send(
    socket: &Socket,
    data: &[u8],
    control: &[ControlMessage<'_>],
    to: Option<SocketAddr>,
) -> io::Result<usize> {
    let (first, second) = data.split_at(data.len() / 2);
    let pieces = [IoSlice::new(first), IoSlice::new(second)];
    let to = to.map(SockaddrStorage::from);
    let fd = socket.as_raw_fd();
    Ok(sendmsg(
        fd,
        &pieces,
        control,
        MsgFlags::empty(),
        to.as_ref(),
    )?)
}

/// `sendmmsg`: one datagram to each, or to the socket's peer; how many were taken.
pub(super) fn send_many(
    socket: &Socket,
    data: &[&[u8]],
    to: &[Option<SocketAddr>],
) -> io::Result<usize> {
    let to: Vec<_> = to.iter().map(|to| to.map(SockaddrStorage::from)).collect();
    let pieces: Vec<_> = data.iter().map(|data| [IoSlice::new(data)]).collect();
    let mut headers = MultiHeaders::preallocate(data.len(), None);
    let none: [ControlMessage<'_>; 0] = [];
    let flags = MsgFlags::empty();
    let sent = sendmmsg(socket.as_raw_fd(), &mut headers, &pieces, &to, none, flags)?;
    Ok(sent.count())
}

/// `recvmmsg`: up to `count` that wait already.
pub(super) fn receive_many(
    socket: &Socket,
    count: usize,
) -> io::Result<Vec<(Vec<u8>, Option<SocketAddr>)>> {
    let mut rooms = vec![vec![0; ROOM]; count];
    let mut slices: Vec<_> = rooms
        .iter_mut()
        .map(|room| [IoSliceMut::new(room)])
        .collect();
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(count, None);
    let (fd, flags) = (socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
    let received = recvmmsg(fd, &mut headers, &mut slices, flags, None)?;
    let told: Vec<_> = received
        .map(|message| (message.bytes, name(&message)))
        .collect();
    let told = told.into_iter().zip(rooms);
    Ok(told
        .map(|((len, from), mut room)| {
            room.truncate(len);
            (room, from)
        })
        .collect())
}

fn name(message: &RecvMsg<'_, '_, SockaddrStorage>) -> Option<SocketAddr> {
    let name = message.address.as_ref()?;
    let four = || Some(SocketAddrV4::from(*name.as_sockaddr_in()?).into());
    let six = || Some(SocketAddrV6::from(*name.as_sockaddr_in6()?).into());
    four().or_else(six)
}

fn note(control: &ControlMessageOwned) -> Option<Note> {
    let four = |addr: u32| IpAddr::from(Ipv4Addr::from(u32::from_be(addr)));
    let six = |addr: [u8; 16]| IpAddr::from(Ipv6Addr::from(addr));
    Some(match control {
        ControlMessageOwned::Ipv4PacketInfo(info) => Note::Arrived(
            four(info.ipi_addr.s_addr),
            Some(four(info.ipi_spec_dst.s_addr)),
            info.ipi_ifindex.unsigned_abs(),
        ),
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            Note::Arrived(six(info.ipi6_addr.s6_addr), None, info.ipi6_ifindex)
        }
        ControlMessageOwned::UdpGroSegments(size) => Note::Segments(*size),
        ControlMessageOwned::Ipv4RecvErr(fault, host) => {
            Note::Fault(*fault, host.map(|host| four(host.sin_addr.s_addr)))
        }
        ControlMessageOwned::Ipv6RecvErr(fault, host) => {
            Note::Fault(*fault, host.map(|host| six(host.sin6_addr.s6_addr)))
        }
        _ => return None,
    })
}
