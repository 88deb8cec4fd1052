//! What the applications share: serving, calling, answering in JSON.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// The headers that an application passes on, for traces to hold together.
const TRACE_HEADERS: [&str; 9] = [
    "x-request-id",
    "traceparent",
    "tracestate",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
];

/// Who an application is and where it listens.
#[derive(Clone, Debug, clap::Args)]
pub struct Listen {
    /// The address and port to listen on.
    #[arg(long)]
    pub listen: SocketAddr,
    /// The `pod` of its answers.
    #[arg(long)]
    pub pod: String,
    /// The `version` of its answers.
    #[arg(long, default_value = "v0.1")]
    pub version: String,
}

impl Listen {
    /// An answer's members that say who gave it.
    pub(super) fn identity(&self) -> Value {
        json!({ "pod": self.pod, "version": self.version })
    }

    /// Serves until SIGTERM, then finishes what is in flight.
    pub(super) async fn serve<H, F>(&self, handler: H) -> Result<()>
    where
        H: Fn(Request<Incoming>) -> F + Clone + 'static,
        F: Future<Output = Response<Full<Bytes>>> + 'static,
    {
        let listener = TcpListener::bind(self.listen)
            .await
            .with_context(|| format!("cannot listen on {}", self.listen))?;
        serve(listener, handler).await
    }
}

pub(super) async fn serve<H, F>(listener: TcpListener, handler: H) -> Result<()>
where
    H: Fn(Request<Incoming>) -> F + Clone + 'static,
    F: Future<Output = Response<Full<Bytes>>> + 'static,
{
    let mut term = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut term = pin!(term.recv());
    let open = GracefulShutdown::new();
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            loop {
                let (stream, peer) = tokio::select! {
                    accepted = listener.accept() => accepted.context("cannot accept")?,
                    _ = &mut term => break,
                };
                let handler = handler.clone();
                let service = service_fn(move |mut request: Request<Incoming>| {
                    request.extensions_mut().insert(Peer(peer));
                    let answer = handler(request);
                    async move { Ok::<_, std::convert::Infallible>(answer.await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), service);
                let connection = open.watch(connection);
                tokio::task::spawn_local(async move {
                    // A client that goes away is its own affair.
                    let _: Result<(), hyper::Error> = connection.await;
                });
            }
            drop(listener);
            open.shutdown().await;
            Ok(())
        })
        .await
}

/// Who is at the other end of the connection that a request came on.
#[derive(Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// A client that keeps its connections, as applications do.
#[derive(Clone)]
pub(super) struct Caller(Client<HttpConnector, Full<Bytes>>);

impl Caller {
    pub(super) fn new() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }

    /// GETs `url` with the trace headers of `incoming`; the answer's body if it is 2xx.
    pub(super) async fn get(&self, url: &str, incoming: &HeaderMap) -> Result<Value> {
        let mut request = Request::get(url)
            .body(Full::default())
            .context("not a URL")?;
        for name in TRACE_HEADERS.map(HeaderName::from_static) {
            if let Some(value) = incoming.get(&name) {
                request.headers_mut().insert(name, value.clone());
            }
        }
        let response = self
            .0
            .request(request)
            .await
            .with_context(|| format!("GET {url}"))?;
        let status = response.status();
        let body = response
            .into_body()
            .collect()
            .await
            .context("the answer breaks off")?
            .to_bytes();
        if !status.is_success() {
            anyhow::bail!(
                "GET {url}: {status}: {}",
                String::from_utf8_lossy(&body).trim()
            );
        }
        serde_json::from_slice(&body).with_context(|| format!("GET {url}: the answer is no JSON"))
    }
}

/// A JSON answer.
pub(super) fn answer(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *response.status_mut() = status;
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// The value of a query parameter, percent-decoding left out; empty if absent.
pub(super) fn parameter(request: &Request<Incoming>, name: &str) -> String {
    let query = request.uri().query().unwrap_or_default();
    let pair = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name);
    pair.map(|(_, value)| value.to_owned()).unwrap_or_default()
}
