//! Request ids and trace headers, on their way to the endpoint.
//!
//! Owns `x-request-id`, B3 (one header or several) and W3C Trace Context. What is
//! valid is passed on unchanged, the span id too: weir exports no spans, so it
//! puts none of its own into the trace. What is missing is started, in both forms
//! with the same ids; where only one form is there, the other is made from it. What
//! is malformed is replaced, as W3C demands. Must never fail a request.

use std::cell::RefCell;

use hyper::HeaderMap;
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use rand::rngs::SmallRng;
use rand::{Rng, RngExt};

mod parse;

use parse::{B3, W3c};

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
static B3_SINGLE: HeaderName = HeaderName::from_static("b3");
static B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
static B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
static B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
static B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
static B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// The longest `x-request-id` that is kept, in bytes.
const REQUEST_ID_MAX: usize = 256;

/// How many of the traces that weir starts are marked as sampled.
///
/// A trace that is marked as not sampled is recorded by nobody downstream, and one
/// that is, by everybody who traces; a small share is therefore the default.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling(f64);

impl Sampling {
    /// A share from 0 (never) to 1 (always); `None` for any other number.
    pub fn new(share: f64) -> Option<Self> {
        (0.0..=1.0).contains(&share).then_some(Self(share))
    }
}

impl Default for Sampling {
    /// One in a hundred.
    fn default() -> Self {
        Self(0.01)
    }
}

/// Puts the headers in order; one for each thread.
#[derive(Debug)]
pub struct Tracer {
    random: RefCell<SmallRng>,
    sampling: Sampling,
}

/// What a request is known by from here on.
#[derive(Clone, Debug)]
pub struct Trace {
    request_id: HeaderValue,
    trace_id: [u8; 32],
}

impl Trace {
    /// The `x-request-id`.
    pub fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }

    /// The trace id: 32 lower-case hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        str::from_utf8(&self.trace_id).unwrap_or_default()
    }
}

/// Where a request is in a trace, in lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Context {
    trace: [u8; 32],
    span: [u8; 16],
    /// `None`: the caller leaves the decision to whoever comes next.
    sampled: Option<bool>,
}

impl Tracer {
    /// Seeded by the operating system.
    pub fn new(sampling: Sampling) -> Self {
        Self {
            random: RefCell::new(rand::make_rng()),
            sampling,
        }
    }

    /// Makes the headers of a request to an endpoint complete and well-formed.
    pub fn prepare(&self, headers: &mut HeaderMap) -> Trace {
        let w3c = W3c::read(headers);
        let b3 = B3::read(headers);
        let (context, sampled) = self.context(&w3c, &b3);
        if !matches!((&w3c, &b3), (W3c::Valid(_), B3::Valid(_))) {
            complete(headers, &w3c, &b3, &context, sampled);
        }
        Trace {
            request_id: self.request_id(headers),
            trace_id: context.trace,
        }
    }

    /// The place in the trace that a missing form is given, and whether it is sampled.
    fn context(&self, w3c: &W3c, b3: &B3) -> (Context, bool) {
        let mut random = self.random.borrow_mut();
        let (context, decision) = match (w3c, b3) {
            (W3c::Valid(context), _) | (_, B3::Valid(context)) => (*context, context.sampled),
            (_, B3::Decision(sampled)) => (Context::start(&mut random), Some(*sampled)),
            _ => (Context::start(&mut random), None),
        };
        let sampled = decision.unwrap_or_else(|| random.random_bool(self.sampling.0));
        (context, sampled)
    }

    /// The caller's id if it can be used, else a new one.
    fn request_id(&self, headers: &mut HeaderMap) -> HeaderValue {
        let mut ids = headers.get_all(&REQUEST_ID).iter();
        if let (Some(id), None) = (ids.next(), ids.next())
            && (1..=REQUEST_ID_MAX).contains(&id.len())
            && id.as_bytes().iter().all(u8::is_ascii_graphic)
        {
            return id.clone();
        }
        let id = shared(Bytes::from_owner(uuid(&mut self.random.borrow_mut())));
        headers.insert(&REQUEST_ID, id.clone());
        id
    }
}

impl Context {
    /// The first place of a new trace.
    fn start(random: &mut SmallRng) -> Self {
        let mut context = Self {
            trace: [b'0'; 32],
            span: [b'0'; 16],
            sampled: None,
        };
        // All zero means no id.
        hex(
            &(random.next_u64() | 1).to_be_bytes(),
            &mut context.trace[..16],
        );
        hex(&random.next_u64().to_be_bytes(), &mut context.trace[16..]);
        hex(&(random.next_u64() | 1).to_be_bytes(), &mut context.span);
        context
    }

    fn traceparent(&self, sampled: bool) -> Bytes {
        let mut text = *b"00-tttttttttttttttttttttttttttttttt-ssssssssssssssss-00";
        text[3..35].copy_from_slice(&self.trace);
        text[36..52].copy_from_slice(&self.span);
        text[54] = b'0' + u8::from(sampled);
        Bytes::from_owner(text)
    }
}

/// Adds the forms that are missing, in place of those that are malformed.
fn complete(headers: &mut HeaderMap, w3c: &W3c, b3: &B3, context: &Context, sampled: bool) {
    let text = context.traceparent(sampled);
    if !matches!(w3c, W3c::Valid(_)) {
        headers.insert(&TRACEPARENT, shared(text.clone()));
        // Means nothing without the traceparent it came with.
        headers.remove(&TRACESTATE);
    }
    if matches!(b3, B3::Invalid) {
        headers.remove(&B3_SINGLE);
        headers.remove(&B3_PARENT);
        headers.remove(&B3_FLAGS);
    }
    if matches!(b3, B3::Absent | B3::Invalid) {
        let decision = if sampled { "1" } else { "0" };
        headers.insert(&B3_SAMPLED, HeaderValue::from_static(decision));
    }
    let has_single = headers.contains_key(&B3_SINGLE);
    if !matches!(b3, B3::Valid(_)) && !has_single {
        headers.insert(&B3_TRACE, shared(text.slice(3..35)));
        headers.insert(&B3_SPAN, shared(text.slice(36..52)));
    }
}

fn shared(text: Bytes) -> HeaderValue {
    HeaderValue::from_maybe_shared(text).expect("digits and dashes are a header value")
}

/// A random UUID, version 4.
fn uuid(random: &mut SmallRng) -> [u8; 36] {
    let mut bytes = [0; 16];
    random.fill_bytes(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = [b'-'; 36];
    hex(&bytes[..4], &mut text[..8]);
    hex(&bytes[4..6], &mut text[9..13]);
    hex(&bytes[6..8], &mut text[14..18]);
    hex(&bytes[8..10], &mut text[19..23]);
    hex(&bytes[10..], &mut text[24..]);
    text
}

fn hex(bytes: &[u8], text: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(text.chunks_exact_mut(2)) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 0x0f)];
    }
}

#[cfg(test)]
mod tests;
