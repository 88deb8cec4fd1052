//! Idle upstream connections of one worker.
//!
//! A connection is never shared between source workloads: the endpoint knows
//! its client by the connection's address. Must never keep a connection to an
//! endpoint that has left its service.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use proxy_common::WorkloadId;

use super::upstream::{State, Upstream};

/// Idle connections kept per source and endpoint.
const IDLE_MAX: usize = 128;

/// How long an idle connection is kept.
const IDLE_TIME: Duration = Duration::from_mins(1);

/// Whose connection it is, from which address, to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The source workload.
    pub source: WorkloadId,
    /// The pod's address that it is opened from.
    pub from: IpAddr,
    /// The endpoint.
    pub to: SocketAddr,
}

struct Idle {
    upstream: Upstream,
    since: Instant,
}

/// The pool.
#[derive(Default)]
pub struct Pool {
    idle: RefCell<HashMap<Key, Vec<Idle>>>,
}

impl Pool {
    /// The connection that was used last: the one least likely to have been
    /// closed by the endpoint meanwhile.
    pub fn take(&self, key: &Key) -> Option<Upstream> {
        let mut idle = self.idle.borrow_mut();
        let list = idle.get_mut(key)?;
        for index in (0..list.len()).rev() {
            match list[index].upstream.state() {
                State::Ready => return Some(list.remove(index).upstream),
                State::Busy => {}
                State::Closed => drop(list.remove(index)),
            }
        }
        None
    }

    /// Keeps a connection whose answer is complete.
    pub fn put(&self, key: Key, upstream: Upstream) {
        let mut idle = self.idle.borrow_mut();
        let list = idle.entry(key).or_default();
        if list.len() < IDLE_MAX {
            list.push(Idle {
                upstream,
                since: Instant::now(),
            });
        }
    }

    /// Closes what has been idle for too long.
    pub fn expire(&self, now: Instant) {
        self.retain(|_, idle| {
            now.duration_since(idle.since) < IDLE_TIME && idle.upstream.state() != State::Closed
        });
    }

    /// Closes idle connections to endpoints that `known` does not know.
    pub fn prune(&self, known: impl Fn(&Key) -> bool) {
        self.retain(|key, _| known(key));
    }

    fn retain(&self, keep: impl Fn(&Key, &mut Idle) -> bool) {
        self.idle.borrow_mut().retain(|key, list| {
            list.retain_mut(|idle| keep(key, idle));
            !list.is_empty()
        });
    }
}
