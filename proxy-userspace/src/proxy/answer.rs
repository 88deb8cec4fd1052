//! What weir itself answers: errors as problem details (RFC 9457), each with
//! the reason that logs and metrics use.

use bytes::Bytes;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use proxy_common::Reason;
use serde::Serialize;

/// Sent as it is, by the socket itself, when hyper has no request to answer.
pub const HEAD_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Why weir answers in the endpoint's place. A small, fixed set: it is a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request states its length in two ways.
    AmbiguousLength,
    /// The request names its host more than once (RFC 9112 section 3.2).
    AmbiguousHost,
    /// `CONNECT`: weir is no forward proxy.
    Connect,
    /// The body broke off or is not framed as announced.
    BrokenBody,
    /// The service is gone.
    NoService,
    /// No endpoint is ready, or none that the route's labels pick.
    NoEndpoint,
    /// No endpoint could be connected to.
    ConnectFailed,
    /// The endpoint broke off before its answer.
    UpstreamFailed,
    /// No rule opens the dialled address any more.
    EgressDenied,
    /// No rule names the host.
    HostDenied,
    /// The host's addresses do not contain the one that was dialled.
    AddressDenied,
    /// The host name could not be resolved.
    NameUnresolved,
}

impl Refusal {
    /// The reason's stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AmbiguousLength => "ambiguous-length",
            Self::AmbiguousHost => "ambiguous-host",
            Self::Connect => "connect-method",
            Self::BrokenBody => "broken-request-body",
            Self::NoService => "service-gone",
            Self::NoEndpoint => "no-endpoint",
            Self::ConnectFailed => "upstream-connect-failed",
            Self::UpstreamFailed => "upstream-failed",
            Self::EgressDenied => Reason::EgressDenied.name(),
            Self::HostDenied => "egress-host-denied",
            Self::AddressDenied => "egress-address-denied",
            Self::NameUnresolved => "egress-name-unresolved",
        }
    }

    /// The status that the client gets.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::AmbiguousLength | Self::AmbiguousHost | Self::BrokenBody => {
                StatusCode::BAD_REQUEST
            }
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoService | Self::NoEndpoint | Self::ConnectFailed => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::UpstreamFailed => StatusCode::BAD_GATEWAY,
            Self::EgressDenied | Self::HostDenied | Self::AddressDenied | Self::NameUnresolved => {
                StatusCode::FORBIDDEN
            }
        }
    }

    /// Whether policy said so.
    pub const fn is_denial(self) -> bool {
        matches!(
            self,
            Self::EgressDenied | Self::HostDenied | Self::AddressDenied | Self::NameUnresolved
        )
    }

    /// Whether the connection can carry no further request.
    pub const fn closes(self) -> bool {
        matches!(
            self,
            Self::AmbiguousLength | Self::AmbiguousHost | Self::BrokenBody | Self::Connect
        )
    }
}

#[derive(Serialize)]
struct Problem<'a> {
    title: &'a str,
    status: u16,
    detail: &'a str,
    reason: &'static str,
}

/// The answer for `refusal`; `detail` is for a person.
pub fn refuse(refusal: Refusal, detail: &str) -> Response<Bytes> {
    let status = refusal.status();
    let problem = Problem {
        title: status.canonical_reason().unwrap_or_default(),
        status: status.as_u16(),
        detail,
        reason: refusal.name(),
    };
    let body = serde_json::to_vec(&problem).expect("texts and numbers always serialise");
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    headers.insert(CONTENT_LENGTH, length);
    headers.insert("x-weir-reason", HeaderValue::from_static(refusal.name()));
    if refusal.closes() {
        headers.insert(hyper::header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
