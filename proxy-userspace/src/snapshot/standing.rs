//! What has become of the endpoint of a connected UDP socket.
//!
//! Must never take an endpoint for gone that a service still lists.

use proxy_common::{AddressKey, AddressKind, Peer, ServiceKey, Transport};

use super::Snapshot;

/// How an endpoint stands to the service under whose address it was dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The service lists it, or weir has nothing to say about it.
    Listed,
    /// The workload is there, but is no ready endpoint of the service any more.
    Unready,
    /// The workload is gone, or the service is.
    Gone,
}

impl Snapshot {
    /// How the endpoint stands that a UDP socket was sent to.
    pub fn standing(&self, peer: &Peer) -> Standing {
        let Some(workload) = self.tables.workloads.get(&peer.netns) else {
            return Standing::Listed;
        };
        let (Some(dialled), Some(endpoint)) =
            (peer.dialled.destination(), peer.endpoint.destination())
        else {
            return Standing::Listed;
        };
        let network = workload.network;
        let key = ServiceKey::new(network, dialled, Transport::Udp);
        let entry = self.tables.services.get(&key);
        let Some(view) = entry.and_then(|entry| self.services.get(&entry.service)) else {
            return Standing::Gone;
        };
        let addr = endpoint.to_socket_addr();
        if view.all.endpoints().any(|listed| listed.addr == addr) {
            return Standing::Listed;
        }
        let addr = endpoint.addr;
        match self.tables.addresses.get(&AddressKey { network, addr }) {
            Some(entry) if entry.kind() == AddressKind::Workload => Standing::Unready,
            _ => Standing::Gone,
        }
    }
}
