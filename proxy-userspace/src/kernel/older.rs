//! Which connections are older than the enrolment of their workload: weir did
//! not decide on them. Kept in a pinned map, because the next process has no
//! other way to tell them from those that were decided on meanwhile.
//!
//! Must never hold a connection of a namespace that is not enrolled.

use std::collections::BTreeSet;

use proxy_common::NetnsCookie;

use super::Kernel;
use super::error::KernelError;
use crate::diag::SocketCookie;

impl Kernel {
    /// Remembers connections of a namespace that has just been enrolled.
    pub fn remember_older(
        &mut self,
        netns: NetnsCookie,
        sockets: impl Iterator<Item = SocketCookie>,
    ) -> Result<(), KernelError> {
        for socket in sockets {
            self.maps
                .older
                .insert(socket.0, netns, 0)
                .map_err(KernelError::map("OLDER"))?;
        }
        Ok(())
    }

    /// The connections of a namespace that are older than its enrolment; some
    /// of them may be gone.
    pub fn older(&self, netns: NetnsCookie) -> BTreeSet<SocketCookie> {
        let entries = self.maps.older.iter().flatten();
        entries
            .filter(|(_, of)| *of == netns)
            .map(|(socket, _)| SocketCookie(socket))
            .collect()
    }

    /// Forgets connections that `is_kept` does not keep.
    pub fn forget_older(&mut self, is_kept: impl Fn(NetnsCookie, SocketCookie) -> bool) {
        let entries = self.maps.older.iter().flatten();
        let gone: Vec<u64> = entries
            .filter(|(socket, netns)| !is_kept(*netns, SocketCookie(*socket)))
            .map(|(socket, _)| socket)
            .collect();
        for socket in gone {
            // Being gone already is as good.
            let _gone = self.maps.older.remove(&socket);
        }
    }
}
