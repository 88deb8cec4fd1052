//! Upstream sockets: opened inside the pod's namespace, from the address that
//! the client dialled from, so that the endpoint sees the pod.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::node::Pod;
use crate::socket::Netns;

/// How long an endpoint may take to accept. An application without a proxy
/// would wait for two minutes; another endpoint may be there at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Connects to `to` from the pod's address `from`.
pub async fn connect(pod: &Pod, home: &Netns, from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::from_std(pod.netns().connect(home, from, to)?)?;
    timeout(CONNECT_TIMEOUT, stream.writable()).await.map_err(io::Error::from)??;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}
