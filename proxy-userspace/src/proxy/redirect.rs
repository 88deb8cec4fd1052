//! Connections that an iptables REDIRECT rule sent here instead of the hooks,
//! so that the benchmark can compare the two ways into the very same proxy.
//!
//! Compiled only with the feature `redirect`, which release builds lack: it
//! trusts whoever reaches the port.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use proxy_common::{Destination, Flow, Transport, decide};
use socket2::SockRef;
use tokio::net::TcpStream;

use super::worker::Worker;
use crate::node::Pod;

/// Where weir listens in every pod, besides its own listeners.
pub static PORT: OnceLock<u16> = OnceLock::new();

/// The address of the extra listener.
pub fn address() -> Option<SocketAddr> {
    PORT.get()
        .map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), *port))
}

/// The flow of a redirected connection: what the hook would have decided.
pub fn flow(worker: &Worker, pod: &Arc<Pod>, client: &TcpStream) -> Option<Flow> {
    let dialled = SockRef::from(client).original_dst_v4().ok()?.as_socket()?;
    let snapshot = worker.snapshot();
    let netns = pod.netns().cookie();
    let workload = snapshot.tables.workloads.get(&netns)?;
    let dst = Destination::from(dialled);
    let decision = decide(&snapshot.tables, workload, netns, Transport::Tcp, dst);
    Some(Flow::new(workload.id, dst, &decision))
}
