//! The API over real sockets, with a real store and a data plane that records.

mod api;
mod bounds;
mod object;
mod writes;

use std::path::PathBuf;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderMap;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;

use super::*;
use crate::control::testing::{EGRESS, Recorder, SHOP, start};
use crate::telemetry::Tap;

/// What a test sees of the traffic.
struct Seen(broadcast::Sender<Arc<str>>);

impl Observations for Seen {
    fn tap(&self) -> Tap {
        self.0.subscribe().into()
    }

    fn graph_json(&self) -> Value {
        json!({ "edges": [] })
    }

    fn graph_dot(&self) -> String {
        "digraph weir {}\n".to_owned()
    }
}

/// A daemon's admin side, without a daemon.
pub(crate) struct Daemon {
    pub(crate) dataplane: Recorder,
    lines: broadcast::Sender<Arc<str>>,
    options: SocketOptions,
    stop: watch::Sender<bool>,
    served: JoinHandle<()>,
    _temp: tempfile::TempDir,
}

impl Daemon {
    pub(crate) async fn start() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dataplane = Recorder::default();
        let (control, _ends_with_the_sockets) = start(temp.path(), &dataplane);
        let options = SocketOptions {
            admin: temp.path().join("run/admin.sock"),
            observers: None,
        };
        let (lines, _) = broadcast::channel(16);
        let admin = Admin {
            control,
            observations: Arc::new(Seen(lines.clone())),
            node: "node-1".to_owned(),
            started_at: jiff::Timestamp::now(),
        };
        let sockets = Sockets::bind(&options).await.unwrap();
        let (stop, stopped) = watch::channel(false);
        let served = tokio::spawn(serve(sockets, Arc::new(admin), stopped));
        Self {
            dataplane,
            lines,
            options,
            stop,
            served,
            _temp: temp,
        }
    }

    /// The path of the admin socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.options.admin.clone()
    }

    async fn get(&self, target: &str) -> Reply {
        self.send("GET", target, None, "").await
    }

    async fn post(&self, target: &str, body: &str) -> Reply {
        self.send("POST", target, None, body).await
    }

    async fn send(
        &self,
        method: &str,
        target: &str,
        header: Option<(&str, &str)>,
        body: &str,
    ) -> Reply {
        Reply::read(request(&self.options.admin, method, target, header, body).await).await
    }

    async fn observe(&self, method: &str, target: &str) -> Reply {
        Reply::read(request(&self.options.observer(), method, target, None, "").await).await
    }
}

/// A whole answer.
#[derive(Debug)]
struct Reply {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Reply {
    async fn read(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let text = body.collect().await.unwrap().to_bytes();
        Self {
            status: parts.status.as_u16(),
            headers: parts.headers,
            text: String::from_utf8(text.to_vec()).unwrap(),
        }
    }

    /// The JSON of an answer with this status; an error must be problem details.
    fn json(&self, status: StatusCode) -> Value {
        assert_eq!(self.status, status.as_u16(), "{}", self.text);
        let json: Value = serde_json::from_str(&self.text).unwrap();
        let media_type = if status.is_success() {
            "application/json"
        } else {
            "application/problem+json"
        };
        assert_eq!(self.header("content-type"), media_type);
        if !status.is_success() {
            assert_eq!(json["status"], status.as_u16());
            assert_eq!(json["type"], "about:blank");
            assert!(json["detail"].is_string(), "{json}");
        }
        json
    }

    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

async fn request(
    socket: &std::path::Path,
    method: &str,
    target: &str,
    header: Option<(&str, &str)>,
    body: &str,
) -> Response<Incoming> {
    let stream = UnixStream::connect(socket).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .header("host", "weir");
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
    sender
        .send_request(request.body(body).unwrap())
        .await
        .unwrap()
}

/// A daemon with the shop in force.
async fn shop() -> Daemon {
    let daemon = Daemon::start().await;
    daemon.post("/v1/apply", SHOP).await.json(StatusCode::OK);
    daemon
}

/// Name and change of each object of a receipt.
fn changes(receipt: &Value) -> Vec<(&str, &str)> {
    fn pair(object: &Value) -> (&str, &str) {
        let text = |key| object[key].as_str().unwrap();
        (text("name"), text("change"))
    }
    let objects = receipt["objects"].as_array().unwrap();
    objects.iter().map(pair).collect()
}
