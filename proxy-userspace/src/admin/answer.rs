//! One request, one answer: who may ask, what the path names, and every
//! question that changes nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, LengthLimitError};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::timeout;

use super::body::gather;
use super::problem::{PROBLEM_JSON, Problem};
use super::request::{Query, Route};
use super::selector::Selector;
use super::tap::TapBody;
use super::wire::{HistoryEntry, Items, List, ListMeta, Remark, Status};
use super::{Admin, BODY_MAX, Peer, Role, write};
use crate::config::object::ObjectName;
use crate::config::{Kind, Object};
use crate::control::{ExplainQuery, View};

/// How long a client may take to send a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The body of an answer.
pub(super) type Body = BoxBody<Bytes, Infallible>;

/// An answer, or the problem that stands in its place.
pub(super) type Answer = Result<Response<Body>, Problem>;

/// Answers `request`; `peer` is `None` if it may not be here at all.
pub(super) async fn answer(
    admin: Arc<Admin>,
    peer: Option<Peer>,
    request: Request<Incoming>,
    stop: watch::Receiver<bool>,
) -> Result<Response<Body>, Infallible> {
    Ok(match admitted(&admin, peer, request, stop).await {
        Ok(response) => response,
        Err(problem) => refusal(&problem),
    })
}

async fn admitted(
    admin: &Arc<Admin>,
    peer: Option<Peer>,
    request: Request<Incoming>,
    stop: watch::Receiver<bool>,
) -> Answer {
    let forbidden = |detail| Problem::new(StatusCode::FORBIDDEN, detail);
    let peer =
        peer.ok_or_else(|| forbidden("the admin socket is for root and the daemon's own user"))?;
    let route = Route::parse(request.uri().path())?;
    let method = request.method().clone();
    if !route.methods().contains(&method) {
        return Ok(wrong_method(&route, &method));
    }
    if method != Method::GET {
        if peer.role == Role::Observer {
            return Err(forbidden(
                "this socket is read-only: changes go to the admin socket beside it",
            ));
        }
        return write::write(admin, peer, route, request).await;
    }
    let query = Query::parse(request.uri().query())?;
    match route {
        Route::List(kind) => list(&admin.control.view(), kind, query),
        Route::Object(kind, name) => object(&admin.control.view(), kind, &name, query),
        Route::History => history(admin, query).await,
        Route::Status => status(admin, query).await,
        Route::Explain => explain(admin, query).await,
        Route::Workloads => workloads(admin, query).await,
        Route::Graph => graph(admin, query),
        Route::Tap => {
            query.finish()?;
            let body = TapBody::start(admin.observations.tap(), stop);
            Ok(respond(
                StatusCode::OK,
                "application/x-ndjson",
                body.boxed(),
            ))
        }
        Route::Apply | Route::Undo | Route::Older(_) => Ok(wrong_method(&route, &method)),
    }
}

fn list(view: &View, kind: Kind, mut query: Query) -> Answer {
    let namespace = query.take("namespace")?;
    let selector: Option<Selector> = query.take_parsed("labelSelector")?;
    query.finish()?;
    let wanted = |object: &Object| {
        namespace
            .as_ref()
            .is_none_or(|namespace| object.name().namespace() == *namespace)
            && selector
                .as_ref()
                .is_none_or(|selector| selector.selects(object.labels()))
    };
    let objects = view.objects.list(kind).into_iter().filter(wanted);
    json(&List {
        api_version: "v1".to_owned(),
        kind: "List".to_owned(),
        metadata: ListMeta {
            generation: view.generation,
            revision: view.revision,
        },
        items: objects.map(|object| view.document(&object)).collect(),
    })
}

fn object(view: &View, kind: Kind, name: &ObjectName, query: Query) -> Answer {
    query.finish()?;
    let object = view.objects.get(kind, name);
    let object = object
        .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, format!("there is no {kind} {name}")))?;
    let mut response = json(&view.document(&object))?;
    if let Some(version) = view.version(kind, name)
        && let Ok(tag) = HeaderValue::from_str(&format!("\"{version}\""))
    {
        response.headers_mut().insert(ETAG, tag);
    }
    Ok(response)
}

async fn history(admin: &Admin, query: Query) -> Answer {
    query.finish()?;
    let entries = admin.control.history().await?;
    json(&Items {
        items: entries.into_iter().map(HistoryEntry::from).collect(),
    })
}

