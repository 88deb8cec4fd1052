//! HTTP/1.1, request by request.
//!
//! hyper speaks the protocol on both sides; this decides, for each request by
//! the snapshot of that moment, whether and where it goes. A request is sent
//! again only if nothing of it was sent, or if it is safe to repeat and the
//! connection it went to had been idle (it was closing while we wrote). Must
//! never open an upstream connection from an address of another pod.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, Version};
use hyper_util::rt::TokioIo;
use proxy_common::{Decision, Reason, ServiceId, Transport, Verdict, decide};
use tokio::net::TcpStream;

use super::answer::{Refusal, refuse};
use super::body::{AnswerBody, RequestBody};
use super::client::{Client, Head};
use super::connection::Captured;
use super::forward::{Place, Ways};
use super::framing::Framing;
use super::hops;
use super::record::{Callee, Exchange};
use crate::egress::host::{Authority, Host, HostName};
use crate::snapshot::{self, EgressView, Snapshot, Source};
use crate::telemetry::{DenialRecord, OpenConnection, Stage};

/// Bytes of a request head; more is answered with 431, as are more header lines
/// than 100. That is hyper's own bound: with another one it would allocate twice
/// for each head.
const HEAD_MAX: usize = 64 * 1024;

/// Whom the requests of a connection may go to.
pub enum Callees {
    /// The endpoints of this service.
    Service(ServiceId),
    /// The dialled address, as far as egress policy allows. Holds the last
    /// decision, and the numbers of the configuration that it was made in.
    External(Cell<Option<(u64, u64, Decision)>>),
}

/// What all requests of one connection share.
pub struct Connection {
    /// Who dialled.
    pub captured: Captured,
    callees: Callees,
    callee: Callee,
    head: Arc<Head>,
    /// Counts it as open, also after it has left HTTP.
    _open: OpenConnection,
}

/// One request on its way to its answer.
type Answering = dyn Future<Output = Result<Response<AnswerBody>, hyper::Error>>;

/// Serves the requests of one connection until it ends.
pub async fn serve(
    captured: Captured,
    client: TcpStream,
    prefix: Bytes,
    callees: Callees,
    callee: Callee,
    open: OpenConnection,
) {
    let head = Arc::new(Head::default());
    let worker = Rc::clone(&captured.worker);
    worker.heads.watch(&head, captured.source.header_timeout);
    let io = TokioIo::new(Client::new(client, prefix, Arc::clone(&head)));
    let connection = Rc::new(Connection {
        captured,
        callees,
        callee,
        head,
        _open: open,
    });
    let service = service_fn(move |request| Rc::clone(&connection).answer(request));
    let served = http1::Builder::new()
        .half_close(true)
        .max_header_size(HEAD_MAX)
        .auto_date_header(false)
        .serve_connection(io, service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        if error.is_parse_too_large() {
            worker.telemetry.rejected("header-too-large");
        } else if error.is_parse() {
            worker.telemetry.rejected("bad-request");
        } else if is_timeout(&error) {
            worker.telemetry.rejected("header-timeout");
        }
    }
}

fn is_timeout(error: &hyper::Error) -> bool {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<io::Error>())
        .is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

