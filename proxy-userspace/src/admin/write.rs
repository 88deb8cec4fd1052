//! The requests that change something: from HTTP to one call of the writer,
//! and from its result to a receipt or a problem.

use std::str::FromStr;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::{Serialize, Serializer};

use super::answer::{Answer, Body, json, read_body, refusal};
use super::problem::Problem;
use super::request::{Query, Route, expectation};
use super::selector::Selector;
use super::wire::{self, ObjectChange, Receipt, Remark, SOURCES_JSON, Sources, Text};
use super::{Admin, Peer};
use crate::config::{self, Author, Kind, ObjectName, Parsed, PatchType, ResourceVersion, Source};
use crate::control::{Batch, Changed, Done, Expect, Intent, Mode, Writer};

/// The patch types that are taken, said with a 415 (RFC 5789).
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

/// Media types of a body of documents; absent counts as the first.
const DOCUMENTS: [&str; 5] = [
    "application/yaml",
    "application/json",
    "application/x-yaml",
    "text/yaml",
    "text/plain",
];

/// Changed objects that take a while to be taken apart.
const MANY: usize = 1_000;

/// What `mode` asks of `POST /v1/apply`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Apply {
    Put(Mode),
    Delete,
}

impl FromStr for Apply {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "upsert" => Ok(Self::Put(Mode::Upsert)),
            "create" => Ok(Self::Put(Mode::Create)),
            "replace" => Ok(Self::Put(Mode::Replace)),
            "delete" => Ok(Self::Delete),
            _ => Err("want upsert, create, replace or delete"),
        }
    }
}

/// Answers a request that is allowed to write.
pub(super) async fn write(
    admin: &Admin,
    peer: Peer,
    route: Route,
    request: Request<Incoming>,
) -> Answer {
    let mut query = Query::parse(request.uri().query())?;
    let reason = query.take("reason")?.filter(|reason| !reason.is_empty());
    let intent = Intent {
        author: Author {
            uid: peer.uid,
            reason,
        },
        dry_run: query.take_parsed("dryRun")?.unwrap_or(false),
    };
    let expect = expectation(request.headers())?;
    let method = request.method().clone();
    match route {
        Route::Object(kind, name) => {
            query.finish()?;
            let object = One {
                admin,
                kind,
                name,
                expect,
                intent,
            };
            match method {
                Method::PUT => object.put(request).await,
                Method::PATCH => object.patch(request).await,
                _ => object.delete().await,
            }
        }
        _ if expect != Expect::Anything => Err(bad(
            "If-Match and If-None-Match are about one object, and this path is not one",
        )),
        Route::Undo => {
            let to = query.take_parsed("to")?;
            query.finish()?;
            let undo = move |writer: &mut Writer| writer.undo(to, intent);
            receipt(admin.control.write(undo).await?)
        }
        Route::Older(_) if intent.dry_run || intent.author.reason.is_some() => Err(bad(
            "connections are closed here and no configuration is written: there is neither `dryRun` nor `reason`",
        )),
        Route::Older(name) => {
            query.finish()?;
            let closed = admin.control.reset_older(name).await? as u64;
            json(&wire::Closed { closed })
        }
        // The only other path that takes a method but GET.
        _ => apply(admin, query, intent, request).await,
    }
}

