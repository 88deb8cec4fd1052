//! Which connections are older than the enrolment of their workload: weir did
//! not decide on them. Kept in a pinned map, because the next process has no
//! other way to tell them from those that were decided on meanwhile.
//!
//! Must never hold a connection of a namespace that is not enrolled.

use std::collections::BTreeMap;

use proxy_common::{Destination, NetnsCookie, Older, Target};

use super::Kernel;
use super::error::KernelError;
use crate::diag::{Connection, SocketCookie};

impl Kernel {
    /// Remembers connections of a namespace that has just been enrolled.
    pub fn remember_older(
        &mut self,
        netns: NetnsCookie,
        connections: &[Connection],
    ) -> Result<(), KernelError> {
        for connection in connections {
            let older = Older {
                netns,
                peer: Target::new(Destination::from(connection.peer)),
                pad: 0,
            };
            self.maps
                .older
                .insert(connection.cookie.0, older, 0)
                .map_err(KernelError::map("OLDER"))?;
        }
        Ok(())
    }

    /// The connections of a namespace that are older than its enrolment, and their
    /// peers; some of them may be gone.
    pub fn older(&self, netns: NetnsCookie) -> BTreeMap<SocketCookie, Target> {
        let entries = self.maps.older.iter().flatten();
        entries
            .filter(|(_, older)| older.netns == netns)
            .map(|(socket, older)| (SocketCookie(socket), older.peer))
            .collect()
    }

    /// Forgets connections that `is_kept` does not keep.
    pub fn forget_older(&mut self, is_kept: impl Fn(NetnsCookie, SocketCookie) -> bool) {
        let entries = self.maps.older.iter().flatten();
        let gone: Vec<u64> = entries
            .filter(|(socket, older)| !is_kept(older.netns, SocketCookie(*socket)))
            .map(|(socket, _)| socket)
            .collect();
        for socket in gone {
            // Being gone already is as good.
            let _gone = self.maps.older.remove(&socket);
        }
    }
}
