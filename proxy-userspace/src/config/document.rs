//! From text to objects: finds the documents of YAML and JSON files and has
//! each decoded, so that a mistake in one does not hide those of another.
//!
//! Owns the bounds on input. All or nothing: one mistake, and no object at all.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::de::DeserializeSeed;
use serde_json::Value;
use serde_json::value::RawValue;
use serde_saphyr::{DuplicateKeyPolicy, NonFiniteFloatPolicy};

use super::Kind;
use super::decode::{self, Found, Report};
use super::mistake::{Mistake, Mistakes, Warning, Warnings};
use super::node::{Node, NodeSeed};
use super::object::{Object, ObjectName};
use super::store::ResourceVersion;

/// What all files of one call may hold, in bytes: room for a hundred thousand workloads.
pub const INPUT_MAX: usize = 64 * 1024 * 1024;

/// What they may unfold to, in values.
const NODES_MAX: usize = 8_000_000;

/// Documents of one file: every object of the largest node, almost.
const DOCUMENTS_MAX: usize = 500_000;

/// Documents that are worth a thread of their own.
const SHARE_MIN: usize = 1_000;

/// How deep lists and maps may nest; the kinds need eight.
const DEPTH_MAX: usize = 64;

/// A named text: a file, standard input, the body of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// As messages call it.
    pub name: String,
    /// YAML, one or more documents, or JSON.
    pub text: String,
}

impl Source {
    /// The text `text`, called `name` in messages.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
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
    /// The `metadata.resourceVersion` that the document of this object carried.
    pub fn resource_version(&self, kind: Kind, name: &ObjectName) -> Option<ResourceVersion> {
        self.versions.get(&(kind, name.clone())).copied()
    }
}

