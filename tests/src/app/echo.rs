//! An HTTP server that tells what it got, for tests.
//!
//! `/status/N` answers with that status, `/delay/MS` after a while, `/bytes/N`
//! with a body of that many bytes, `/close` and closes; every answer names the
//! pod and the version, and what arrived.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;

use super::http;

/// Serves until SIGTERM.
pub async fn serve(listener: std::net::TcpListener, pod: String, version: String) -> Result<()> {
    let listener = TcpListener::from_std(listener).context("cannot serve a listener")?;
    http::serve(listener, move |request| {
        echo(pod.clone(), version.clone(), request)
    })
    .await
}

async fn echo(pod: String, version: String, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let (what, argument) = path
        .trim_start_matches('/')
        .split_once('/')
        .unwrap_or((&path, ""));
    let number = argument.parse::<u32>().unwrap_or_default();
    let status = match what {
        "status" => u16::try_from(number)
            .ok()
            .and_then(|code| StatusCode::from_u16(code).ok()),
        _ => None,
    };
    if what == "delay" {
        tokio::time::sleep(Duration::from_millis(number.into())).await;
    }
    let headers: BTreeMap<String, String> = request
        .headers()
        .iter()
        .map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect();
    let peer = request
        .extensions()
        .get::<http::Peer>()
        .map(|peer| peer.0.to_string());
    let mut body = json!({
        "peer": peer,
        "pod": pod, "version": version, "method": request.method().as_str(),
        "uri": request.uri().to_string(), "headers": headers,
    });
    let received = match request.into_body().collect().await {
        Ok(received) => received.to_bytes(),
        Err(error) => {
            return http::answer(
                StatusCode::BAD_REQUEST,
                &json!({ "error": error.to_string() }),
            );
        }
    };
    body["body"] = json!(String::from_utf8_lossy(&received));
    let mut response = http::answer(status.unwrap_or(StatusCode::OK), &body);
    if what == "bytes" {
        let len = usize::try_from(number).unwrap_or_default();
        *response.body_mut() = Full::new(Bytes::from(vec![b'x'; len]));
    }
    if what == "close" || path == "/close" {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
