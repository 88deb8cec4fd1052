//! What a pod sends: the first bytes of a connection, request heads, and the
//! headers that weir itself reads.

use std::cell::RefCell;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

use crate::egress::host::{Authority, Host, HostName, HostPattern};
use crate::proxy::detect::{Detected, Detector, LINE_MAX, detect};
use crate::proxy::framing::{Framing, Scan};
use crate::telemetry::trace::{Sampling, Tracer};

/// Headers of a request, at most: as many as hyper takes.
const HEADERS_MAX: usize = 100;

/// Whether a connection speaks HTTP, however its bytes are split.
pub fn first_bytes(bytes: &[u8]) {
    let whole = detect(bytes);
    let mut detector = Detector::default();
    let mut answer = Detected::NeedMore;
    for piece in bytes.chunks(bytes.first().map_or(1, |byte| usize::from(*byte).max(1))) {
        answer = detector.advance(piece);
    }
    assert_eq!(answer, whole);
    assert!(whole != Detected::NeedMore || bytes.len() < LINE_MAX);
    // Whoever is sent on to the parser is taken by it, or told what is wrong.
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    if matches!(request.parse(bytes), Ok(httparse::Status::Complete(_)))
        && request
            .method
            .is_some_and(|method| method.len() <= crate::proxy::detect::METHOD_MAX)
        && bytes.len() < LINE_MAX
        && !bytes.starts_with(b"\r")
        && !bytes.starts_with(b"\n")
    {
        assert_eq!(whole, Detected::Http1);
    }
}

/// Whether a head states two lengths: as the parser behind the look sees it.
pub fn request_head(bytes: &[u8]) {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let Ok(httparse::Status::Complete(end)) = request.parse(bytes) else {
        return scan(bytes, 1, Framing::Plain, false);
    };
    let has = |name: &str| {
        let mut names = request.headers.iter().map(|header| header.name);
        names.any(|own| own.eq_ignore_ascii_case(name))
    };
    let framing = if has("content-length") && has("transfer-encoding") {
        Framing::Ambiguous
    } else {
        Framing::Plain
    };
    for split in [1, 7, end] {
        scan(&bytes[..end], split, framing, true);
    }
    if let Some(host) = request
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("host"))
        && let Ok(text) = str::from_utf8(host.value)
    {
        authority(text);
    }
}

fn scan(bytes: &[u8], split: usize, wanted: Framing, is_head: bool) {
    let mut scan = Scan::default();
    bytes.chunks(split).for_each(|piece| scan.advance(piece));
    assert!(!is_head || scan.framing() == wanted);
}

/// A name has one spelling, and a port stays a port.
fn authority(text: &str) {
    if let Ok(Authority {
        host: Host::Name(name),
        ..
    }) = Authority::parse(text)
    {
        assert_eq!(HostName::parse(name.as_str()).as_ref(), Ok(&name));
        let own = HostPattern::parse(name.as_str()).expect("a name is a pattern");
        assert!(own.matches(&name));
    }
    let _either = HostPattern::parse(text);
}

/// Headers of tracing, one a line: a request has sound ones afterwards, whatever
/// it came with, and they are not made anew.
pub fn trace_headers(bytes: &[u8]) {
    thread_local! {
        static TRACER: RefCell<Tracer> = RefCell::new(Tracer::new(
            Sampling::new(0.5).expect("a share"),
        ));
    }
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(HEADERS_MAX) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    TRACER.with_borrow(|tracer| {
        let first = tracer.prepare(&mut headers);
        let complete = headers.clone();
        let again = tracer.prepare(&mut headers);
        assert_eq!(headers, complete);
        assert_eq!(first.trace_id(), again.trace_id());
        assert_eq!(first.request_id(), again.request_id());
    });
}
