//! From a document's tree to a typed object, strictly: a value that is not
//! understood is a mistake, never skipped.
//!
//! Owns the walk: where we are, what was found there, what would have been
//! right. Never stops at the first mistake. The kinds have a file each.

mod egress;
mod envelope;
mod mesh;
mod metadata;
mod route;
mod service;
mod workload;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::rc::Rc;

pub(super) use envelope::{Found, document};

use super::mistake::{Mistake, Mistakes, Warning, shortened};
use super::node::Node;

/// Entries of one list or map of a document, but for the items of a `List`.
const ENTRIES_MAX: usize = 1000;

/// Why a field is refused whose work this version cannot do.
const LATER: &str = "it comes with a later version, this one does not enforce it";

/// Collects what is wrong and what is odd about one document.
pub(super) struct Report {
    source: String,
    document: usize,
    mistakes: RefCell<Mistakes>,
    warnings: RefCell<Vec<Warning>>,
}

impl Report {
    pub(super) fn new(source: &str, document: usize) -> Self {
        Self {
            source: source.to_owned(),
            document,
            mistakes: RefCell::default(),
            warnings: RefCell::default(),
        }
    }

    pub(super) fn push(&self, mistake: Mistake) {
        self.mistakes.borrow_mut().push(mistake);
    }

    pub(super) fn into_parts(self) -> (Mistakes, Vec<Warning>) {
        (self.mistakes.into_inner(), self.warnings.into_inner())
    }
}

/// The way from the document's root to a value.
#[derive(Clone)]
enum Path {
    Root,
    Field(Rc<Self>, String),
    Item(Rc<Self>, usize),
}

impl Path {
    fn write(&self, out: &mut String) {
        match self {
            Self::Root => {}
            Self::Field(parent, name) => {
                parent.write(out);
                // A key with dots in it, such as a label's, must not read as a path.
                if name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
                {
                    let dot = if out.is_empty() { "" } else { "." };
                    let _infallible = write!(out, "{dot}{name}");
                } else {
                    let _infallible = write!(out, "[{}]", Node::String(shortened(name)));
                }
            }
            Self::Item(parent, index) => {
                parent.write(out);
                let _infallible = write!(out, "[{index}]");
            }
        }
    }

    fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }
}

/// A value, and where it stands.
#[derive(Clone)]
struct At<'a> {
    node: &'a Node,
    path: Rc<Path>,
    report: &'a Report,
}

impl<'a> At<'a> {
    fn root(node: &'a Node, report: &'a Report) -> Self {
        Self {
            node,
            path: Rc::new(Path::Root),
            report,
        }
    }

    /// Reports that this value is not what was expected.
    fn wrong<T>(&self, expected: impl Into<String>) -> Option<T> {
        self.mistake(
            &self.path,
            shortened(&self.node.to_string()),
            expected.into(),
        );
        None
    }

    fn mistake(&self, path: &Path, value: String, expected: String) {
        self.report.push(Mistake {
            source: Some(self.report.source.clone()),
            document: Some(self.report.document),
            object: None,
            path: path.text(),
            value: Some(value),
            expected,
        });
    }

    fn warn(&self, message: impl Into<String>) {
        self.report.warnings.borrow_mut().push(Warning {
            source: Some(self.report.source.clone()),
            document: Some(self.report.document),
            object: None,
            path: self.path.text(),
            message: message.into(),
        });
    }

    fn field(&self, name: &str, node: &'a Node) -> Self {
        Self {
            node,
            path: Rc::new(Path::Field(Rc::clone(&self.path), name.to_owned())),
            report: self.report,
        }
    }

