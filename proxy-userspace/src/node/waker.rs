//! Wakes connected UDP sockets whose endpoint is no more. TCP would tell their
//! owners; without this they would send to nobody until they give up.
//!
//! Owns the moment: at once where the workload or the service is gone; after
//! [`DRAIN`] where the workload is there but not ready, so that answers that
//! are under way still arrive. Must never touch a socket that the hooks do not
//! name, by its cookie, as one that weir sent to that endpoint.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use nix::errno::Errno;
use proxy_common::{Destination, NetnsCookie, Target};

use super::pod::Pod;
use crate::diag::{Connection, SocketCookie};
use crate::kernel::Peers;
use crate::snapshot::{Snapshot, Standing};
use crate::socket::Netns;

/// How long a socket may go on with an endpoint that is not ready any more.
pub const DRAIN: Duration = Duration::from_secs(5);

/// The thread that looks; it ends with this handle.
pub struct Waker {
    poke: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Why it cannot work here.
    missing: Option<String>,
}

impl Waker {
    /// Waits for [`Self::poke`].
    pub fn start(snapshot: Arc<ArcSwap<Snapshot>>, peers: Peers) -> io::Result<Self> {
        let home = Netns::current()?;
        let missing = try_out(&home).err().map(|error| error.to_string());
        if let Some(why) = &missing {
            tracing::warn!(
                why,
                "connected UDP sockets of dead endpoints will not be woken"
            );
        }
        // One that is not looked at yet stands for all that come after it.
        let (poke, poked) = sync_channel(1);
        let mut look = Look {
            home,
            snapshot,
            peers,
            unready: BTreeMap::new(),
        };
        let thread = std::thread::Builder::new()
            .name("weir-waker".into())
            .spawn(move || look.run(&poked))?;
        Ok(Self {
            poke: Some(poke),
            thread: Some(thread),
            missing,
        })
    }

    /// Endpoints may have left.
    pub fn poke(&self) {
        if let Some(poke) = &self.poke {
            // Full: it is about to look anyway.
            let _full = poke.try_send(());
        }
    }

    /// Why sockets are not woken on this kernel; `None`: they are.
    pub fn missing(&self) -> Option<&str> {
        self.missing.as_deref()
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        drop(self.poke.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the waker ended by a panic");
        }
    }
}

/// An endpoint, as one pod sees it.
type Seen = (NetnsCookie, Target);

struct Look {
    home: Netns,
    snapshot: Arc<ArcSwap<Snapshot>>,
    peers: Peers,
    /// Endpoints that are not ready but still somebody's peer, and since when.
    unready: BTreeMap<Seen, Instant>,
}

impl Look {
    fn run(&mut self, poked: &Receiver<()>) {
        // Nothing to wait for but a poke.
        let mut due = None;
        loop {
            let waited = match due {
                None => poked.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => {
                    let left = Instant::saturating_duration_since(&due, Instant::now());
                    poked.recv_timeout(left)
                }
            };
            let is_poked = match waited {
                Ok(()) => true,
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            self.look();
            // Those that were due have been told; a socket that came late is met by `again`.
            let now = Instant::now();
            let dues = self.unready.values().map(|since| *since + DRAIN);
            let first = dues.filter(|due| *due > now).min();
            // A connect that was under way when the tables changed is met then.
            let again = is_poked.then(|| Instant::now() + DRAIN);
            due = first.into_iter().chain(again).min();
        }
    }

    /// Looks at every socket that weir sent to an endpoint.
    fn look(&mut self) {
        let snapshot = self.snapshot.load_full();
        let now = Instant::now();
        let mut still = BTreeMap::new();
        let mut over: BTreeMap<NetnsCookie, BTreeMap<SocketCookie, Target>> = BTreeMap::new();
        for (cookie, peer) in self.peers.all() {
            let is_over = match snapshot.standing(&peer) {
                Standing::Listed => false,
                Standing::Gone => true,
                Standing::Unready => {
                    let seen = (peer.netns, peer.endpoint);
                    let since = *self.unready.get(&seen).unwrap_or(&now);
                    still.insert(seen, since);
                    now.saturating_duration_since(since) >= DRAIN
                }
            };
            if is_over {
                let sockets = over.entry(peer.netns).or_default();
                sockets.insert(cookie, peer.endpoint);
            }
        }
        self.unready = still;
        for source in snapshot.sources.values() {
            if let Some(sockets) = over.get(&source.pod.netns().cookie())
                && let Err(error) = self.wake(&source.pod, sockets)
            {
                tracing::warn!(workload = %source.name, %error, "its UDP sockets could not all be woken");
            }
        }
    }

    /// Ends these sockets of a pod, those that still have that peer: while a pod was
    /// not enrolled they could get another one past the hooks.
    fn wake(&self, pod: &Pod, sockets: &BTreeMap<SocketCookie, Target>) -> io::Result<()> {
        let diag = pod.netns().diag(&self.home)?;
        for socket in diag.connected()? {
            let peer = Target::new(Destination::from(socket.peer));
            if sockets.get(&socket.cookie) != Some(&peer) {
                continue;
            }
            match diag.destroy(&socket) {
                Ok(()) => tracing::debug!(workload = %pod.name(), "a UDP socket is woken"),
                // Its owner was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Whether this kernel ends UDP sockets when asked: tries it on one of weir's own.
fn try_out(home: &Netns) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let own = SocketAddrV4::new(Ipv4Addr::LOCALHOST, socket.local_addr()?.port());
    socket.connect(own)?;
    let ended = home.diag(home)?.destroy(&Connection::with_itself(own));
    ended.map_err(|error| {
        io::Error::other(format!(
            "the kernel does not end UDP sockets ({error}): it needs CONFIG_INET_UDP_DIAG and CONFIG_INET_DIAG_DESTROY"
        ))
    })?;
    match socket.take_error()?.and_then(|error| error.raw_os_error()) {
        Some(code) if code == Errno::ECONNABORTED as i32 => Ok(()),
        _ => Err(io::Error::other(
            "the kernel ended a UDP socket without a word",
        )),
    }
}