impl Connection {
    /// Answers one request: always with something.
    ///
    /// In a box: hyper keeps room for what this returns as long as the
    /// connection lives, and an idle one should not pay for it. All that need
    /// not wait comes before the box, which every request pays for.
    fn answer(self: Rc<Self>, mut request: Request<Incoming>) -> Pin<Box<Answering>> {
        let framing = self
            .head
            .complete(!hyper::body::Body::is_end_stream(request.body()));
        let worker = &self.captured.worker;
        let snapshot = worker.snapshot();
        // A source that was unenrolled since keeps what its connection was accepted with.
        let source = snapshot
            .sources
            .get(&self.captured.flow.workload)
            .unwrap_or(&self.captured.source);
        let mut exchange = Box::new(Exchange::begin(
            worker,
            &self.head,
            Arc::clone(source),
            self.callee.clone(),
            request.version(),
        ));
        let checked = check(framing, &request);
        hops::settle_host(&mut request, self.captured.flow.destination());
        let trace = worker.tracer.prepare(request.headers_mut());
        exchange.note(&request, trace);
        let upgrade = hops::upgrade(&mut request);
        // As the endpoint gets it, whatever the client spoke.
        *request.version_mut() = Version::HTTP_11;
        let body = |body| RequestBody::new(body, Arc::clone(&self.head), &mut exchange);
        let mut place = Place::new(request.map(body));
        Box::pin(async move {
            if let Err((refusal, detail)) = checked {
                return Ok(refused(exchange, refusal, &detail));
            }
            let ways = match self.ways(&snapshot, place.request(), &mut exchange) {
                Ok(Some(ways)) => Ok(ways),
                Ok(None) => Box::pin(self.by_name(place.request(), &mut exchange)).await,
                Err(refused) => Err(refused),
            };
            let ways = match ways {
                Ok(ways) => ways,
                Err((refusal, detail)) => {
                    self.tell_denial(&exchange, view(place.request()).authority, refusal);
                    return Ok(refused(exchange, refusal, &detail));
                }
            };
            let sent = match upgrade {
                None => self.forward(&ways, &mut place, &mut exchange).await,
                Some(upgrade) => {
                    let this = Rc::clone(&self);
                    Box::pin(this.upgrade(&ways, &mut place, upgrade, &mut exchange)).await
                }
            };
            match sent {
                Ok((response, lease)) => {
                    exchange.code = response.status().as_u16();
                    Ok(response.map(|body| AnswerBody::upstream(body, lease, exchange)))
                }
                Err((refusal, detail)) => Ok(refused(exchange, refusal, &detail)),
            }
        })
    }

    /// Where a request may go, or why it may not. `None`: its host name decides.
    fn ways<'a>(
        &self,
        snapshot: &'a Snapshot,
        request: &Request<RequestBody>,
        exchange: &mut Exchange,
    ) -> Result<Option<Ways<'a>>, (Refusal, String)> {
        match &self.callees {
            Callees::Service(id) => {
                let service = snapshot.services.get(id);
                let service = service.ok_or_else(|| {
                    (Refusal::NoService, format!("{} is gone", self.callee.label))
                })?;
                let dialled = &self.captured.flow.addr;
                let pick = service.pick(exchange.source(), Some(&view(request)), dialled);
                exchange.rule = pick.rule.map(|rule| Arc::clone(&rule.label));
                if pick.endpoint(0).is_none() {
                    return Err((Refusal::NoEndpoint, no_endpoint(&pick, &service.label)));
                }
                Ok(Some(Ways::Picked(pick)))
            }
            Callees::External(last) => {
                let dialled = self.captured.flow.destination().to_socket_addr();
                match self.decision(last, snapshot, exchange.source()) {
                    Decision {
                        verdict: Verdict::Deny,
                        ..
                    } => Err((
                        Refusal::EgressDenied,
                        format!("no egress rule allows {dialled} any more"),
                    )),
                    Decision {
                        reason: Reason::EgressByName,
                        ..
                    } => Ok(None),
                    Decision { rule, .. } => {
                        exchange.rule = snapshot
                            .egress
                            .get(&rule)
                            .map(|rule| Arc::clone(&rule.label));
                        Ok(Some(Ways::Dialled(dialled)))
                    }
                }
            }
        }
    }

    /// What policy says of the dialled address now: the rule that opened the
    /// connection may be another one by this time, or gone.
    fn decision(
        &self,
        last: &Cell<Option<(u64, u64, Decision)>>,
        snapshot: &Snapshot,
        source: &Source,
    ) -> Decision {
        if let Some((generation, revision, decision)) = last.get()
            && (generation, revision) == (snapshot.generation, snapshot.revision)
        {
            return decision;
        }
        let netns = source.pod.netns().cookie();
        let decision = match snapshot.tables.workloads.get(&netns) {
            Some(workload) => decide(
                &snapshot.tables,
                workload,
                netns,
                Transport::Tcp,
                self.captured.flow.destination(),
            ),
            // Unenrolled since: nobody asks weir any more.
            None => Decision::plain(Verdict::Direct, Reason::EgressAllowed),
        };
        last.set(Some((snapshot.generation, snapshot.revision, decision)));
        decision
    }

    /// Allows a request only if a rule names its host, and the host's addresses
    /// contain the one that was dialled.
    async fn by_name<'a>(
        &self,
        request: &Request<RequestBody>,
        exchange: &mut Exchange,
    ) -> Result<Ways<'a>, (Refusal, String)> {
        let source = Arc::clone(exchange.source());
        let dialled = self.captured.flow.destination().to_socket_addr();
        let header = request
            .headers()
            .get(HOST)
            .and_then(|host| host.to_str().ok())
            .unwrap_or_default();
        let named = match Authority::parse(header) {
            Ok(Authority {
                host: Host::Name(name),
                ..
            }) => Some(name),
            _ => None,
        };
        let port = self.captured.flow.port;
        let allows = |rule: &&Arc<EgressView>, name: &HostName| {
            rule.ports.contains(&port)
                && rule.hosts.as_ref().is_some_and(|hosts| hosts.matches(name))
        };
        let rule = named
            .as_ref()
            .and_then(|name| source.hosts.iter().find(|rule| allows(rule, name)));
        let (Some(name), Some(rule)) = (named, rule) else {
            return Err((
                Refusal::HostDenied,
                format!("no egress rule allows {header:?} on {dialled}"),
            ));
        };
        exchange.set_callee(&rule.label);
        exchange.rule = Some(Arc::clone(&rule.label));
        match self
            .captured
            .worker
            .names
            .contains(&name, dialled.ip())
            .await
        {
            Ok(true) => Ok(Ways::Dialled(dialled)),
            Ok(false) => Err((
                Refusal::AddressDenied,
                format!("{name} does not resolve to {}", dialled.ip()),
            )),
            Err(error) => Err((Refusal::NameUnresolved, format!("{name}: {error}"))),
        }
    }

    /// A refusal that policy asked for gets a line and a metric of its own.
    fn tell_denial(&self, exchange: &Exchange, host: &str, refusal: Refusal) {
        if !refusal.is_denial() {
            return;
        }
        let destination = self.captured.flow.destination().to_string();
        self.captured.worker.telemetry.denied(&DenialRecord {
            source: &exchange.source().label,
            workload: &exchange.source().text,
            destination: &destination,
            host,
            rule: exchange.rule.as_deref().unwrap_or_default(),
            reason: refusal.name(),
            stage: Stage::Request,
        });
    }
}

