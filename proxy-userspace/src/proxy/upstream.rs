//! Upstream connections: opened inside the pod's namespace, from the address
//! that the client dialled from (or the pod's own of the endpoint's family), so
//! that the endpoint sees the pod.
//!
//! An HTTP connection has no task of its own: whoever has a request on it
//! drives it, so that an answer costs no detour over the scheduler.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::body::RequestBody;
use super::wire::{Unheard, Uplink};
use crate::node::Pod;
use crate::socket::{Netns, Reach};

/// How long an endpoint may take to accept. An application without a proxy
/// would wait for two minutes; another endpoint may be there at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Connects to `to` from the pod's address `from`.
pub async fn connect(
    pod: &Pod,
    home: &Netns,
    from: IpAddr,
    to: SocketAddr,
    reach: Reach,
) -> io::Result<TcpStream> {
    let stream = TcpStream::from_std(pod.netns().connect(home, from, to, reach)?)?;
    timeout(CONNECT_TIMEOUT, stream.writable())
        .await
        .map_err(io::Error::from)??;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}

/// A request that got no answer: it is in there if nothing of it was sent.
pub type Unsent = TrySendError<Request<RequestBody>>;

type Connection = http1::Connection<TokioIo<Uplink>, RequestBody>;

/// What an upstream connection can be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// For the next request.
    Ready,
    /// For nothing yet: its last answer came before the whole request was sent.
    Busy,
    /// For nothing any more.
    Closed,
}

/// An HTTP connection to an endpoint.
pub struct Upstream {
    sender: SendRequest<RequestBody>,
    unheard: Unheard,
    /// Absent once it has ended, or drives itself.
    connection: Option<Pin<Box<Connection>>>,
}

impl Upstream {
    /// Begins HTTP on a connected socket.
    pub async fn begin(stream: TcpStream) -> hyper::Result<Self> {
        let (uplink, unheard) = Uplink::new(stream);
        let (sender, connection) = http1::handshake(TokioIo::new(uplink)).await?;
        Ok(Self {
            sender,
            unheard,
            connection: Some(Box::pin(connection)),
        })
    }

    /// Reads and writes what can be read and written. Its errors reach whoever
    /// waits for an answer; idle, they mean nothing.
    pub fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && connection.as_mut().poll(cx).is_ready()
        {
            self.connection = None;
        }
    }

    /// What it can be used for, as far as is known by now.
    pub fn state(&mut self) -> State {
        self.drive(&mut Context::from_waker(Waker::noop()));
        if self.sender.is_closed() {
            State::Closed
        } else if self.sender.is_ready() {
            State::Ready
        } else {
            State::Busy
        }
    }

    /// Sends a request and returns the head of its answer.
    ///
    /// No `async fn`: those keep room for their arguments, and for what is made
    /// of them besides, and a request is large.
    pub fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, Unsent>> {
        self.unheard.begin();
        let uploads = !hyper::body::Body::is_end_stream(request.body());
        let mut answer = Box::pin(self.sender.try_send_request(request));
        async move {
            let answer = poll_fn(|cx| {
                self.drive(cx);
                answer.as_mut().poll(cx)
            })
            .await;
            // The client may send its body to the end before it reads any answer:
            // then the upload must not wait for the download.
            if uploads && let Some(connection) = self.connection.take() {
                tokio::task::spawn_local(async move { drop(connection.await) });
            }
            answer
        }
    }

    /// Drives the body of an answer along with its connection.
    pub fn poll_body<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut body: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        // The body must have been asked before the connection hands on any of it.
        if let Poll::Ready(frame) = body(cx) {
            return Poll::Ready(frame);
        }
        if self.connection.is_none() {
            return Poll::Pending;
        }
        self.drive(cx);
        body(cx)
    }
}
