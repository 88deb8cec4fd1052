//! From text to objects: finds the documents of YAML and JSON files and has
//! each decoded, so that a mistake in one does not hide those of another.
//!
//! Owns the bounds on input. All or nothing: one mistake, and no object at all.

mod collect;
mod read;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;

use serde_json::Value;

use self::collect::Collector;
use self::read::{Budget, Unreadable, documents};
use super::Kind;
use super::decode::{self, Objects, Report};
use super::mistake::{Mistakes, Warning, Warnings};
use super::node::Node;
use super::object::{Object, ObjectName};
use super::store::ResourceVersion;

/// What all files of one call may hold, in bytes: room for a hundred thousand workloads.
pub const INPUT_MAX: usize = 64 * 1024 * 1024;

/// What they may unfold to, in values.
const NODES_MAX: usize = 8_000_000;

/// Documents of one file: every object of the largest node, almost.
const DOCUMENTS_MAX: usize = 500_000;

/// A named text: a file, standard input, the body of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source<'t> {
    /// As messages call it.
    pub name: Cow<'t, str>,
    /// YAML, one or more documents, or JSON.
    pub text: Cow<'t, str>,
}

impl<'t> Source<'t> {
    /// The text `text`, called `name` in messages.
    pub fn new(name: impl Into<Cow<'t, str>>, text: impl Into<Cow<'t, str>>) -> Self {
        Self {
            name: name.into(),
            text: text.into(),
        }
    }
}

/// What [`parse`] found.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// The objects, in the order they were written, each only once.
    pub objects: Vec<Object>,
    /// What was left out or may not be meant.
    pub warnings: Vec<Warning>,
    versions: BTreeMap<(Kind, ObjectName), ResourceVersion>,
}

impl Parsed {
    /// Whether any document carried a `metadata.resourceVersion`.
    pub fn has_versions(&self) -> bool {
        !self.versions.is_empty()
    }

    /// The `metadata.resourceVersion` that the document of this object carried.
    pub fn resource_version(&self, kind: Kind, name: &ObjectName) -> Option<ResourceVersion> {
        self.versions.get(&(kind, name.clone())).copied()
    }
}

/// Reads every document of every source.
///
/// # Errors
/// Every mistake of every document. Nothing of the input holds then.
pub fn parse(sources: &[Source<'_>]) -> Result<Parsed, Mistakes> {
    let mut collector = Collector::default();
    let left = Budget(AtomicUsize::new(NODES_MAX));
    let mut bytes: usize = 0;
    for source in sources {
        bytes = bytes.saturating_add(source.text.len());
        if bytes > INPUT_MAX {
            let expected = format!("at most {} MiB of input in one go", INPUT_MAX >> 20);
            collector.refuse(&source.name, None, String::new(), expected);
            break;
        }
        let documents = documents(&source.text, &left);
        collector.expect(documents.len());
        for (number, document) in (1..).zip(documents) {
            match document {
                Ok(decoded) => collector.take(&source.name, number, decoded),
                Err(Unreadable { path, expected }) => {
                    collector.mistakes.unreadable = true;
                    collector.refuse(&source.name, Some(number), path, expected);
                }
            }
        }
    }
    collector.finish()
}

/// Reads one document that is already JSON, e.g. the result of a patch.
///
/// # Errors
/// Every mistake of it.
pub fn parse_value(name: &str, value: &Value) -> Result<Parsed, Mistakes> {
    parse_values(name, std::slice::from_ref(value))
}

/// Reads documents that are already JSON, one after the other.
pub(super) fn parse_values(name: &str, values: &[Value]) -> Result<Parsed, Mistakes> {
    let mut collector = Collector::default();
    for (index, value) in values.iter().enumerate() {
        collector.take(name, index + 1, Decoded::new(&Node::from(value)));
    }
    collector.finish()
}

/// What one document holds, in terms of its own.
struct Decoded {
    objects: Objects,
    /// What is to be said about it; nothing, as a rule.
    remarks: Option<Box<(Mistakes, Warnings)>>,
}

impl Decoded {
    fn new(node: &Node<'_>) -> Self {
        let report = Report::default();
        let objects = decode::document(node, &report);
        let (mistakes, warnings) = report.into_parts();
        let silent = mistakes.is_empty() && warnings.is_empty();
        Self {
            objects,
            remarks: (!silent).then(|| Box::new((mistakes, warnings))),
        }
    }
}

#[cfg(test)]
mod tests;
