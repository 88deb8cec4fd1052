//! One captured connection, from accept to its end: read top-down.
//!
//! 1. the flow that `sock_ops` left on the accepted socket says who dialled
//!    whom; without one the connection came past the hooks and is reset
//! 2. a place among the pod's connections, or a reset
//! 3. whom it goes to: a service, or an external address that a rule let through
//! 4. as HTTP, request by request, or as bytes; if the port does not say, the
//!    first bytes do
//!
//! Must never guess a destination, and must give every connection an end.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proxy_common::{Flow, Reason, ServiceId};
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use super::answer::HEAD_TIMEOUT;
use super::http::{self, Callees};
use super::pump::{End, Moved, pump, write_all};
use super::record::Callee;
use super::sniff::{Sniffed, http_prefix, sniff};
use super::upstream::connect;
use super::worker::{Busy, Worker};
use crate::config::object::AppProtocol;
use crate::node::Admission;
use crate::snapshot::{CANARY, Endpoint, ServiceView, Snapshot, Source};
use crate::socket::{Reach, reset_on_close};
use crate::telemetry::{ConnectionRecord, DenialRecord, DestinationKind, OpenConnection, Stage};

/// Endpoints that one connection or request tries at most.
pub const ATTEMPTS_MAX: usize = 8;

/// How long finding an endpoint that accepts may take in all.
pub const CONNECT_BUDGET: Duration = Duration::from_secs(10);

/// A captured connection: who dials, from where, and its place.
pub struct Captured {
    /// The worker that serves it.
    pub worker: Rc<Worker>,
    /// What `connect()` decided.
    pub flow: Flow,
    /// Who dialled, as of the accept.
    pub source: Arc<Source>,
    /// The pod's address that was dialled from.
    pub from: IpAddr,
    /// When it was accepted.
    pub accepted: Instant,
    admission: Admission,
}

impl Captured {
    /// The pod.
    pub fn pod(&self) -> &crate::node::Pod {
        self.admission.pod()
    }

    /// The pod's address that a connection to `to` is opened from: the one that
    /// was dialled from, or, where `to` cannot be reached from that (it is of the
    /// other family, or link-local), the pod's first of the family. `None`: the
    /// pod has none.
    pub fn source_for(&self, to: SocketAddr) -> Option<IpAddr> {
        let link_local = matches!(self.from, IpAddr::V6(ip) if ip.is_unicast_link_local());
        if self.from.is_ipv4() == to.is_ipv4() && !link_local {
            Some(self.from)
        } else {
            self.pod().face(to.ip())
        }
    }

    /// Tells telemetry of a connection of bytes that is over.
    pub fn tell(&self, carried: &Carried<'_>) {
        self.worker.telemetry.connection_closed(&ConnectionRecord {
            source: &self.source.label,
            workload: &self.source.text,
            destination: &carried.callee.label,
            destination_kind: carried.callee.kind,
            version: carried.version,
            endpoint: carried.endpoint,
            reason: carried.reason,
            rule: carried.rule,
            duration: carried.since.elapsed(),
            sent_bytes: carried.moved.sent.get(),
            received_bytes: carried.moved.received.get(),
            rtt: None,
            retransmits: None,
            log: self.source.access_log,
        });
    }

    /// Opens a connection from the pod.
    pub async fn connect(&self, to: SocketAddr, reach: Reach) -> io::Result<TcpStream> {
        let from = self.source_for(to).ok_or_else(|| {
            let family = if to.is_ipv4() { "IPv4" } else { "IPv6" };
            let pod = &self.source.text;
            io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                format!("{pod} has no {family} address to reach it from"),
            )
        })?;
        connect(self.pod(), &self.worker.home, from, to, reach).await
    }
}

/// How the bytes of a connection went.
pub struct Carried<'a> {
    /// To whom.
    pub callee: &'a Callee,
    /// The endpoint, if there was one.
    pub endpoint: Option<SocketAddr>,
    /// Its `version` label.
    pub version: &'a str,
    /// The rule that chose it.
    pub rule: &'a str,
    /// Why it did not end well; else empty.
    pub reason: &'static str,
    /// When it began.
    pub since: Instant,
    /// How many went which way.
    pub moved: &'a Moved,
}

