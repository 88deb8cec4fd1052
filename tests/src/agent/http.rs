//! HTTP requests of an agent, on connections whose every use is known.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::proto::{Fault, HttpReply, HttpRequest};
use crate::patience::patiently;

/// Requests one after the other on one fresh connection.
pub(super) fn exchange(
    addr: SocketAddr,
    requests: &[HttpRequest],
    timeout_ms: u64,
) -> Result<Vec<HttpReply>, Fault> {
    runtime()?.block_on(async {
        let all = async {
            let mut sender = connect(addr).await?;
            let mut replies = Vec::new();
            for request in requests {
                replies.push(send(&mut sender, request).await?);
            }
            Ok(replies)
        };
        let limit = patiently(Duration::from_millis(timeout_ms));
        tokio::time::timeout(limit, all)
            .await
            .map_err(|_| Fault::other("no answer in time"))?
    })
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Fault> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

/// A connection; its driver runs until both sides are done.
pub(super) async fn connect(addr: SocketAddr) -> Result<SendRequest<Full<Bytes>>, Fault> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| fault(&error))?;
    tokio::spawn(async move {
        // The request that a broken connection carried tells of it.
        let _: Result<(), hyper::Error> = connection.await;
    });
    Ok(sender)
}

pub(super) async fn send(
    sender: &mut SendRequest<Full<Bytes>>,
    request: &HttpRequest,
) -> Result<HttpReply, Fault> {
    sender.ready().await.map_err(|error| fault(&error))?;
    let response = sender
        .send_request(build(request)?)
        .await
        .map_err(|error| fault(&error))?;
    read(response).await
}

fn build(request: &HttpRequest) -> Result<Request<Full<Bytes>>, Fault> {
    let mut builder = Request::builder()
        .method(request.method.as_str())
        .uri(request.path.as_str())
        .header("host", &request.host);
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    builder
        .body(Full::new(Bytes::from(request.body.clone())))
        .map_err(Fault::other)
}

async fn read(response: hyper::Response<Incoming>) -> Result<HttpReply, Fault> {
    let status = response.status().as_u16();
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect();
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(|error| fault(&error))?
        .to_bytes();
    Ok(HttpReply {
        status,
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

/// hyper's error with its cause, and the kernel's number if there is one below it.
pub(super) fn fault(error: &hyper::Error) -> Fault {
    let mut what = error.to_string();
    let mut errno = None;
    let mut cause = std::error::Error::source(error);
    while let Some(below) = cause {
        what = format!("{what}: {below}");
        errno = errno.or(below
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::raw_os_error));
        cause = below.source();
    }
    Fault { errno, what }
}
