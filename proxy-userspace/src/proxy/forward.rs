//! One request, to an endpoint and back.
//!
//! A request goes over an idle connection if there is one, else over a new one;
//! to another endpoint if nothing of it was sent; and once more to the same one
//! if it is safe to repeat and the idle connection broke under it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::{Request, Response};

use super::answer::Refusal;
use super::body::RequestBody;
use super::connection::{ATTEMPTS_MAX, CONNECT_BUDGET};
use super::hops;
use super::http::Connection;
use super::pool::Key;
use super::record::Exchange;
use super::upstream::Upstream;
use super::worker::Worker;
use crate::snapshot::{Endpoint, Pick};
use crate::socket::Reach;

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

    /// Whom to try now, which is noted; `None` if there is nobody left, or no time.
    pub fn next(&self, attempt: usize, exchange: &mut Exchange) -> Option<(SocketAddr, Reach)> {
        if attempt > 0 && exchange.elapsed() > CONNECT_BUDGET {
            return None;
        }
        let (addr, endpoint) = self.get(attempt)?;
        exchange.tried(addr, endpoint, attempt);
        let reach = endpoint.map_or(Reach::Beyond, |endpoint| endpoint.reach);
        Some((addr, reach))
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

/// The head of an answer, and the connection that its body comes over.
pub type Answer = (Response<Incoming>, Option<Lease>);
/// Why there is no answer.
pub type Failure = (Refusal, String);

/// What became of a request over one connection.
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, on its way to the caller"
)]
enum Tried {
    /// It was answered.
    Answered(Answer),
    /// It was sent, or begun, and cannot be repeated.
    Lost(Failure),
    /// Nothing of it was sent, or it may be repeated: it is back in its place.
    /// And why it was not answered.
    Back(String),
}

/// Where a request is until it was sent, and its repetition while it is.
///
/// One place for all attempts, never handed on by value: every request in
/// flight keeps room for each copy that could be made on its way.
pub struct Place(Option<Request<RequestBody>>);

impl Place {
    /// With a request in it.
    pub fn new(request: Request<RequestBody>) -> Self {
        Self(Some(request))
    }

    /// The request, which was not sent yet or has come back.
    pub fn request(&self) -> &Request<RequestBody> {
        self.0
            .as_ref()
            .expect("a request is there until it is sent")
    }

    /// The request, to be sent.
    pub fn take(&mut self) -> Request<RequestBody> {
        self.0.take().expect("a request is there until it is sent")
    }

    /// Leaves the repetition of the request there, if it is safe to repeat.
    fn take_and_repeat(&mut self) -> Request<RequestBody> {
        let request = self.take();
        self.0 = repeat(&request);
        request
    }
}

impl Connection {
    /// Sends the request in `place` and returns the head of its answer.
    pub async fn forward(
        &self,
        ways: &Ways<'_>,
        place: &mut Place,
        exchange: &mut Exchange,
    ) -> Result<Answer, Failure> {
        let mut last = None;
        for attempt in 0..ATTEMPTS_MAX {
            let Some((addr, reach)) = ways.next(attempt, exchange) else {
                break;
            };
            let key = self.key(addr);
            match self.attempt(&key, reach, place, exchange).await {
                Tried::Answered(answer) => return Ok(answer),
                Tried::Lost(failure) => return Err(failure),
                Tried::Back(why) => last = Some(format!("{addr}: {why}")),
            }
        }
        Err(none_connected(last.as_deref()))
    }

    fn key(&self, to: SocketAddr) -> Key {
        Key {
            source: self.captured.flow.workload,
            from: self.captured.source_for(to).unwrap_or(self.captured.from),
            to,
        }
    }

    /// Over an idle connection, or else over a new one.
    async fn attempt(
        &self,
        key: &Key,
        reach: Reach,
        place: &mut Place,
        exchange: &mut Exchange,
    ) -> Tried {
        if let Some(idle) = self.captured.worker.pool.take(key) {
            // The endpoint may just be closing it.
            let tried = self.send(key, idle, true, place, exchange).await;
            if !matches!(tried, Tried::Back(_)) {
                return tried;
            }
        }
        // Rare, and much larger than the way over an idle connection.
        Box::pin(self.over_new(key, reach, place, exchange)).await
    }

    /// Over a connection of its own.
    async fn over_new(
        &self,
        key: &Key,
        reach: Reach,
        place: &mut Place,
        exchange: &mut Exchange,
    ) -> Tried {
        let stream = match self.captured.connect(key.to, reach).await {
            Ok(stream) => stream,
            Err(error) => return Tried::Back(error.to_string()),
        };
        match Upstream::begin(stream).await {
            Ok(upstream) => self.send(key, upstream, false, place, exchange).await,
            Err(error) => Tried::Back(error.to_string()),
        }
    }

    /// Sends the request. It comes back into its place if nothing of it was
    /// sent, or if the connection `was_idle` and it is safe to repeat.
    async fn send(
        &self,
        key: &Key,
        mut upstream: Upstream,
        was_idle: bool,
        place: &mut Place,
        exchange: &mut Exchange,
    ) -> Tried {
        // In one expression: what has a name is kept while this waits.
        let sent = upstream.send(if was_idle {
            place.take_and_repeat()
        } else {
            place.take()
        });
        match sent.await {
            Ok(mut response) => {
                hops::strip_answer(&mut response);
                let lease = Lease {
                    worker: Rc::clone(&self.captured.worker),
                    key: *key,
                    upstream,
                };
                Tried::Answered((response, Some(lease)))
            }
            Err(mut error) => {
                if let Some(request) = error.take_message() {
                    place.0 = Some(request);
                    return Tried::Back(error.into_error().to_string());
                }
                let (refusal, why) = failure(&error.into_error(), key.to, exchange);
                if refusal == Refusal::UpstreamFailed && place.0.is_some() {
                    exchange.retries += 1;
                    return Tried::Back(why);
                }
                Tried::Lost((refusal, why))
            }
        }
    }
}

/// Nobody took a connection.
pub fn none_connected(last: Option<&str>) -> Failure {
    let last = last.unwrap_or("none was tried");
    (
        Refusal::ConnectFailed,
        format!("no endpoint could be connected to ({last})"),
    )
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
    if exchange.is_broken() {
        (
            Refusal::BrokenBody,
            format!("the request body broke off: {error}"),
        )
    } else {
        (Refusal::UpstreamFailed, format!("{to}: {error}"))
    }
}
