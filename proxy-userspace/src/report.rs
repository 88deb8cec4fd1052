//! What the kernel half reports, in the words of telemetry: denials and audits,
//! and the ends of connections that never saw the proxy.
//!
//! Must never guess: what no configuration of its time knows is `unknown`.

use std::time::Duration;

use proxy_common::{
    Destination, Ending, Event, EventKind, NetnsCookie, Outcome, Reason, ServiceKey, Transport,
    WorkloadId,
};

use crate::snapshot::{ServiceView, Snapshot, Source};
use crate::telemetry::{ConnectionRecord, DenialRecord, DestinationKind, Stage, WorkerTelemetry};

/// How long reports of the hooks are gathered before they are read: under load
/// one wake-up, which a hook pays for with microseconds, then serves many. The
/// rings hold what the hooks could report in many times as long.
pub const PAUSE: Duration = Duration::from_millis(10);

/// What a name is that nobody knows any more.
const UNKNOWN: &str = "unknown";

/// What a report may be about.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// The configuration that is in force.
    pub now: &'a Snapshot,
    /// That of the moment when the first report of those that are read together
    /// came: what it named may be gone [`PAUSE`] later.
    pub then: &'a Snapshot,
}

impl<'a> Known<'a> {
    fn find<T>(self, look: impl Fn(&'a Snapshot) -> Option<T>) -> Option<T> {
        look(self.now).or_else(|| look(self.then))
    }
}

/// One denial or audit, as a log line and a metric.
pub fn denial(reporter: &WorkerTelemetry, known: Known<'_>, event: &Event) {
    let source = known.find(|snapshot| source_of(snapshot, event.netns, event.workload));
    let rule = known.find(|snapshot| snapshot.egress.get(&event.rule));
    let destination = match event.transport() {
        Transport::Tcp => event.destination().to_string(),
        // As `weir explain` takes it.
        Transport::Udp => format!("{}/udp", event.destination()),
    };
    let record = DenialRecord {
        source: source.map_or(UNKNOWN, |source| &source.label),
        workload: source.map_or(UNKNOWN, |source| &source.text),
        destination: &destination,
        host: "",
        rule: rule.map_or("", |rule| &rule.label),
        reason: event.reason().map_or(UNKNOWN, Reason::name),
        stage: Stage::Connect,
    };
    match event.kind() {
        EventKind::Denied => reporter.denied(&record),
        EventKind::Audited => reporter.audited(&record),
    }
}

/// One balanced connect or connection that has ended, as a log line and metrics.
pub fn ending(reporter: &WorkerTelemetry, known: Known<'_>, ending: &Ending) {
    let source = known.find(|snapshot| source_of(snapshot, ending.netns, ending.workload));
    let service = known.find(|snapshot| service_of(snapshot, ending));
    let addr = ending.endpoint().map(Destination::to_socket_addr);
    let endpoint = known.find(|snapshot| {
        let mut endpoints = service_of(snapshot, ending)?.all.endpoints();
        endpoints.find(|endpoint| Some(endpoint.addr) == addr)
    });
    let rule = known.find(|snapshot| snapshot.route_rules.get(&ending.rule));
    let outcome = ending.outcome();
    let record = ConnectionRecord {
        source: source.map_or(UNKNOWN, |source| &source.label),
        workload: source.map_or(UNKNOWN, |source| &source.text),
        destination: service.map_or(UNKNOWN, |service| &service.label),
        destination_kind: DestinationKind::Service,
        version: endpoint.map_or("", |endpoint| &endpoint.version),
        endpoint: addr,
        reason: match outcome {
            Outcome::Closed => "",
            Outcome::Failed => "upstream-connect-failed",
            Outcome::NoEndpoint => "no-endpoint",
        },
        rule: rule.map_or("", AsRef::as_ref),
        duration: Duration::from_nanos(ending.duration),
        sent_bytes: ending.sent,
        received_bytes: ending.received,
        rtt: (outcome == Outcome::Closed).then(|| Duration::from_micros(ending.rtt_micros.into())),
        retransmits: addr.map(|_| ending.retransmits),
        log: source.is_some_and(|source| source.access_log),
    };
    if outcome == Outcome::Closed {
        let (from, to) = (record.source, record.destination);
        drop(reporter.connection_opened(from, to, record.destination_kind));
    }
    reporter.connection_closed(&record);
}

/// By namespace first: a report from before a restart carries the workload's
/// former number.
fn source_of(snapshot: &Snapshot, netns: NetnsCookie, number: WorkloadId) -> Option<&Source> {
    let workload = snapshot.tables.workloads.get(&netns);
    let id = workload.map_or(number, |workload| workload.id);
    snapshot.sources.get(&id).map(AsRef::as_ref)
}

/// By number, or, if that is one from before a restart, by the dialled address.
fn service_of<'a>(snapshot: &'a Snapshot, ending: &Ending) -> Option<&'a ServiceView> {
    let by_address = || {
        let network = snapshot.tables.workloads.get(&ending.netns)?.network;
        let both = [Transport::Tcp, Transport::Udp];
        let entry = both.into_iter().find_map(|transport| {
            let key = ServiceKey::new(network, ending.dialled(), transport);
            snapshot.tables.services.get(&key)
        })?;
        snapshot.services.get(&entry.service)
    };
    let by_number = snapshot.services.get(&ending.service);
    by_number.or_else(by_address).map(AsRef::as_ref)
}
