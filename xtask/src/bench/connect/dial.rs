//! One end of a timed connect: dials, looks at the clock, and hangs up.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

/// Connects that are timed in one go, after some that are not.
const COUNT: usize = 4_000;
const WARM_UP: usize = 200;

/// What the calls took.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(in crate::bench) struct Dialled {
    /// The median `connect()` in nanoseconds.
    pub(super) p50_ns: f64,
    /// How many were denied.
    pub(super) denied: usize,
    /// How many had their answer when the call returned, the whole way being on
    /// one node: calls that only put a SYN into a queue are no measurement.
    pub(super) answered: usize,
}

/// Times `connect()` to `to`, again and again. The sockets do not block, and are
/// reset at once: nothing waits, and no port stays in use.
pub(in crate::bench) fn run(to: SocketAddr) -> Result<Dialled> {
    let mut nanos = Vec::with_capacity(COUNT);
    let (mut denied, mut answered) = (0, 0);
    for number in 0..WARM_UP + COUNT {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), None)?;
        socket.set_linger(Some(Duration::ZERO))?;
        let address = to.into();
        let begun = Instant::now();
        let connected = socket.connect(&address);
        let took = begun.elapsed();
        let is_denied = match &connected {
            Ok(()) => false,
            Err(error) if is(error, Errno::EINPROGRESS) => false,
            Err(error) if is(error, Errno::EPERM) => true,
            Err(error) => bail!("connect to {to}: {error}"),
        };
        if number >= WARM_UP {
            nanos.push(u32::try_from(took.as_nanos()).unwrap_or(u32::MAX));
            denied += usize::from(is_denied);
            answered += usize::from(is_denied || is_established(&socket));
        }
    }
    nanos.sort_unstable();
    Ok(Dialled {
        p50_ns: f64::from(nanos[COUNT / 2]),
        denied,
        answered,
    })
}

/// Whether the handshake is over.
fn is_established(socket: &Socket) -> bool {
    socket.peer_addr().is_ok()
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

impl Dialled {
    /// Whether as good as all had their answer at once. The SYN of one now and then
    /// is dealt with by the other CPU; where many are, the machine is still busy with
    /// what was before.
    pub(super) fn is_answered(&self) -> bool {
        self.answered >= COUNT / 10 * 9
    }

    /// Whether every connect was denied, or none, and the others had their
    /// answer; anything else is no measurement.
    pub(super) fn check(self, deny: bool) -> Result<Self> {
        if self.denied != if deny { COUNT } else { 0 } {
            bail!("{} of {COUNT} connects were denied", self.denied)
        }
        if !self.is_answered() {
            bail!("{} of {COUNT} connects were answered", self.answered)
        }
        Ok(self)
    }
}