/// Serves one accepted connection to its end.
pub async fn serve(
    worker: Rc<Worker>,
    client: TcpStream,
    peer: SocketAddr,
    admission: Option<Admission>,
) {
    let flow = worker.flows.of(&client);
    #[cfg(feature = "redirect")]
    let flow = flow.or_else(|| super::redirect::flow(&worker, admission.as_ref()?.pod(), &client));
    let Some(flow) = flow else {
        worker.telemetry.flow_missed();
        return reset_on_close(&client);
    };
    let Some(admission) = admission else {
        return turn_away(&worker, &client, "limit");
    };
    let snapshot = worker.snapshot.load_full();
    let Some(source) = snapshot.caller(flow.workload).map(Arc::clone) else {
        return turn_away(&worker, &client, "unknown-workload");
    };
    if flow.service == CANARY {
        return canary(&client).await;
    }
    let from = peer.ip();
    let captured = Captured {
        worker,
        flow,
        source,
        from,
        accepted: Instant::now(),
        admission,
    };
    if flow.service == ServiceId::NONE {
        return to_external(captured, client, &snapshot).await;
    }
    match snapshot.services.get(&flow.service).map(Arc::clone) {
        Some(service) => to_service(captured, client, service).await,
        None => turn_away(&captured.worker, &client, "service-gone"),
    }
}

/// RST, and a counter that says why.
fn turn_away(worker: &Worker, client: &TcpStream, reason: &'static str) {
    worker.telemetry.rejected(reason);
    reset_on_close(client);
}

/// Tells weir's own canary that it was captured, and came all the way.
async fn canary(client: &TcpStream) {
    // A canary that is gone already has its answer.
    let _gone = write_all(client, b"weir\n").await;
}

/// A service port: by its protocol, or by what the first bytes are.
async fn to_service(captured: Captured, client: TcpStream, service: Arc<ServiceView>) {
    let callee = Callee {
        label: Arc::clone(&service.label),
        kind: DestinationKind::Service,
    };
    let open = opened(&captured, &callee);
    let sniffed = match service.protocol {
        AppProtocol::Http => Ok(Sniffed::Http {
            prefix: Bytes::new(),
        }),
        // Of UDP nothing comes here.
        AppProtocol::Tcp | AppProtocol::Udp => Ok(Sniffed::Bytes {
            prefix: Bytes::new(),
            upstream: None,
        }),
        AppProtocol::Detect => {
            let learned = &captured.worker.server_first;
            let patience = captured.source.header_timeout;
            sniff(&client, service.id, learned, patience, async || {
                dial(&captured, &service).await
            })
            .await
        }
    };
    match sniffed {
        Ok(Sniffed::Http { prefix }) => {
            as_http(
                captured,
                client,
                prefix,
                Callees::Service(service.id),
                callee,
                open,
            );
        }
        Ok(Sniffed::Bytes { prefix, upstream }) => {
            let dialled = match upstream {
                Some(dialled) => Ok(dialled),
                None => dial(&captured, &service).await,
            };
            as_bytes(&captured, client, prefix, dialled, &callee).await;
        }
        Ok(Sniffed::Slow) => {
            captured.worker.telemetry.rejected("header-timeout");
            // A client that reads nothing either gets only the close.
            let _unsent = client.try_write(HEAD_TIMEOUT);
        }
        Err(error) => as_bytes(&captured, client, Bytes::new(), Err(error), &callee).await,
    }
}

/// Requests, in a task of their own: what was needed to get here is large, and
/// an idle connection should not keep it.
fn as_http(
    captured: Captured,
    client: TcpStream,
    prefix: Bytes,
    callees: Callees,
    callee: Callee,
    open: OpenConnection,
) {
    spawn_local(http::serve(captured, client, prefix, callees, callee, open));
}

