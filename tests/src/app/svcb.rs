//! `svcb`: `/notify` sends the message through `msgd`, which is not in the mesh.

use anyhow::Result;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde_json::json;

use super::http::{Caller, Listen, answer, parameter};

/// Serves until SIGTERM. `msgd` is the URL of the message service.
pub async fn run(listen: Listen, msgd: String) -> Result<()> {
    let caller = Caller::new();
    let own = listen.clone();
    listen
        .serve(move |request| notify(own.clone(), caller.clone(), msgd.clone(), request))
        .await
}

async fn notify(
    own: Listen,
    caller: Caller,
    msgd: String,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let mut body = own.identity();
    if request.uri().path() != "/notify" {
        body["error"] = json!("only /notify is here");
        return answer(StatusCode::NOT_FOUND, &body);
    }
    let url = format!("{msgd}/send?msg={}", parameter(&request, "msg"));
    match caller.get(&url, request.headers()).await {
        Ok(sent) => {
            body["msgd"] = sent;
            answer(StatusCode::OK, &body)
        }
        Err(error) => {
            body["error"] = json!(format!("{error:#}"));
            answer(StatusCode::INTERNAL_SERVER_ERROR, &body)
        }
    }
}
