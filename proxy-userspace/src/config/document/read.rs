//! From one text to its documents, each decoded as soon as it is read: its tree
//! is gone before the next one grows, which keeps the memory of a large input small.
//!
//! Owns where documents begin and end, and on which CPUs they are read.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use serde::de::DeserializeSeed;
use serde_json::value::RawValue;
use serde_saphyr::{DuplicateKeyPolicy, NonFiniteFloatPolicy};

use super::{DOCUMENTS_MAX, Decoded, NODES_MAX};
use crate::config::node::{Node, NodeSeed};

/// How deep lists and maps may nest; the kinds need eight.
const DEPTH_MAX: usize = 64;

/// Bytes of text that are worth a thread of their own.
const THREAD_MIN: usize = 128 * 1024;

/// Documents that a thread takes at a time: few, so that all end together.
const SHARE: usize = 256;

/// A document that is neither YAML nor JSON.
pub(super) struct Unreadable {
    /// `line 3, column 5`, of the file.
    pub(super) path: String,
    pub(super) expected: String,
}

pub(super) type Document = Result<Decoded, Unreadable>;

/// How many values may still be unfolded.
pub(super) struct Budget(pub(super) AtomicUsize);

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

/// The documents of `text`, in their order.
pub(super) fn documents(text: &str, left: &Budget) -> Vec<Document> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with(['{', '[']) {
        let before = left.0.load(Ordering::Relaxed);
        if let Some(documents) = json_documents(text, left) {
            return documents;
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
    let documents = on_all_cpus(text.len(), parts.into_iter(), |(line, text)| {
        left.spend(|left| yaml_document(text, line, left))
    });
    documents
        .into_iter()
        .filter_map(Result::transpose)
        .collect()
}

/// One JSON document after the other; `None` if it is not JSON all through,
/// or too many.
fn json_documents(text: &str, left: &Budget) -> Option<Vec<Document>> {
    let broken = AtomicBool::new(false);
    let broke = || broken.store(true, Ordering::Relaxed);
    // First where each ends, then what it holds: the parser itself can only
    // tell its place by counting lines from the start.
    let texts = serde_json::Deserializer::from_str(text)
        .into_iter::<&RawValue>()
        .take(DOCUMENTS_MAX + 1)
        .map_while(|document| document.map_err(|_| broke()).ok())
        .take_while(|_| !broken.load(Ordering::Relaxed))
        .fuse();
    let decoded = on_all_cpus(text.len(), texts, |document| {
        let mut json = serde_json::Deserializer::from_str(document.get());
        let node = left.spend(|left| NodeSeed { left }.deserialize(&mut json));
        let node = node.map_err(|_| broke()).ok()?;
        Some(Ok(Decoded::new(&node)))
    });
    if broken.into_inner() || decoded.len() > DOCUMENTS_MAX {
        return None;
    }
    decoded.into_iter().collect()
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

/// `None` if there is nothing in it.
fn yaml_document(
    text: &str,
    first_line: usize,
    left: &Cell<usize>,
) -> Result<Option<Decoded>, Unreadable> {
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
    let read = |yaml: serde_saphyr::Deserializer<'_, '_>| {
        let node = NodeSeed { left }.deserialize(yaml)?;
        Ok((node != Node::Null).then(|| Decoded::new(&node)))
    };
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

/// Maps the items of a text of so many `bytes`, in their order; those of a long
/// one on all CPUs, while they are found.
fn on_all_cpus<T, R: Send>(
    bytes: usize,
    items: impl Iterator<Item = T> + Send,
    map: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let threads = (bytes / THREAD_MIN).clamp(1, cpus);
    if threads == 1 {
        return items.map(map).collect();
    }
    let shares = Mutex::new((0_usize, items));
    let next = || {
        // A panic that poisons it is handed on below.
        let mut shares = shares.lock().unwrap_or_else(PoisonError::into_inner);
        let (number, items) = &mut *shares;
        *number += 1;
        (*number, items.by_ref().take(SHARE).collect::<Vec<T>>())
    };
    let work = || {
        let mut mapped = Vec::new();
        loop {
            let (number, share) = next();
            if share.is_empty() {
                return mapped;
            }
            mapped.push((number, share.into_iter().map(&map).collect::<Vec<R>>()));
        }
    };
    let mut mapped = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut mapped = work();
        for other in others {
            match other.join() {
                Ok(theirs) => mapped.extend(theirs),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        mapped
    });
    mapped.sort_unstable_by_key(|(number, _)| *number);
    let mut all = Vec::with_capacity(mapped.len() * SHARE);
    for (_, share) in mapped {
        all.extend(share);
    }
    all
}
