//! What the data plane reports: one record per request, connection, denial.
//!
//! Owns the words in which traffic is described, and with them the fields of the
//! log lines. A record borrows everything; it must never cost the proxy an
//! allocation.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// What kind of thing a destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DestinationKind {
    /// A service; the destination is its name.
    Service,
    /// Outside the mesh; the destination is the egress rule that opens it, or
    /// the address or host where none does.
    External,
}

impl DestinationKind {
    /// The label value of this kind.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::External => "external",
        }
    }
}

/// One HTTP request that was answered, by an endpoint or by weir.
///
/// A text that is not known is empty, and left out of the log line.
#[derive(Clone, Debug, Serialize)]
pub struct RequestRecord<'a> {
    /// Who asks, as metrics and graph name it: the service that the workload
    /// belongs to, else the workload.
    pub source: &'a str,
    /// The workload that asks, `namespace/name`.
    pub workload: &'a str,
    /// Who is asked: the name that [`DestinationKind`] describes.
    pub destination: &'a str,
    /// What the destination is.
    pub destination_kind: DestinationKind,
    /// The `version` label of the endpoint.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub version: &'a str,
    /// The endpoint that answered, or was tried last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// `HTTP/1.1` or `HTTP/1.0`.
    pub protocol: &'static str,
    /// The request method.
    #[serde(serialize_with = "clipped")]
    pub method: &'a str,
    /// The Host header.
    #[serde(serialize_with = "clipped")]
    pub host: &'a str,
    /// Path and query.
    #[serde(serialize_with = "clipped")]
    pub path: &'a str,
    /// The status that the client got.
    pub code: u16,
    /// Why weir itself gave that status (`no-endpoint`, `egress-default-deny`);
    /// empty: it is the endpoint's answer. Of a small, fixed set.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: &'static str,
    /// The rule that routed or opened it, `namespace/name`.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub rule: &'a str,
    /// From the whole request head to the last byte of the answer.
    #[serde(rename = "duration_ms", serialize_with = "milliseconds")]
    pub duration: Duration,
    /// Body bytes from the client.
    pub request_bytes: u64,
    /// Body bytes to the client.
    pub response_bytes: u64,
    /// Further endpoints that were tried.
    pub retries: u32,
    /// The `x-request-id` that was sent on.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub request_id: &'a str,
    /// The trace id that was sent on, as hex.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub trace_id: &'a str,
    /// Whether the access log is on for the source.
    #[serde(skip)]
    pub log: bool,
}

/// One connection whose bytes were passed through, at its end.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectionRecord<'a> {
    /// As in [`RequestRecord`].
    pub source: &'a str,
    /// As in [`RequestRecord`].
    pub workload: &'a str,
    /// As in [`RequestRecord`].
    pub destination: &'a str,
    /// As in [`RequestRecord`].
    pub destination_kind: DestinationKind,
    /// As in [`RequestRecord`].
    #[serde(skip_serializing_if = "str::is_empty")]
    pub version: &'a str,
    /// The endpoint it went to, or was to go to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// Why it did not end well (`upstream-connect-failed`); empty: it did. Of a
    /// small, fixed set.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: &'static str,
    /// The rule that routed or opened it.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub rule: &'a str,
    /// From accept to the end of both halves.
    #[serde(rename = "duration_ms", serialize_with = "milliseconds")]
    pub duration: Duration,
    /// Bytes from the client to the endpoint.
    pub sent_bytes: u64,
    /// Bytes from the endpoint to the client.
    pub received_bytes: u64,
    /// TCP's smoothed round-trip time to the endpoint, at the end; only of
    /// connections that the kernel balanced.
    #[serde(
        rename = "rtt_ms",
        skip_serializing_if = "Option::is_none",
        serialize_with = "known_milliseconds"
    )]
    pub rtt: Option<Duration>,
    /// Segments that were sent again; only where the kernel balanced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retransmits: Option<u32>,
    /// Whether the access log is on for the source.
    #[serde(skip)]
    pub log: bool,
}

/// Where a denial took place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// In `connect()`, by the kernel half, or by the proxy before any request.
    Connect,
    /// At one HTTP request.
    Request,
}

/// Something that policy refused, or would have refused.
#[derive(Clone, Debug, Serialize)]
pub struct DenialRecord<'a> {
    /// As in [`RequestRecord`].
    pub source: &'a str,
    /// As in [`RequestRecord`].
    pub workload: &'a str,
    /// What was dialled or asked for: address and port, or host name.
    #[serde(serialize_with = "clipped")]
    pub destination: &'a str,
    /// The host that a request named; empty: it came to no request.
    #[serde(skip_serializing_if = "str::is_empty", serialize_with = "clipped")]
    pub host: &'a str,
    /// The rule that said so; empty: the default did.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub rule: &'a str,
    /// Why. Of a small, fixed set.
    pub reason: &'static str,
    /// Where.
    pub stage: Stage,
}

/// One log line: a record and what it is.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Event<'a> {
    Request(&'a RequestRecord<'a>),
    Connection(&'a ConnectionRecord<'a>),
    Denial(&'a DenialRecord<'a>),
    Audit(&'a DenialRecord<'a>),
}

/// What a client wrote goes into a line up to here, in bytes.
const CLIP_MAX: usize = 1024;

fn clipped<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text[..text.floor_char_boundary(CLIP_MAX)])
}

#[expect(clippy::ref_option, reason = "serde hands over the field as it is")]
fn known_milliseconds<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => milliseconds(duration, serializer),
        None => serializer.serialize_none(),
    }
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    let micros = u32::try_from(duration.as_micros()).map_or(f64::INFINITY, f64::from);
    if micros.is_finite() {
        return serializer.serialize_f64(micros / 1000.0);
    }
    // Past an hour, fractions of a millisecond are noise.
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