/// Reads every document of every source.
///
/// # Errors
/// Every mistake of every document. Nothing of the input holds then.
pub fn parse(sources: &[Source]) -> Result<Parsed, Mistakes> {
    let mut collector = Collector::default();
    let left = Budget(AtomicUsize::new(NODES_MAX));
    let mut bytes: usize = 0;
    for source in sources {
        bytes = bytes.saturating_add(source.text.len());
        if bytes > INPUT_MAX {
            let expected = format!("at most {} MiB of input in one go", INPUT_MAX >> 20);
            collector
                .mistakes
                .push(unreadable(&source.name, None, String::new(), expected));
            break;
        }
        for (index, decoded) in decode_all(&source.name, documents(&source.text, &left)) {
            match decoded {
                Ok(decoded) => collector.take(&source.name, index, decoded),
                Err(Unreadable { path, expected }) => {
                    collector.mistakes.unreadable = true;
                    let mistake = unreadable(&source.name, Some(index), path, expected);
                    collector.mistakes.push(mistake);
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
        let decoded = Decoded::new(name, index + 1, &Node::from(value));
        collector.take(name, index + 1, decoded);
    }
    collector.finish()
}

/// What one document holds.
struct Decoded {
    found: Vec<Found>,
    mistakes: Mistakes,
    warnings: Warnings,
}

impl Decoded {
    fn new(source: &str, document: usize, node: &Node) -> Self {
        let report = Report::new(source, document);
        let found = decode::document(node, &report);
        let (mistakes, warnings) = report.into_parts();
        Self {
            found,
            mistakes,
            warnings,
        }
    }
}

/// Decodes documents. Each comes with its number, from 1.
fn decode_all(source: &str, documents: Vec<Document>) -> Vec<(usize, Result<Decoded, Unreadable>)> {
    let numbered = (1..).zip(documents).collect();
    on_all_cpus(numbered, |(index, document): (usize, Document)| {
        let decoded = document.map(|node| Decoded::new(source, index, &node));
        (index, decoded)
    })
}

/// Maps items in their order; many of them on all CPUs.
fn on_all_cpus<T: Send, R: Send>(items: Vec<T>, map: impl Fn(T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = items.len().div_ceil(threads).max(SHARE_MIN);
    let mut rest = items.into_iter();
    let mut shares = Vec::new();
    loop {
        let share: Vec<_> = rest.by_ref().take(share).collect();
        if share.is_empty() {
            break;
        }
        shares.push(share);
    }
    let map = |share: Vec<T>| -> Vec<R> { share.into_iter().map(&map).collect() };
    let last = shares.pop();
    std::thread::scope(|scope| {
        let running: Vec<_> = shares
            .into_iter()
            .map(|share| scope.spawn(|| map(share)))
            .collect();
        let last = last.map(map);
        let first = running.into_iter().map(|thread| match thread.join() {
            Ok(mapped) => mapped,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        first.chain(last).flatten().collect()
    })
}

#[derive(Default)]
struct Collector<'s> {
    parsed: Parsed,
    mistakes: Mistakes,
    warnings: Warnings,
    /// Source and document that each object was found in first.
    places: HashMap<(Kind, ObjectName), (&'s str, usize)>,
}

impl<'s> Collector<'s> {
    fn take(&mut self, source: &'s str, document: usize, decoded: Decoded) {
        let Decoded {
            found,
            mut mistakes,
            warnings,
        } = decoded;
        for Found {
            object,
            version,
            path,
        } in found
        {
            let key = (object.kind(), object.name().clone());
            if let Some((first, number)) = self.places.get(&key) {
                let mistake = Mistake {
                    source: Some(source.to_owned()),
                    document: Some(document),
                    object: None,
                    path,
                    value: Some(object.to_string()),
                    expected: format!("each object once; it is in {first}, document {number} too"),
                };
                mistakes.push(mistake);
                continue;
            }
            if let Some(version) = version {
                self.parsed.versions.insert(key.clone(), version);
            }
            self.places.insert(key, (source, document));
            self.parsed.objects.push(object);
        }
        self.mistakes.append(mistakes);
        self.warnings.append(warnings);
    }

    fn finish(mut self) -> Result<Parsed, Mistakes> {
        self.parsed.warnings = self.warnings.into_vec();
        self.mistakes.or(self.parsed)
    }
}

fn unreadable(source: &str, document: Option<usize>, path: String, expected: String) -> Mistake {
    Mistake {
        source: Some(source.to_owned()),
        document,
        object: None,
        path,
        value: None,
        expected,
    }
}

/// A document that is neither YAML nor JSON.
struct Unreadable {
    /// `line 3, column 5`, of the file.
    path: String,
    expected: String,
}

type Document = Result<Node, Unreadable>;

/// How many values may still be unfolded.
struct Budget(AtomicUsize);

impl Budget {
    /// Reads one document out of what is left. Those that are read at the same
    /// time may each take it all: it is exceeded by one document at most for
    /// each CPU.
    fn spend<T>(&self, read: impl FnOnce(&Cell<usize>) -> T) -> T {
        let before = self.0.load(Ordering::Relaxed);
        let left = Cell::new(before);
        let read = read(&left);
        let spent = before.saturating_sub(left.get());
        // Never fails: the closure always gives a value.
        let _former = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                Some(now.saturating_sub(spent))
            });
        read
    }
}

fn documents(text: &str, left: &Budget) -> Vec<Document> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with(['{', '[']) {
        let before = left.0.load(Ordering::Relaxed);
        if let Some(nodes) = json_documents(text, left) {
            return nodes.into_iter().map(Ok).collect();
        }
        // Flow-style YAML begins the same way, and says better what is wrong.
        left.0.store(before, Ordering::Relaxed);
    }
    let Some(parts) = split(text) else {
        return vec![Err(Unreadable {
            path: String::new(),
            expected: format!("at most {DOCUMENTS_MAX} documents in one file"),
        })];
    };
    let mut documents = on_all_cpus(parts, |(line, text)| {
        left.spend(|left| yaml_document(text, line, left))
    });
    documents.retain(|document| !matches!(document, Ok(Node::Null)));
    documents
}

/// One JSON document after the other; `None` if it is not JSON all through,
/// or too many.
fn json_documents(text: &str, left: &Budget) -> Option<Vec<Node>> {
    // First where each ends, then what it holds: the parser itself can only
    // tell its place by counting lines from the start.
    let documents = serde_json::Deserializer::from_str(text)
        .into_iter::<&RawValue>()
        .take(DOCUMENTS_MAX + 1)
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|documents| documents.len() <= DOCUMENTS_MAX)?;
    let nodes = on_all_cpus(documents, |document| {
        let mut json = serde_json::Deserializer::from_str(document.get());
        left.spend(|left| NodeSeed { left }.deserialize(&mut json).ok())
    });
    nodes.into_iter().collect()
}

/// Cuts at the document markers, which YAML allows nowhere else at the start
/// of a line, not even in a block of text. Gives the first line's number, from 0;
/// `None` if there are too many.
fn split(text: &str) -> Option<Vec<(usize, &str)>> {
    let marker = |line: &str, mark: &str| {
        line.strip_prefix(mark)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
    };
    let mut parts = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 0, 0);
    let mut blank = true;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let ends = marker(line, "...");
        if marker(line, "---") || ends {
            if !blank {
                parts.push((start_line, &text[start..offset]));
            }
            start = if ends { offset + line.len() } else { offset };
            start_line = if ends { number + 1 } else { number };
            blank = ends;
        } else {
            // Directives speak of the document that follows; the YAML library
            // has no use for any.
            blank &= line.trim().is_empty() || line.starts_with(['#', '%']);
        }
        offset += line.len();
        if parts.len() > DOCUMENTS_MAX {
            return None;
        }
    }
    if !blank {
        parts.push((start_line, &text[start..]));
    }
    Some(parts)
}

fn yaml_document(text: &str, first_line: usize, left: &Cell<usize>) -> Document {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: NODES_MAX,
            max_events: 4 * NODES_MAX,
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
            max_replay_stack_depth: 16,
        },
        // The decoder names every one of them, not just the first.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        emit_comments: false,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
    };
    let read = |yaml: serde_saphyr::Deserializer<'_, '_>| NodeSeed { left }.deserialize(yaml);
    serde_saphyr::with_deserializer_from_str_with_options(text, options, read).map_err(|error| {
        let path = error.location().map_or_else(String::new, |at| {
            format!(
                "line {}, column {}",
                usize::try_from(at.line()).unwrap_or(0) + first_line,
                at.column()
            )
        });
        // It says the place too, but counts from the start of the document.
        let text = error.without_snippet().to_string();
        let reason = text.split(" at line ").next().unwrap_or_default();
        Unreadable {
            path,
            expected: format!("YAML or JSON: {reason}"),
        }
    })
}

#[cfg(test)]
mod tests;