async fn status(admin: &Admin, query: Query) -> Answer {
    query.finish()?;
    let dataplane = admin.control.status().await?;
    let view = admin.control.view();
    let uptime = jiff::Timestamp::now().duration_since(admin.started_at);
    json(&Status {
        node: admin.node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started_at: admin.started_at,
        uptime_seconds: u64::try_from(uptime.as_secs()).unwrap_or(0),
        generation: view.generation,
        revision: view.revision,
        objects: Kind::ALL
            .map(|kind| (kind.to_string(), view.objects.list(kind).len()))
            .into(),
        warnings: view.warnings.iter().map(Remark::new).collect(),
        dataplane,
    })
}

async fn explain(admin: &Admin, mut query: Query) -> Answer {
    let missing = |name: &str| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            format!("the parameter {name} is missing"),
        )
    };
    let namespace = query
        .take("namespace")?
        .unwrap_or_else(|| "default".to_owned());
    let workload = query.take("workload")?.ok_or_else(|| missing("workload"))?;
    let workload = match workload.split_once('/') {
        Some((namespace, name)) => ObjectName::new(namespace, name),
        None => ObjectName::new(&namespace, &workload),
    };
    let destination = query
        .take_parsed("destination")?
        .ok_or_else(|| missing("destination"))?;
    let method = query.take("method")?;
    let path = query.take("path")?;
    let headers = query
        .take_all("header")
        .into_iter()
        .map(|line| match line.split_once(':') {
            Some((name, value)) => Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned())),
            None => Err(Problem::new(
                StatusCode::BAD_REQUEST,
                format!("header={line:?}: want NAME: VALUE"),
            )),
        });
    let headers = headers.collect::<Result<_, _>>()?;
    query.finish()?;
    json(
        &admin
            .control
            .explain(ExplainQuery {
                workload,
                destination,
                method,
                path,
                headers,
            })
            .await?,
    )
}

async fn workloads(admin: &Admin, query: Query) -> Answer {
    query.finish()?;
    json(&Items {
        items: admin.control.workloads().await?,
    })
}

fn graph(admin: &Admin, mut query: Query) -> Answer {
    let format = query.take("format")?;
    query.finish()?;
    match format.as_deref() {
        None | Some("json") => json(&admin.observations.graph_json()),
        Some("dot") => {
            let text = Full::from(admin.observations.graph_dot());
            Ok(respond(StatusCode::OK, "text/vnd.graphviz", text.boxed()))
        }
        Some(other) => {
            let detail = format!("format={other:?}: want dot or json");
            Err(Problem::new(StatusCode::BAD_REQUEST, detail))
        }
    }
}

/// Reads the whole body, within its bounds.
pub(super) async fn read_body(request: Request<Incoming>) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!(
            "the body is larger than {} MiB: apply it in parts",
            BODY_MAX >> 20
        );
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    };
    let declared = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    // Said before the first byte, so that a client which waits for 100 sends nothing.
    if declared.is_some_and(|length: u64| length > BODY_MAX as u64) {
        return Err(too_large());
    }
    match timeout(BODY_TIMEOUT, gather(request.into_body(), BODY_MAX)).await {
        Ok(Ok(body)) => Ok(body.into()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            format!("the body ended early: {error}"),
        )),
        Err(_) => {
            let detail = format!(
                "the body did not arrive within {} s",
                BODY_TIMEOUT.as_secs()
            );
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail))
        }
    }
}

/// `value` as the answer.
pub(super) fn json(value: &impl Serialize) -> Answer {
    let bytes = serde_json::to_vec(value).map_err(|error| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the answer cannot be written: {error}"),
        )
    })?;
    Ok(respond(
        StatusCode::OK,
        "application/json",
        Full::from(bytes).boxed(),
    ))
}

fn respond(status: StatusCode, media_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// The answer that a problem is.
pub(super) fn refusal(problem: &Problem) -> Response<Body> {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // A problem is strings and numbers, so it always serializes.
    let bytes = serde_json::to_vec(problem).unwrap_or_default();
    let mut response = respond(status, PROBLEM_JSON, Full::from(bytes).boxed());
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn wrong_method(route: &Route, method: &Method) -> Response<Body> {
    let allowed: Vec<&str> = route.methods().iter().map(Method::as_str).collect();
    let allowed = allowed.join(", ");
    let detail = format!("{method} does nothing here: this path takes {allowed}");
    let mut response = refusal(&Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail));
    if let Ok(allowed) = HeaderValue::from_str(&allowed) {
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}
