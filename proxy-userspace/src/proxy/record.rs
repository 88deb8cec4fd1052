//! One request, as telemetry will see it: filled in while it is served, told
//! once, when its answer is complete or dropped.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::header::HOST;
use hyper::{Request, Version};

use super::client::Head;
use super::worker::{Busy, Worker};
use crate::snapshot::{Endpoint, Source};
use crate::telemetry::trace::Trace;
use crate::telemetry::{DestinationKind, RequestRecord};

/// The protocol of a client that knows no chunks.
const OLD: &str = "HTTP/1.0";

/// Whom a connection goes to, as metrics name it.
#[derive(Clone, Debug)]
pub struct Callee {
    /// Service, egress rule, or address.
    pub label: Arc<str>,
    /// Which of them.
    pub kind: DestinationKind,
}

/// The texts of a log line; kept only if somebody wants one.
#[derive(Debug)]
struct Text {
    method: String,
    host: String,
    path: String,
    trace: Trace,
}

/// How a request's body went so far.
#[derive(Debug, Default)]
pub struct Upload {
    /// Its bytes.
    pub bytes: Cell<u64>,
    /// Whether the client broke off in it.
    pub broken: Cell<bool>,
}

/// One request on its way. Dropping it tells telemetry.
pub struct Exchange {
    busy: Busy,
    head: Arc<Head>,
    source: Arc<Source>,
    callee: Callee,
    started: Instant,
    protocol: &'static str,
    text: Option<Box<Text>>,
    /// The request's body, if it has one.
    pub upload: Option<Rc<Upload>>,
    /// Body bytes of the answer so far.
    pub response_bytes: u64,
    /// The status that the client gets.
    pub code: u16,
    /// Why weir gave that status, or why the exchange did not end well.
    pub reason: &'static str,
    /// Further tries.
    pub retries: u32,
    /// The `version` label of the endpoint.
    pub version: Option<Arc<str>>,
    /// The endpoint that was tried last.
    pub endpoint: Option<SocketAddr>,
    /// The rule that routed or opened it.
    pub rule: Option<Arc<str>>,
}

impl Exchange {
    /// A request whose head is complete.
    pub fn begin(
        worker: &Rc<Worker>,
        head: &Arc<Head>,
        source: Arc<Source>,
        callee: Callee,
        version: Version,
    ) -> Self {
        Self {
            busy: Busy::begin(worker),
            head: Arc::clone(head),
            source,
            callee,
            started: Instant::now(),
            protocol: if version == Version::HTTP_10 {
                OLD
            } else {
                "HTTP/1.1"
            },
            text: None,
            upload: None,
            response_bytes: 0,
            code: 0,
            reason: "",
            retries: 0,
            version: None,
            endpoint: None,
            rule: None,
        }
    }

    fn worker(&self) -> &Rc<Worker> {
        self.busy.worker()
    }

    /// How long it has been on its way.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether the client broke off in the request's body.
    pub fn is_broken(&self) -> bool {
        let upload = self.upload.as_ref();
        upload.is_some_and(|upload| upload.broken.get())
    }

    /// Whose request it is.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// Notes which endpoint is tried, and for which time an endpoint is.
    pub fn tried(&mut self, addr: SocketAddr, endpoint: Option<&Arc<Endpoint>>, attempt: usize) {
        self.endpoint = Some(addr);
        self.version = endpoint.map(|endpoint| Arc::clone(&endpoint.version));
        self.retries += u32::from(attempt > 0);
    }

    /// The endpoint broke off in its answer. A client of HTTP/1.0 knows an answer's
    /// end by that of the connection, which must not look like one.
    pub fn broke_off(&mut self) {
        self.reason = "upstream-failed";
        if self.protocol == OLD {
            self.head.broke();
        }
    }

    /// Whom it goes to.
    pub fn callee(&self) -> &Callee {
        &self.callee
    }

    /// Names the callee better than the address that was dialled.
    pub fn set_callee(&mut self, label: &Arc<str>) {
        self.callee.label = Arc::clone(label);
    }

    /// Keeps what a log line needs, if one will be written.
    pub fn note<B>(&mut self, request: &Request<B>, trace: Trace) {
        if !self.worker().telemetry.wants_lines(self.source.access_log) {
            return;
        }
        let host = request
            .headers()
            .get(HOST)
            .and_then(|host| host.to_str().ok());
        self.text = Some(Box::new(Text {
            method: request.method().as_str().to_owned(),
            host: host.unwrap_or_default().to_owned(),
            path: request
                .uri()
                .path_and_query()
                .map_or("", |path| path.as_str())
                .to_owned(),
            trace,
        }));
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.head.answered();
        let text = self.text.as_deref();
        self.worker().telemetry.request(&RequestRecord {
            source: &self.source.label,
            workload: &self.source.text,
            destination: &self.callee.label,
            destination_kind: self.callee.kind,
            version: self.version.as_deref().unwrap_or_default(),
            endpoint: self.endpoint,
            protocol: self.protocol,
            method: text.map_or("", |text| &text.method),
            host: text.map_or("", |text| &text.host),
            path: text.map_or("", |text| &text.path),
            code: self.code,
            reason: self.reason,
            rule: self.rule.as_deref().unwrap_or_default(),
            duration: self.elapsed(),
            request_bytes: self.upload.as_ref().map_or(0, |upload| upload.bytes.get()),
            response_bytes: self.response_bytes,
            retries: self.retries,
            request_id: text.map_or("", |text| text.trace.request_id()),
            trace_id: text.map_or("", |text| text.trace.trace_id()),
            log: self.source.access_log,
        });
    }
}
