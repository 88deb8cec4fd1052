//! `svca`: `/pay` notifies `svcb` and fails if that fails.

use anyhow::Result;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde_json::json;

use super::http::{Caller, Listen, answer, parameter};

/// Serves until SIGTERM. `svcb` is the URL of the service that is notified.
pub async fn run(listen: Listen, svcb: String) -> Result<()> {
    let caller = Caller::new();
    let own = listen.clone();
    listen
        .serve(move |request| pay(own.clone(), caller.clone(), svcb.clone(), request))
        .await
}

async fn pay(
    own: Listen,
    caller: Caller,
    svcb: String,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let mut body = own.identity();
    if request.uri().path() != "/pay" {
        body["error"] = json!("only /pay is here");
        return answer(StatusCode::NOT_FOUND, &body);
    }
    let url = format!("{svcb}/notify?msg={}", parameter(&request, "msg"));
    match caller.get(&url, request.headers()).await {
        Ok(notified) => {
            body["svcb"] = notified;
            answer(StatusCode::OK, &body)
        }
        Err(error) => {
            body["error"] = json!(format!("{error:#}"));
            answer(StatusCode::INTERNAL_SERVER_ERROR, &body)
        }
    }
}
