//! One thread's way into the telemetry: what the data plane calls.
//!
//! Must never wait, nor allocate for labels that it saw before.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::State;
use super::access_log::{self, Queue};
use super::allowance::Allowance;
use super::cells::{Connections, Count, Paths, Requests, Streams};
use super::record::{ConnectionRecord, DenialRecord, DestinationKind, Event, RequestRecord};
use super::series::{Handles, Key};

/// The telemetry of one thread. Not to be shared; any thread may have its own.
#[derive(Debug)]
pub struct WorkerTelemetry {
    state: Arc<State>,
    requests: Handles<Requests>,
    connections: Handles<Connections>,
    streams: Handles<Streams>,
    paths: Handles<Paths>,
    denials: Handles<Count>,
    audits: Handles<Count>,
    rejections: Handles<Count>,
    queue: Arc<Queue>,
    allowance: RefCell<Allowance>,
    line: RefCell<Vec<u8>>,
}

impl WorkerTelemetry {
    pub(super) fn new(state: Arc<State>) -> Self {
        let worker = state.workers.fetch_add(1, Ordering::Relaxed);
        Self {
            requests: Handles::new(state.requests.clone(), worker),
            connections: Handles::new(state.connections.clone(), worker),
            streams: Handles::new(state.streams.clone(), worker),
            paths: Handles::new(state.paths.clone(), worker),
            denials: Handles::new(state.denials.clone(), worker),
            audits: Handles::new(state.audits.clone(), worker),
            rejections: Handles::new(state.rejections.clone(), worker),
            queue: state.log.queue(),
            allowance: RefCell::new(Allowance::new(Instant::now())),
            line: RefCell::default(),
            state,
        }
    }

    /// A request was answered.
    pub fn request(&self, record: &RequestRecord<'_>) {
        let key = Key {
            source: record.source,
            destination: record.destination,
            external: record.destination_kind == DestinationKind::External,
            detail: record.version,
            code: record.code,
            reason: record.reason,
        };
        self.requests.with(key, |cell| {
            cell.count(
                record.duration,
                record.request_bytes,
                record.response_bytes,
                record.retries,
            );
        });
        self.emit(record.log, Event::Request(record));
    }

    /// A captured connection was accepted. It counts as active until the guard is dropped.
    pub fn connection_opened(
        &self,
        source: &str,
        destination: &str,
        kind: DestinationKind,
    ) -> OpenConnection {
        let key = Key {
            source,
            destination,
            external: kind == DestinationKind::External,
            ..Key::default()
        };
        let cell = self.connections.with(key, Arc::clone);
        cell.opened.fetch_add(1, Ordering::Relaxed);
        OpenConnection(cell)
    }

    /// A connection whose bytes were passed through has ended.
    pub fn connection_closed(&self, record: &ConnectionRecord<'_>) {
        let key = Key {
            source: record.source,
            destination: record.destination,
            external: record.destination_kind == DestinationKind::External,
            detail: record.version,
            code: 0,
            reason: record.reason,
        };
        self.streams.with(key, |cell| {
            cell.count(record.duration, record.sent_bytes, record.received_bytes);
        });
        if let Some(retransmits) = record.retransmits {
            let ends = Key {
                detail: "",
                reason: "",
                ..key
            };
            self.paths
                .with(ends, |cell| cell.count(record.rtt, retransmits));
        }
        self.emit(record.log, Event::Connection(record));
    }

    /// Policy refused something. A log line whatever the access log is, up to 200
    /// a second for each source.
    pub fn denied(&self, record: &DenialRecord<'_>) {
        self.denials.with(refused(record), |cell| add_one(&cell.0));
        self.emit(self.may_log(record), Event::Denial(record));
    }

    /// Policy would have refused something, but only audits. Logged like a denial.
    pub fn audited(&self, record: &DenialRecord<'_>) {
        self.audits.with(refused(record), |cell| add_one(&cell.0));
        self.emit(self.may_log(record), Event::Audit(record));
    }

    /// A connection came to a listener past the hooks: nobody dialled it.
    pub fn flow_missed(&self) {
        self.state.flow_misses.fetch_add(1, Ordering::Relaxed);
        self.rejected("no-flow");
    }

    /// A connection was turned away for another reason than policy (`no-flow`,
    /// `limit`, `bad-request`). The reasons are of a small, fixed set.
    pub fn rejected(&self, reason: &'static str) {
        let key = Key {
            reason,
            ..Key::default()
        };
        self.rejections.with(key, |cell| add_one(&cell.0));
    }

    /// Whether a line would be written or heard, `log` being the source's access
    /// log. What only lines need is worth keeping only then.
    pub fn wants_lines(&self, log: bool) -> bool {
        (log && self.state.log.is_on()) || self.state.tap.is_heard()
    }

    fn may_log(&self, record: &DenialRecord<'_>) -> bool {
        let mut allowance = self.allowance.borrow_mut();
        let may_log = allowance.take(record.source, Instant::now());
        if !may_log {
            self.state.log.drop_line();
        }
        may_log
    }

    fn emit(&self, log: bool, event: Event<'_>) {
        let log = log && self.state.log.is_on();
        let heard = self.state.tap.is_heard();
        if !log && !heard {
            return;
        }
        let mut line = self.line.borrow_mut();
        access_log::format(&mut line, event);
        if log {
            self.state.log.push(&self.queue, &line);
        }
        if heard {
            self.state.tap.send(&String::from_utf8_lossy(&line));
        }
    }
}

/// An accepted connection; dropping it says that it is closed.
#[derive(Debug)]
#[must_use = "dropping this says that the connection is closed"]
pub struct OpenConnection(Arc<Connections>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.closed.fetch_add(1, Ordering::Release);
    }
}

fn refused<'a>(record: &DenialRecord<'a>) -> Key<'a> {
    Key {
        source: record.source,
        destination: record.destination,
        detail: record.rule,
        reason: record.reason,
        ..Key::default()
    }
}

fn add_one(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
