//! Bodies on their way through: counted, and noticed when they end.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::client::Head;
use super::forward::Lease;
use super::record::{Exchange, Upload};

/// A request's body, on its way to the endpoint.
pub struct RequestBody {
    inner: Option<Incoming>,
    head: Arc<Head>,
    upload: Option<Rc<Upload>>,
    ended: bool,
}

impl RequestBody {
    /// The body of the request that `exchange` is about.
    pub fn new(inner: Incoming, head: Arc<Head>, exchange: &mut Exchange) -> Self {
        let upload = (!inner.is_end_stream()).then(Rc::<Upload>::default);
        exchange.upload.clone_from(&upload);
        Self {
            inner: Some(inner),
            head,
            upload,
            ended: false,
        }
    }

    /// A second body like this one, if there is nothing in it.
    pub fn repeat(&self) -> Option<Self> {
        self.is_end_stream().then(|| Self {
            inner: None,
            head: Arc::clone(&self.head),
            upload: None,
            ended: true,
        })
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(inner).poll_frame(cx));
        match (&frame, &self.upload) {
            (Some(Ok(frame)), Some(upload)) => {
                let more = frame.data_ref().map_or(0, |data| data.len() as u64);
                upload.bytes.set(upload.bytes.get() + more);
                self.ended = frame.is_trailers();
            }
            (Some(Err(_)), Some(upload)) => upload.broken.set(true),
            (None, _) => self.ended = true,
            _ => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let whole = self.ended || self.is_end_stream();
        self.head.uploaded(whole);
    }
}

/// An answer's body, on its way to the client.
pub struct AnswerBody {
    inner: Inner,
    exchange: Option<Box<Exchange>>,
}

enum Inner {
    /// The endpoint's, and the connection that it comes over.
    Upstream(Incoming, Option<Lease>),
    /// weir's own.
    Own(Option<Bytes>),
}

impl AnswerBody {
    /// The endpoint's body.
    pub fn upstream(body: Incoming, lease: Option<Lease>, exchange: Box<Exchange>) -> Self {
        let ended = body.is_end_stream();
        let mut answer = Self {
            inner: Inner::Upstream(body, lease),
            exchange: Some(exchange),
        };
        if ended {
            answer.end();
        }
        answer
    }

    /// weir's own body.
    pub fn own(bytes: Bytes, exchange: Box<Exchange>) -> Self {
        let bytes = (!bytes.is_empty()).then_some(bytes);
        Self {
            inner: Inner::Own(bytes),
            exchange: Some(exchange),
        }
    }

    /// Complete: the connection can carry the next request, and the record is told.
    fn end(&mut self) {
        if let Inner::Upstream(_, lease) = &mut self.inner
            && let Some(lease) = lease.take()
        {
            lease.give_back();
        }
        self.exchange = None;
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let frame = match &mut this.inner {
            Inner::Own(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Inner::Upstream(body, lease) => {
                let mut poll = |cx: &mut Context<'_>| Pin::new(&mut *body).poll_frame(cx);
                ready!(match lease {
                    Some(lease) => lease.poll_body(cx, poll),
                    None => poll(cx),
                })
            }
        };
        match (&frame, &mut this.exchange) {
            (Some(Ok(frame)), Some(exchange)) => {
                exchange.response_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            (Some(Err(_)), Some(exchange)) => exchange.broke_off(),
            _ => {}
        }
        let failed = matches!(frame, Some(Err(_)));
        if frame.is_none() || (!failed && this.is_end_stream()) {
            this.end();
        } else if failed {
            this.exchange = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Upstream(body, _) => body.is_end_stream(),
            Inner::Own(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Upstream(body, _) => body.size_hint(),
            Inner::Own(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
        }
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        // Dropped before its end: the client is gone. weir's own body may be
        // dropped unread too, after a HEAD request.
        if let (Inner::Upstream(..), Some(exchange)) = (&self.inner, &mut self.exchange) {
            exchange.reason = "client-closed";
        }
    }
}