    fn string(&self) -> Option<&'a str> {
        match self.node {
            Node::String(text) => Some(text),
            Node::Bool(_) | Node::Number(_) => self.wrong("a string; put it in quotes"),
            _ => self.wrong("a string"),
        }
    }

    /// A string that `read` makes a value of.
    fn text<T>(&self, expected: &str, read: impl FnOnce(&'a str) -> Option<T>) -> Option<T> {
        self.string()?.pipe(read).or_else(|| self.wrong(expected))
    }

    fn boolean(&self) -> Option<bool> {
        match self.node {
            Node::Bool(value) => Some(*value),
            _ => self.wrong("true or false"),
        }
    }

    fn integer<T: TryFrom<i64>>(&self, range: RangeInclusive<i64>) -> Option<T> {
        let number = match self.node {
            Node::Number(number) => number.as_i64().filter(|number| range.contains(number)),
            _ => None,
        };
        number
            .and_then(|number| T::try_from(number).ok())
            .or_else(|| {
                self.wrong(format!(
                    "a whole number from {} to {}",
                    range.start(),
                    range.end()
                ))
            })
    }

    /// One of a few words.
    fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let found = match self.node {
            Node::String(text) => words.iter().find(|(word, _)| word == text),
            _ => None,
        };
        found.map(|(_, value)| *value).or_else(|| {
            let known: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
            self.wrong(format!("one of {}", known.join(", ")))
        })
    }

    fn items(&self, max: usize) -> Option<Vec<Self>> {
        let Node::List(items) = self.node else {
            return self.wrong("a list");
        };
        if items.len() > max {
            self.mistake(
                &self.path,
                format!("{} items", items.len()),
                format!("a list of at most {max}"),
            );
            return None;
        }
        let item = |(index, node)| {
            let path = Rc::new(Path::Item(Rc::clone(&self.path), index));
            Self {
                node,
                path,
                report: self.report,
            }
        };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// The entries of a map whose keys are the operator's, each once.
    fn entries(&self) -> Option<Vec<(&'a str, Self)>> {
        let Node::Map(entries) = self.node else {
            return self.wrong("a map");
        };
        if entries.len() > ENTRIES_MAX {
            self.mistake(
                &self.path,
                format!("{} entries", entries.len()),
                format!("a map of at most {ENTRIES_MAX}"),
            );
            return None;
        }
        let mut seen: Vec<(&str, Self)> = Vec::with_capacity(entries.len());
        for (key, node) in entries {
            let at = self.field(key, node);
            if seen.iter().any(|(name, _)| name == key) {
                self.mistake(&at.path, "given twice".into(), "each key once".into());
            } else {
                seen.push((key, at));
            }
        }
        Some(seen)
    }

    /// The fields of a map whose keys are weir's.
    fn fields(&self) -> Option<Fields<'a>> {
        Some(Fields {
            at: self.clone(),
            entries: self.entries()?,
            asked: Vec::new(),
        })
    }
}

/// `value.pipe(f)` is `f(value)`, read left to right.
trait Pipe: Sized {
    fn pipe<T>(self, f: impl FnOnce(Self) -> T) -> T {
        f(self)
    }
}

impl Pipe for &str {}

/// The fields of one map. Whoever is done asking calls [`Fields::finish`],
/// which reports every field that nobody asked for.
struct Fields<'a> {
    at: At<'a>,
    entries: Vec<(&'a str, At<'a>)>,
    asked: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// The field, if it is there. `null` is as good as absent, as in Kubernetes.
    fn optional(&mut self, name: &'static str) -> Option<At<'a>> {
        self.asked.push(name);
        self.take(name).filter(|at| *at.node != Node::Null)
    }

    /// The field; its absence is a mistake.
    fn required(&mut self, name: &'static str, expected: &str) -> Option<At<'a>> {
        let found = self.optional(name);
        if found.is_none() {
            let path = Path::Field(Rc::clone(&self.at.path), name.to_owned());
            self.at.mistake(&path, "absent".into(), expected.to_owned());
        }
        found
    }

    fn take(&mut self, name: &str) -> Option<At<'a>> {
        let index = self.entries.iter().position(|(key, _)| *key == name)?;
        Some(self.entries.swap_remove(index).1)
    }

    /// A field of the design that means nothing yet: saying so beats ignoring it.
    fn refuse(&mut self, name: &str, why: &str) {
        if let Some(at) = self.take(name) {
            at.wrong::<()>(format!("no `{name}`: {why}"));
        }
    }

    /// Fields that other software writes and weir has no use for.
    fn ignore(&mut self, names: &[&str], what: &str) {
        let found: Vec<_> = names
            .iter()
            .filter(|name| self.take(name).is_some())
            .map(|name| format!("`{name}`"))
            .collect();
        if !found.is_empty() {
            self.at.warn(format!(
                "{what} not used by weir, left out: {}",
                found.join(", ")
            ));
        }
    }

    /// Reports the fields that are left.
    fn finish(self) {
        let mut left = self.entries;
        left.sort_by_key(|(name, _)| self.at.position(name));
        for (name, at) in left {
            let close =
                |known: &&&str| strsim::damerau_levenshtein(name, known) <= 2.min(name.len() / 2);
            let hint = match self
                .asked
                .iter()
                .filter(close)
                .min_by_key(|known| strsim::levenshtein(name, known))
            {
                Some(known) => format!("; did you mean `{known}`?"),
                None => format!("; known here: {}", self.asked.join(", ")),
            };
            at.wrong::<()>(format!("no field of this name{hint}"));
        }
    }
}

impl At<'_> {
    /// Where in its map a key was written, so that reports keep that order.
    fn position(&self, name: &str) -> usize {
        match self.node {
            Node::Map(entries) => entries
                .iter()
                .position(|(key, _)| key == name)
                .unwrap_or(usize::MAX),
            _ => usize::MAX,
        }
    }
}

#[cfg(test)]
mod tests;
