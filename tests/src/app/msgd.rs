//! `msgd`: takes messages. It stands outside the mesh.

use anyhow::Result;
use hyper::StatusCode;
use serde_json::json;

use super::http::{Listen, answer, parameter};

/// Serves until SIGTERM.
pub async fn run(listen: Listen) -> Result<()> {
    let own = listen.clone();
    listen
        .serve(move |request| {
            let mut body = own.identity();
            let status = if request.uri().path() == "/send" {
                body["delivered"] = json!(parameter(&request, "msg"));
                StatusCode::OK
            } else {
                body["error"] = json!("only /send is here");
                StatusCode::NOT_FOUND
            };
            async move { answer(status, &body) }
        })
        .await
}
