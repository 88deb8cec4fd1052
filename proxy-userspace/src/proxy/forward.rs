//! One request, to an endpoint and back.
//!
//! A request goes over an idle connection if there is one, else over a new one;
//! to another endpoint if nothing of it was sent; and once more to the same one
//! if it is safe to repeat and the idle connection broke under it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;

use super::answer::Refusal;
use super::body::RequestBody;
use super::connection::{ATTEMPTS_MAX, CONNECT_BUDGET};
use super::hops::{self, Upgrade};
use super::http::Connection;
use super::pool::Key;
use super::record::Exchange;
use super::upstream::Upstream;
use super::worker::Worker;
use crate::snapshot::{Endpoint, Pick};

/// Where a request may go.
pub enum Ways<'a> {
    /// Endpoints of a service, beginning with the one whose turn it is.
    Picked(Pick<'a>),
    /// The address that was dialled.
    Dialled(SocketAddr),
}

impl Ways<'_> {
    fn get(&self, attempt: usize) -> Option<(SocketAddr, Option<&Arc<Endpoint>>)> {
        match self {
            Self::Picked(pick) => pick
                .endpoint(attempt)
                .map(|endpoint| (endpoint.addr, Some(endpoint))),
            Self::Dialled(addr) => (attempt == 0).then_some((*addr, None)),
        }
    }
}

/// The connection that an answer comes over.
pub struct Lease {
    worker: Rc<Worker>,
    key: Key,
    upstream: Upstream,
}

impl Lease {
    /// The answer is complete: the next request may have the connection.
    pub fn give_back(self) {
        self.worker.pool.put(self.key, self.upstream);
    }

    /// Polls the body of the answer, and what brings it.
    pub fn poll_body<T>(
        &mut self,
        cx: &mut Context<'_>,
        body: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.upstream.poll_body(cx, body)
    }
}

type Answer = (Response<Incoming>, Option<Lease>);
type Failure = (Refusal, String);

/// What became of a request over one connection.
enum Tried {
    /// It was answered.
    Answered(Answer),
    /// It was sent, or begun, and cannot be repeated.
    Lost(Failure),
    /// Nothing of it was sent, or it may be repeated; and why it was not answered.
    Back(Request<RequestBody>, String),
}

impl Connection {
    /// Sends a request and returns the head of its answer.
    pub async fn forward(
        &self,
        ways: &Ways<'_>,
        request: Request<RequestBody>,
        exchange: &mut Exchange,
    ) -> Result<Answer, Failure> {
        let mut request = outgoing(request);
        let started = Instant::now();
        let mut last = String::from("none was tried");
        for attempt in 0..ATTEMPTS_MAX {
            let Some((addr, endpoint)) = ways.get(attempt) else {
                break;
            };
            exchange.tried(addr, endpoint, attempt);
            let key = self.key(addr);
            let idle = match self.captured.worker.pool.take(&key) {
                Some(upstream) => self.over_idle(key, upstream, request, exchange).await,
                None => Tried::Back(request, String::new()),
            };
            let tried = match idle {
                Tried::Back(request, _) => self.over_new(key, request, exchange).await,
                done => done,
            };
            match tried {
                Tried::Answered(answer) => return Ok(answer),
                Tried::Lost(failure) => return Err(failure),
                Tried::Back(back, why) => {
                    request = back;
                    last = format!("{addr}: {why}");
                }
            }
            if started.elapsed() > CONNECT_BUDGET {
                break;
            }
        }
        Err((
            Refusal::ConnectFailed,
            format!("no endpoint could be connected to ({last})"),
        ))
    }

    fn key(&self, to: SocketAddr) -> Key {
        Key {
            source: self.captured.flow.workload,
            from: self.captured.source_for(to).unwrap_or(self.captured.from),
            to,
        }
    }