/// A connected endpoint, and the rule that chose it.
struct Dialled {
    stream: TcpStream,
    endpoint: Arc<Endpoint>,
    rule: Option<Arc<str>>,
}

impl AsRef<TcpStream> for Dialled {
    fn as_ref(&self) -> &TcpStream {
        &self.stream
    }
}

/// Connects to the endpoint whose turn it is, or, since nothing was sent yet,
/// to one of the others.
async fn dial(captured: &Captured, service: &ServiceView) -> io::Result<Dialled> {
    let pick = service.pick(&captured.source, None, &captured.flow.addr);
    let mut last = io::Error::new(io::ErrorKind::ConnectionRefused, "no endpoint is ready");
    for attempt in 0..ATTEMPTS_MAX {
        let Some(endpoint) = pick.endpoint(attempt) else {
            break;
        };
        match captured.connect(endpoint.addr, endpoint.reach).await {
            Ok(stream) => {
                let rule = pick.rule.map(|rule| Arc::clone(&rule.label));
                return Ok(Dialled {
                    stream,
                    endpoint: Arc::clone(endpoint),
                    rule,
                });
            }
            Err(error) => last = error,
        }
        if captured.accepted.elapsed() > CONNECT_BUDGET {
            break;
        }
    }
    Err(last)
}

/// Bytes, both ways, to the end; a client whose endpoint cannot be had is reset.
async fn as_bytes(
    captured: &Captured,
    client: TcpStream,
    prefix: Bytes,
    dialled: io::Result<Dialled>,
    callee: &Callee,
) {
    let _busy = Busy::begin(&captured.worker);
    let moved = Moved::default();
    let (endpoint, rule, reason) = match dialled {
        Err(error) => {
            tracing::debug!(workload = %captured.source.text, destination = %callee.label, %error, "no endpoint");
            reset_on_close(&client);
            drop(client);
            (None, None, "upstream-connect-failed")
        }
        Ok(Dialled {
            stream,
            endpoint,
            rule,
        }) => {
            let client = End {
                socket: client,
                read: prefix,
            };
            let ended = pump(client, End::from(stream), &moved).await;
            (
                Some(endpoint),
                rule,
                if ended.is_err() { "reset" } else { "" },
            )
        }
    };
    captured.tell(&Carried {
        callee,
        endpoint: endpoint.as_ref().map(|endpoint| endpoint.addr),
        version: endpoint.as_ref().map_or("", |endpoint| &endpoint.version),
        rule: rule.as_deref().unwrap_or_default(),
        reason,
        since: captured.accepted,
        moved: &moved,
    });
}

/// An external destination that only HTTP may reach: what is no HTTP is reset,
/// and what comes too slowly to tell is too.
async fn to_external(captured: Captured, client: TcpStream, snapshot: &Snapshot) {
    let rule = snapshot.egress.get(&captured.flow.rule).map(Arc::clone);
    let by_name = captured.flow.reason == Reason::EgressByName as u8;
    let address = captured.flow.destination().to_string();
    let label = match &rule {
        Some(rule) if !by_name => Arc::clone(&rule.label),
        _ => address.as_str().into(),
    };
    let callee = Callee {
        label,
        kind: DestinationKind::External,
    };
    let open = opened(&captured, &callee);
    let Ok(prefix) = http_prefix(&client, captured.source.header_timeout).await else {
        let rule = rule.filter(|_| !by_name);
        captured.worker.telemetry.denied(&DenialRecord {
            source: &captured.source.label,
            workload: &captured.source.text,
            destination: &address,
            host: "",
            rule: rule.as_ref().map_or("", |rule| &rule.label),
            reason: "not-http",
            stage: Stage::Connect,
        });
        return reset_on_close(&client);
    };
    as_http(
        captured,
        client,
        prefix,
        Callees::External(Cell::default()),
        callee,
        open,
    );
}

fn opened(captured: &Captured, callee: &Callee) -> OpenConnection {
    let telemetry = &captured.worker.telemetry;
    telemetry.connection_opened(&captured.source.label, &callee.label, callee.kind)
}