async fn apply(
    admin: &Admin,
    mut query: Query,
    intent: Intent,
    request: Request<Incoming>,
) -> Answer {
    let mode = query
        .take_parsed("mode")?
        .unwrap_or(Apply::Put(Mode::Upsert));
    let prune: Option<Selector> = query.take_parsed("prune")?;
    let ignore_absent = query.take_parsed("ignoreNotFound")?;
    let named = query.take_all("object");
    let source = query.take("source")?;
    query.finish()?;
    if prune.is_some() && mode != Apply::Put(Mode::Upsert) {
        return Err(bad("prune goes with mode=upsert alone"));
    }
    if mode != Apply::Delete && (ignore_absent.is_some() || !named.is_empty()) {
        return Err(bad("object and ignoreNotFound go with mode=delete alone"));
    }
    if source.is_some() && !named.is_empty() {
        return Err(bad("source goes with documents: object needs none"));
    }
    let named = named
        .iter()
        .map(|object| parse_object(object))
        .collect::<Result<Vec<_>, _>>()?;
    let parsed = if named.is_empty() {
        read_documents(request, source.as_deref()).await?
    } else {
        Parsed::default()
    };
    let job = move |writer: &mut Writer| match mode {
        Apply::Put(mode) => writer.apply(
            Batch {
                parsed,
                mode,
                prune,
            },
            intent,
        ),
        Apply::Delete => {
            let ignore_absent = ignore_absent.unwrap_or(false);
            if named.is_empty() {
                writer.delete_documents(&parsed, ignore_absent, intent)
            } else {
                writer.delete(&named, ignore_absent, intent)
            }
        }
    };
    receipt(admin.control.write(job).await?)
}

/// A write to one object.
struct One<'a> {
    admin: &'a Admin,
    kind: Kind,
    name: ObjectName,
    expect: Expect,
    intent: Intent,
}

impl One<'_> {
    async fn put(self, request: Request<Incoming>) -> Answer {
        let parsed = read_documents(request, None).await?;
        let Self {
            admin,
            kind,
            name,
            expect,
            intent,
        } = self;
        let job = move |writer: &mut Writer| {
            writer.expect(kind, &name, &expect)?;
            writer.put(kind, &name, parsed, intent)
        };
        let done = admin.control.write(job).await?;
        let is_new = done.objects.iter().any(|object| object.before.is_none());
        let created = is_new && !done.dry_run;
        let mut response = receipt(done)?;
        if created {
            *response.status_mut() = StatusCode::CREATED;
        }
        Ok(response)
    }

    async fn patch(self, request: Request<Incoming>) -> Answer {
        let media_type = media_type(&request);
        let Some(patch_type) = PatchType::from_content_type(&media_type) else {
            return Ok(no_patch(&media_type));
        };
        let body = read_body(request).await?;
        let Self {
            admin,
            kind,
            name,
            expect,
            intent,
        } = self;
        let job = move |writer: &mut Writer| {
            writer.expect(kind, &name, &expect)?;
            writer.patch(kind, &name, (patch_type, &body), intent)
        };
        receipt(admin.control.write(job).await?)
    }

    async fn delete(self) -> Answer {
        let Self {
            admin,
            kind,
            name,
            expect,
            intent,
        } = self;
        let job = move |writer: &mut Writer| {
            writer.expect(kind, &name, &expect)?;
            writer.delete(&[(kind, name)], false, intent)
        };
        receipt(admin.control.write(job).await?)
    }
}

fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

/// `kind/namespace/name`.
fn parse_object(text: &str) -> Result<(Kind, ObjectName), Problem> {
    let malformed = || bad(format!("object={text:?}: want kind/namespace/name"));
    let parts: Vec<&str> = text.split('/').collect();
    let [kind, namespace, name] = parts[..] else {
        return Err(malformed());
    };
    let kind = kind
        .parse()
        .map_err(|error| bad(format!("object={text:?}: {error}")))?;
    Ok((kind, ObjectName::new(namespace, name)))
}

