//! Requests on the admin socket, without the command line in between.

use std::path::Path;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

/// One request; the status and the body, `Null` if that is no JSON.
pub(super) fn ask(
    socket: &Path,
    method: &str,
    path: &str,
    media_type: &str,
    body: &str,
) -> Result<(u16, Value)> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "weir")
        .header("content-type", media_type)
        .body(Full::new(Bytes::from(body.to_owned())))
        .context("not a request")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stream = UnixStream::connect(socket)
            .await
            .context("the admin socket is closed")?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // The request tells of what goes wrong here.
        tokio::spawn(async move { connection.await.ok() });
        let response = sender.send_request(request).await.context("no answer")?;
        let status = response.status().as_u16();
        let body = response
            .into_body()
            .collect()
            .await
            .context("the answer breaks off")?;
        Ok((
            status,
            serde_json::from_slice(&body.to_bytes()).unwrap_or_default(),
        ))
    })
}
