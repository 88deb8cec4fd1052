//! The commands that change something, and `weir diff`, which only asks what
//! would change.

use hyper::Method;
use serde_json::Value;

use super::args::{
    ApplyArgs, DeleteArgs, DiffArgs, Output, PatchArgs, PatchType, UndoArgs, WriteArgs,
    WriteOptions,
};
use super::client::{Body, Query};
use super::files::{self, FileError};
use super::{Failure, Outcome, Session};
use crate::admin::BODY_MAX;
use crate::admin::wire::{ObjectChange, Receipt, SOURCES_JSON, SourceText, Sources, Text};
use crate::config::{Kind, ObjectName};

/// `weir apply`.
pub(super) fn apply(session: &mut Session<'_>, args: ApplyArgs) -> Result<(), Failure> {
    let query =
        Query::new("/v1/apply").with("prune", args.selector.map(|selector| selector.to_string()));
    send_files(session, query, &args.files.files, &args.write)
}

/// `weir create`.
pub(super) fn create(session: &mut Session<'_>, args: &WriteArgs) -> Result<(), Failure> {
    let query = Query::new("/v1/apply").with("mode", Some("create"));
    send_files(session, query, &args.files.files, &args.write)
}

/// `weir replace`.
pub(super) fn replace(session: &mut Session<'_>, args: &WriteArgs) -> Result<(), Failure> {
    let query = Query::new("/v1/apply").with("mode", Some("replace"));
    send_files(session, query, &args.files.files, &args.write)
}

/// `weir delete`.
pub(super) fn delete(session: &mut Session<'_>, args: &DeleteArgs) -> Result<(), Failure> {
    let absent = args.ignore_not_found.then_some("true");
    let mut query = Query::new("/v1/apply")
        .with("mode", Some("delete"))
        .with("ignoreNotFound", absent);
    let Some(kind) = args.kind else {
        return send_files(session, query, &args.files, &args.write);
    };
    // One name or ten: all of them go, or none.
    for name in &args.names {
        let name = ObjectName::new(&args.namespace, name);
        query = query.with("object", Some(format!("{}/{name}", kind.singular())));
    }
    let query = write_options(query, &args.write);
    change(session, Method::POST, query, None, args.write.output)
}

/// `weir diff`.
pub(super) fn diff(session: &mut Session<'_>, args: &DiffArgs) -> Result<Outcome, Failure> {
    let query = Query::new("/v1/apply").with("dryRun", Some("true"));
    let (query, body) = documents(query, &args.files.files)?;
    let receipt: Receipt = session.client.send(Method::POST, query, Some(body))?;
    session.print.warnings(&receipt.warnings);
    let diffs: Vec<&str> = receipt
        .objects
        .iter()
        .filter_map(|object| object.diff.as_deref())
        .collect();
    session.print.out(&diffs.concat())?;
    Ok(if diffs.is_empty() {
        Outcome::Done
    } else {
        Outcome::Differs
    })
}

/// `weir patch`.
pub(super) fn patch(session: &mut Session<'_>, args: PatchArgs) -> Result<(), Failure> {
    let media_type = match args.patch_type {
        PatchType::Merge => "application/merge-patch+json",
        PatchType::Json => "application/json-patch+json",
    };
    serde_json::from_str::<Value>(&args.patch)
        .map_err(|error| Failure::Unasked(format!("the patch is no JSON: {error}")))?;
    let body = Body {
        media_type,
        bytes: args.patch.into_bytes(),
    };
    let query = object_path(args.kind, &ObjectName::new(&args.namespace, &args.name));
    let query = write_options(query, &args.write);
    change(session, Method::PATCH, query, Some(body), args.write.output)
}

/// `weir undo`.
pub(super) fn undo(session: &mut Session<'_>, args: &UndoArgs) -> Result<(), Failure> {
    let query = Query::new("/v1/undo").with("to", args.to.map(|generation| generation.to_string()));
    let receipt: Receipt =
        session
            .client
            .send(Method::POST, write_options(query, &args.write), None)?;
    session.print.receipt(&receipt, args.write.output)?;
    if args.write.output == Output::Table && receipt.objects.is_empty() {
        session
            .print
            .note("those rules are in force already: nothing was changed");
    }
    Ok(())
}

/// The path of one object.
pub(super) fn object_path(kind: Kind, name: &ObjectName) -> Query {
    Query::new(format!(
        "/v1/{}/{}/{}",
        kind.singular(),
        name.namespace(),
        name.name()
    ))
}

/// Adds what every write takes.
pub(super) fn write_options(query: Query, options: &WriteOptions) -> Query {
    query
        .with("dryRun", options.dry_run.then_some("true"))
        .with("reason", options.reason.as_ref())
}

fn send_files(
    session: &mut Session<'_>,
    query: Query,
    paths: &[std::path::PathBuf],
    options: &WriteOptions,
) -> Result<(), Failure> {
    let (query, body) = documents(write_options(query, options), paths)?;
    change(session, Method::POST, query, Some(body), options.output)
}

/// Has something changed, and says what became of it.
pub(super) fn change(
    session: &mut Session<'_>,
    method: Method,
    query: Query,
    body: Option<Body>,
    output: Output,
) -> Result<(), Failure> {
    let answer = session.client.ask(method, query, body)?;
    let receipt: Receipt<Vec<ObjectChange<Text<'_>>>> = session.client.understand(&answer)?;
    session.print.receipt(&receipt, output)
}

/// What the files hold, as a body, and its name in the query. One file goes as
/// it is; several in an envelope, which quotes them.
fn documents(query: Query, paths: &[std::path::PathBuf]) -> Result<(Query, Body), Failure> {
    let unasked = |error: FileError| Failure::Unasked(error.to_string());
    let mut sources = files::read(paths).map_err(unasked)?;
    if sources.len() == 1
        && let Some(SourceText { name, text }) = sources.pop()
    {
        let body = Body {
            media_type: "application/yaml",
            bytes: text.into_bytes(),
        };
        return Ok((query.with("source", Some(name)), body));
    }
    let bytes = serde_json::to_vec(&Sources { sources })
        .map_err(|error| Failure::Unasked(error.to_string()))?;
    if bytes.len() > BODY_MAX {
        return Err(unasked(FileError::TooLarge));
    }
    let body = Body {
        media_type: SOURCES_JSON,
        bytes,
    };
    Ok((query, body))
}