/// The media type in lower case, its parameters aside; empty if absent.
fn media_type(request: &Request<Incoming>) -> String {
    let value = request
        .headers()
        .get(CONTENT_TYPE)
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    let value = String::from_utf8_lossy(value);
    value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

/// Reads the documents of the body, which mistakes call `source`.
async fn read_documents(
    request: Request<Incoming>,
    source: Option<&str>,
) -> Result<Parsed, Problem> {
    let media_type = media_type(&request);
    let is_envelope = media_type == SOURCES_JSON;
    if !is_envelope && !media_type.is_empty() && !DOCUMENTS.contains(&&*media_type) {
        let detail = format!(
            "{media_type:?} is no media type of documents: send {}",
            DOCUMENTS[0]
        );
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    if is_envelope && source.is_some() {
        return Err(bad(format!(
            "source goes with one file as it is: {SOURCES_JSON} names its own"
        )));
    }
    let body = read_body(request).await?;
    let sources = if is_envelope {
        envelope(&body)?
    } else {
        vec![Source::new(source.unwrap_or("request"), text(&body)?)]
    };
    let parsed = config::parse(&sources).map_err(crate::control::Refusal::from)?;
    if parsed.objects.is_empty() {
        let mut problem = Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "there is no object of weir's in the documents",
        );
        problem.warnings = parsed.warnings.iter().map(Remark::new).collect();
        return Err(problem);
    }
    Ok(parsed)
}

fn envelope(body: &Bytes) -> Result<Vec<Source<'static>>, Problem> {
    let sources: Sources = serde_json::from_slice(body)
        .map_err(|error| bad(format!("the body is no {SOURCES_JSON}: {error}")))?;
    Ok(sources
        .sources
        .into_iter()
        .map(|source| Source::new(source.name, source.text))
        .collect())
}

fn text(body: &Bytes) -> Result<&str, Problem> {
    std::str::from_utf8(body).map_err(|error| bad(format!("the body is not UTF-8: {error}")))
}

fn no_patch(media_type: &str) -> Response<Body> {
    let detail = format!(
        "{media_type:?} is no patch type that is known here: send one of {}",
        PatchType::ACCEPTED
    );
    let mut response = refusal(&Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    response
        .headers_mut()
        .insert(ACCEPT_PATCH, HeaderValue::from_static(PatchType::ACCEPTED));
    response
}

fn receipt(done: Done) -> Answer {
    let receipt = json(&Receipt {
        generation: done.view.generation,
        revision: done.view.revision,
        dry_run: done.dry_run,
        objects: Changes(&done),
        warnings: done.warnings.iter().map(Remark::new).collect(),
    });
    if done.objects.len() >= MANY {
        // Taking all of them apart is not what the answer should wait for.
        tokio::task::spawn_blocking(|| drop(done));
    }
    receipt
}

/// The objects of a receipt, each looked up as it is written.
struct Changes<'d>(&'d Done);

impl Serialize for Changes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let done = self.0;
        let mut common = None;
        serializer.collect_seq(done.objects.iter().map(|object| {
            let version = version(done, object, &mut common);
            change(done.dry_run, object, version)
        }))
    }
}

/// The version that an object has now. A commit gives one to all that it
/// changes: the first that is looked up is kept in `common` for the others.
fn version(
    done: &Done,
    object: &Changed,
    common: &mut Option<ResourceVersion>,
) -> Option<ResourceVersion> {
    if done.dry_run || object.after.is_none() {
        return None;
    }
    let look_up = || done.view.version(object.kind, object.name());
    if object.unchanged {
        return look_up();
    }
    *common = common.or_else(look_up);
    *common
}

fn change(
    dry_run: bool,
    object: &Changed,
    version: Option<ResourceVersion>,
) -> ObjectChange<Text<'_>> {
    let diff = dry_run.then(|| config::diff(object.before.as_ref(), object.after.as_ref()));
    ObjectChange {
        kind: object.kind.as_str().into(),
        namespace: object.name().namespace().into(),
        name: object.name().name().into(),
        change: match (&object.before, &object.after) {
            _ if object.unchanged => wire::Change::Unchanged,
            (None, _) => wire::Change::Created,
            (Some(_), Some(_)) => wire::Change::Configured,
            (Some(_), None) => wire::Change::Deleted,
        },
        resource_version: version.map(|version| version.to_string().into()),
        diff: diff.filter(|diff| !diff.is_empty()).map(Text::from),
    }
}