    /// Over a connection that was idle: the endpoint may just be closing it.
    async fn over_idle(
        &self,
        key: Key,
        mut upstream: Upstream,
        request: Request<RequestBody>,
        exchange: &mut Exchange,
    ) -> Tried {
        if let Err(error) = upstream.ready().await {
            return Tried::Back(request, error.to_string());
        }
        let spare = repeat(&request);
        match (self.send(key, upstream, request, exchange).await, spare) {
            (Tried::Lost((Refusal::UpstreamFailed, why)), Some(spare)) => {
                exchange.retries += 1;
                Tried::Back(spare, why)
            }
            (tried, _) => tried,
        }
    }

    /// Over a connection of its own.
    async fn over_new(
        &self,
        key: Key,
        request: Request<RequestBody>,
        exchange: &mut Exchange,
    ) -> Tried {
        let stream = match self.captured.connect(key.to).await {
            Ok(stream) => stream,
            Err(error) => return Tried::Back(request, error.to_string()),
        };
        match Upstream::begin(stream).await {
            Ok(upstream) => self.send(key, upstream, request, exchange).await,
            Err(error) => Tried::Back(request, error.to_string()),
        }
    }

    async fn send(
        &self,
        key: Key,
        mut upstream: Upstream,
        request: Request<RequestBody>,
        exchange: &Exchange,
    ) -> Tried {
        match upstream.send(request).await {
            Ok(mut response) => {
                hops::strip(response.headers_mut());
                let lease = Lease {
                    worker: Rc::clone(&self.captured.worker),
                    key,
                    upstream,
                };
                Tried::Answered((response, Some(lease)))
            }
            Err(mut error) => match error.take_message() {
                Some(request) => Tried::Back(request, error.into_error().to_string()),
                None => Tried::Lost(failure(&error.into_error(), key.to, exchange)),
            },
        }
    }

    /// Sends a request that asks to leave HTTP, over a connection that is not
    /// shared; if the endpoint agrees, bytes go both ways until both ends are done.
    pub async fn upgrade(
        self: Rc<Self>,
        ways: &Ways<'_>,
        request: Request<RequestBody>,
        upgrade: Upgrade,
        exchange: &mut Exchange,
    ) -> Result<Answer, Failure> {
        let Some((addr, endpoint)) = ways.get(0) else {
            return Err((Refusal::NoEndpoint, "no endpoint is ready".into()));
        };
        exchange.tried(addr, endpoint, 0);
        let lost = |error: &hyper::Error| (Refusal::UpstreamFailed, format!("{addr}: {error}"));
        let stream = self.captured.connect(addr).await;
        let stream =
            stream.map_err(|error| (Refusal::ConnectFailed, format!("{addr}: {error}")))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| lost(&error))?;
        tokio::task::spawn_local(async move { drop(connection.with_upgrades().await) });
        let mut response = sender
            .send_request(outgoing(request))
            .await
            .map_err(|error| lost(&error))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let upstream = hyper::upgrade::on(&mut response);
            tokio::task::spawn_local(async move {
                if let (Ok(client), Ok(upstream)) = tokio::join!(upgrade.client, upstream) {
                    let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
                    // Either end may break off; there is nobody left to tell.
                    drop(tokio::io::copy_bidirectional(&mut client, &mut upstream).await);
                }
                drop(self);
            });
        } else {
            hops::strip(response.headers_mut());
        }
        Ok((response, None))
    }
}

/// A request as the endpoint gets it: HTTP/1.1, whatever the client spoke.
fn outgoing(mut request: Request<RequestBody>) -> Request<RequestBody> {
    *request.version_mut() = Version::HTTP_11;
    request
}

/// The same request once more, if repeating it is safe (RFC 9110 section 9.2.2)
/// and there is no body that would be gone.
fn repeat(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    if !request.method().is_idempotent() {
        return None;
    }
    let mut copy = Request::new(request.body().repeat()?);
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    Some(copy)
}

/// Whose fault it was that a request got no answer.
fn failure(error: &hyper::Error, to: SocketAddr, exchange: &Exchange) -> Failure {
    if exchange.request_broken.get() {
        (
            Refusal::BrokenBody,
            format!("the request body broke off: {error}"),
        )
    } else {
        (Refusal::UpstreamFailed, format!("{to}: {error}"))
    }
}
