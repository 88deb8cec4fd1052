//! Calls on sockets that have no safe form, for the self-test of acceleration.
//!
//! Each is one system call with its arguments checked by type. Must never be on
//! the path of anybody's connection.

use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd as _, OwnedFd};

use nix::libc::{self, c_int, c_void};

/// Brings the loopback interface of this thread's network namespace up.
pub fn loopback_up() -> io::Result<()> {
    let socket = datagrams(libc::AF_INET)?;
    // SAFETY: all-zero is a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo\0") {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).map_err(io::Error::other)?;
    // SAFETY: the request outlives the call and names an interface and flags.
    done(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })
}

/// Gives that interface one more address of IPv6.
pub fn loopback_address(address: Ipv6Addr) -> io::Result<()> {
    let socket = datagrams(libc::AF_INET6)?;
    let request = libc::in6_ifreq {
        ifr6_addr: libc::in6_addr {
            s6_addr: address.octets(),
        },
        ifr6_prefixlen: 128,
        // The first interface of every namespace.
        ifr6_ifindex: 1,
    };
    // SAFETY: the request outlives the call and is the one of this family.
    done(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFADDR, &raw const request) })
}

/// A socket to ask an interface through.
fn datagrams(family: c_int) -> io::Result<OwnedFd> {
    // SAFETY: plain arguments; the descriptor that comes back is ours alone.
    unsafe {
        let fd = libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        done(fd)?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Bytes that could be read now: `FIONREAD`.
pub fn unread(socket: &impl AsFd) -> io::Result<usize> {
    count(socket, libc::FIONREAD)
}

/// Bytes that the peer's TCP has not acknowledged: `SIOCOUTQ`.
pub fn unacknowledged(socket: &impl AsFd) -> io::Result<usize> {
    count(socket, libc::TIOCOUTQ)
}

fn count(socket: &impl AsFd, request: libc::Ioctl) -> io::Result<usize> {
    let mut value: c_int = 0;
    // SAFETY: both requests write one int, which outlives the call.
    done(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), request, &raw mut value) })?;
    Ok(usize::try_from(value).unwrap_or(0))
}

/// Sets an option whose value holds no address.
pub fn set_option(socket: &impl AsFd, level: c_int, name: c_int, value: &[u8]) -> io::Result<()> {
    let len = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the value is as long as is said and outlives the call.
    done(unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            len,
        )
    })
}

/// The same for an option that is a number.
pub fn set_number(socket: &impl AsFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    set_option(socket, level, name, &value.to_ne_bytes())
}

/// Bytes that the kernel charges to the socket's receiving side (`SO_MEMINFO`, Linux 4.12).
pub fn receive_memory(socket: &impl AsFd) -> io::Result<u32> {
    let mut words = [0_u32; 16];
    let mut len = libc::socklen_t::try_from(size_of_val(&words)).map_err(io::Error::other)?;
    // SAFETY: the buffer is as long as is said, both outlive the call.
    done(unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            words.as_mut_ptr().cast(),
            &raw mut len,
        )
    })?;
    Ok(words[0])
}

/// A control message: its level, its kind, and the first number in it.
pub type Control = (c_int, c_int, c_int);

/// One `recvmsg` into `buffer`: how much was read, and the control message, if
/// there was one.
pub fn receive_with_control(
    socket: &impl AsFd,
    buffer: &mut [u8],
    flags: c_int,
) -> io::Result<(usize, Option<Control>)> {
    let mut control = [0_u64; 16];
    let mut piece = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast::<c_void>(),
        iov_len: buffer.len(),
    };
    // SAFETY: all-zero is a valid message without name, data or control.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: every pointer in the message is to a live buffer of the stated size.
    let read = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, flags) };
    if read < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel filled in the message; its first header, if there is
    // one, lies in `control` with at least the number that every kind used here has.
    let told = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (!header.is_null()).then(|| {
            let value = libc::CMSG_DATA(header).cast::<c_int>().read_unaligned();
            ((*header).cmsg_level, (*header).cmsg_type, value)
        })
    };
    Ok((read.cast_unsigned(), told))
}

/// Has the kernel end this process with its parent.
pub fn end_with_parent() -> io::Result<()> {
    // SAFETY: plain arguments.
    done(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })
}

fn done(result: c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