/// weir's own answer.
fn refused(mut exchange: Box<Exchange>, refusal: Refusal, detail: &str) -> Response<AnswerBody> {
    exchange.code = refusal.status().as_u16();
    exchange.reason = refusal.name();
    refuse(refusal, detail).map(|bytes| AnswerBody::own(bytes, exchange))
}

/// What weir refuses whoever it is for.
fn check(framing: Framing, request: &Request<Incoming>) -> Result<(), (Refusal, String)> {
    let chunked = request
        .headers()
        .contains_key(hyper::header::TRANSFER_ENCODING);
    if chunked && framing != Framing::Plain {
        return Err((
            Refusal::AmbiguousLength,
            "a request may state its length by Content-Length or by Transfer-Encoding, not by both"
                .into(),
        ));
    }
    if request.headers().get_all(HOST).iter().nth(1).is_some() {
        return Err((
            Refusal::AmbiguousHost,
            "a request names its host once".into(),
        ));
    }
    if request.method() == Method::CONNECT {
        return Err((
            Refusal::Connect,
            "weir is no forward proxy: connect to the destination itself".into(),
        ));
    }
    Ok(())
}

/// What route rules look at.
fn view<B>(request: &Request<B>) -> snapshot::Request<'_> {
    let headers = request.headers();
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    snapshot::Request {
        method: request.method().as_str(),
        uri: request
            .uri()
            .path_and_query()
            .map_or("/", |path| path.as_str()),
        authority: host
            .or_else(|| {
                request
                    .uri()
                    .authority()
                    .map(hyper::http::uri::Authority::as_str)
            })
            .unwrap_or_default(),
        headers,
    }
}

fn no_endpoint(pick: &snapshot::Pick<'_>, service: &str) -> String {
    match pick.rule {
        None => format!("{service} has no ready endpoint"),
        Some(rule) => format!(
            "{service} has no ready endpoint with the labels {:?} that {} asks for",
            pick.subset.labels, rule.label
        ),
    }
}
