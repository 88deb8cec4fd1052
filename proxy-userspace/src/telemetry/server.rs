//! `/metrics` and `/healthz` over HTTP.
//!
//! Must run beside the data plane, on the daemon's own runtime, and never hold
//! more than [`CONNECTIONS_MAX`] connections, nor any of them longer than
//! [`CONNECTION_TIME_MAX`].

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::{Format, Telemetry};

/// How many connections are served at a time; further ones wait in the backlog.
pub const CONNECTIONS_MAX: usize = 32;

/// How long a connection may live, however it is used.
pub const CONNECTION_TIME_MAX: Duration = Duration::from_mins(2);

/// How long a client may take to send a request head, or be idle between two.
const HEADER_TIME_MAX: Duration = Duration::from_secs(30);

/// The pause after an `accept` that failed, for want of descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whether the daemon does its work; if not, what is wrong.
pub type Health = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Serves for as long as it is polled. Call within a tokio runtime with timers and I/O.
pub async fn serve(listener: TcpListener, telemetry: Arc<Telemetry>, health: Health) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = connection(stream, telemetry.clone(), health.clone());
                tokio::spawn(async move {
                    // Either way the connection is over, and nobody is owed a word.
                    let _ = tokio::time::timeout(CONNECTION_TIME_MAX, connection).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "metrics: cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, telemetry: Arc<Telemetry>, health: Health) {
    let service = service_fn(|request| {
        let response = answer(&request, &telemetry, &health);
        async { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "metrics: a connection broke");
    }
}

fn answer(
    request: &Request<Incoming>,
    telemetry: &Telemetry,
    health: &Health,
) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if !matches!(path, "/metrics" | "/healthz") {
        return plain(StatusCode::NOT_FOUND, "there are /metrics and /healthz\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        let allow = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allow);
        return response;
    }
    if path == "/healthz" {
        return match health() {
            Ok(()) => plain(StatusCode::OK, "ok\n"),
            Err(wrong) => plain(StatusCode::SERVICE_UNAVAILABLE, wrong + "\n"),
        };
    }
    // Several Accept headers mean the same as one that joins them, but no scraper sends them.
    let accept = request
        .headers()
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok());
    let format = Format::accepted(accept);
    text(
        StatusCode::OK,
        format.content_type(),
        telemetry.metrics(format),
    )
}

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    text(status, "text/plain; charset=utf-8", body)
}

fn text(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
mod tests;
