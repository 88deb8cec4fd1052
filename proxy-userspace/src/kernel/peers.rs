//! The connected UDP sockets of pods whose peer is an endpoint, as the hooks
//! keep them: nobody else could tell them from those that dialled it themselves.

use aya::maps::{HashMap, Map, MapData};
use proxy_common::{Peer, Record as _};

use super::Kernel;
use super::error::KernelError;
use crate::diag::SocketCookie;

/// A reader of them.
pub struct Peers {
    map: HashMap<MapData, u64, Peer>,
}

impl Kernel {
    /// A handle for whoever watches over them.
    pub fn peers(&self) -> Result<Peers, KernelError> {
        let map = MapData::from_pin(self.pins.map("PEERS")).map_err(KernelError::map("PEERS"))?;
        HashMap::try_from(Map::HashMap(map))
            .map(|map| Peers { map })
            .map_err(KernelError::map("PEERS"))
    }
}

impl Peers {
    /// All of them that the hooks can have noted. One that comes or goes meanwhile
    /// may be missing.
    pub fn all(&self) -> impl Iterator<Item = (SocketCookie, Peer)> {
        let found = self.map.iter().flatten();
        let found = found.filter(|(_, peer)| peer.check().is_ok());
        found.map(|(cookie, peer)| (SocketCookie(cookie), peer))
    }
}
