//! From a document's tree to a typed object, strictly: a value that is not
//! understood is a mistake, never skipped.
//!
//! Owns the walk: where we are, what was found there, what would have been
//! right. Never stops at the first mistake. The kinds have a file each.

mod egress;
mod envelope;
mod mesh;
mod metadata;
mod path;
mod route;
mod service;
mod workload;

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::rc::Rc;

use path::{Path, Step};

pub(super) use envelope::{Found, Objects, document};

use super::mistake::{Mistake, Mistakes, Warning, Warnings, shortened};
use super::node::Node;

/// Fields of one map; no kind has as many.
const FIELDS_MAX: usize = 100;

/// Fields that are asked for in one map, as a rule; a few kinds have more.
const ASKED: usize = 16;

/// Why a field is refused whose work this version cannot do.
const LATER: &str = "it comes with a later version, this one does not enforce it";

/// Collects what is wrong and what is odd about one document. Which document
/// that is, is for those to say who found it.
#[derive(Default)]
pub(super) struct Report {
    mistakes: RefCell<Mistakes>,
    warnings: RefCell<Warnings>,
}

impl Report {
    pub(super) fn push(&self, mistake: Mistake) {
        self.mistakes.borrow_mut().push(mistake);
    }

    pub(super) fn into_parts(self) -> (Mistakes, Warnings) {
        (self.mistakes.into_inner(), self.warnings.into_inner())
    }
}

/// A value is not what it should be, and that was reported.
#[derive(Debug)]
struct Wrong;

/// A value read, or a mistake reported. Not to be left with `?` before
/// everything beside it was read too: every mistake counts.
type Read<T> = Result<T, Wrong>;

/// A value, and where it stands.
#[derive(Clone)]
struct At<'a> {
    node: &'a Node<'a>,
    /// The list or map that it is in. Only they have a path of their own, which
    /// is shared by what they hold: most values are right, and then nobody asks.
    parent: Option<Rc<Path<'a>>>,
    step: Step<'a>,
    report: &'a Report,
}

impl<'a> At<'a> {
    fn root(node: &'a Node<'a>, report: &'a Report) -> Self {
        Self {
            node,
            parent: None,
            step: Step::Start,
            report,
        }
    }

    fn path(&self) -> Path<'a> {
        Path {
            parent: self.parent.clone(),
            step: self.step,
        }
    }

    /// What `node`, one step further, is.
    fn inner(&self, path: &Rc<Path<'a>>, step: Step<'a>, node: &'a Node<'a>) -> Self {
        Self {
            node,
            parent: Some(Rc::clone(path)),
            step,
            report: self.report,
        }
    }

    /// Reports that this value is not what was expected.
    fn complain(&self, expected: impl Into<String>) {
        self.mistake(
            &self.path(),
            shortened(&self.node.to_string()),
            expected.into(),
        );
    }

    /// The same, for those who have nothing else to give back.
    fn wrong<T>(&self, expected: impl Into<String>) -> Read<T> {
        self.complain(expected);
        Err(Wrong)
    }

    fn mistake(&self, path: &Path<'_>, value: String, expected: String) {
        self.report.push(Mistake {
            source: None,
            document: None,
            object: None,
            path: path.text(),
            value: Some(value),
            expected,
        });
    }

    fn warn(&self, message: impl Into<String>) {
        self.report.warnings.borrow_mut().push(Warning {
            source: None,
            document: None,
            object: None,
            path: self.path().text(),
            message: message.into(),
        });
    }

    fn field(&self, name: &'a str, node: &'a Node<'a>) -> Self {
        self.inner(&Rc::new(self.path()), Step::Field(name), node)
    }

    fn string(&self) -> Read<&'a str> {
        match self.node {
            Node::String(text) => Ok(text),
            Node::Bool(_) | Node::Number(_) => self.wrong("a string; put it in quotes"),
            _ => self.wrong("a string"),
        }
    }

    /// A string that `read` makes a value of.
    fn text<T>(&self, expected: &str, read: impl FnOnce(&'a str) -> Option<T>) -> Read<T> {
        read(self.string()?).map_or_else(|| self.wrong(expected), Ok)
    }

    fn boolean(&self) -> Read<bool> {
        match self.node {
            Node::Bool(value) => Ok(*value),
            _ => self.wrong("true or false"),
        }
    }

    fn integer<T: TryFrom<i64>>(&self, range: RangeInclusive<i64>) -> Read<T> {
        let number = match self.node {
            Node::Number(number) => number.as_i64().filter(|number| range.contains(number)),
            _ => None,
        };
        let expected = || format!("a whole number from {} to {}", range.start(), range.end());
        number
            .and_then(|number| T::try_from(number).ok())
            .map_or_else(|| self.wrong(expected()), Ok)
    }

    /// One of a few words.
    fn word<T: Copy>(&self, words: &[(&str, T)]) -> Read<T> {
        let known = |(word, _): &&(&str, T)| self.node.as_str() == Some(word);
        if let Some((_, value)) = words.iter().find(known) {
            return Ok(*value);
        }
        let words: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        self.wrong(format!("one of {}", words.join(", ")))
    }

    /// The items of a list, each read even if one before it is wrong.
    fn items<T>(&self, max: usize, mut read: impl FnMut(&Self) -> Read<T>) -> Read<Vec<T>> {
        let Node::List(items) = self.node else {
            return self.wrong("a list");
        };
        if items.len() > max {
            self.mistake(
                &self.path(),
                format!("{} items", items.len()),
                format!("a list of at most {max}"),
            );
            return Err(Wrong);
        }
        let path = Rc::new(self.path());
        let mut all = Vec::with_capacity(items.len());
        for (index, node) in items.iter().enumerate() {
            all.extend(read(&self.inner(&path, Step::Item(index), node)));
        }
        if all.len() < items.len() {
            Err(Wrong)
        } else {
            Ok(all)
        }
    }

    /// The entries of a map whose keys are the operator's, each once.
    fn entries(&self, max: usize) -> Read<impl Iterator<Item = (&'a str, Self)>> {
        let (path, entries) = self.keys(max)?;
        let at = self.clone();
        let inner = move |(key, node)| (key, at.inner(&path, Step::Field(key), node));
        Ok(entries.into_iter().map(inner))
    }

    /// The keys of a map and what stands there, each once, and the path to them.
    #[expect(
        clippy::type_complexity,
        reason = "it is taken apart where it is called"
    )]
    fn keys(&self, max: usize) -> Read<(Rc<Path<'a>>, Vec<(&'a str, &'a Node<'a>)>)> {
        let Node::Map(entries) = self.node else {
            return self.wrong("a map");
        };
        if entries.len() > max {
            self.mistake(
                &self.path(),
                format!("{} entries", entries.len()),
                format!("a map of at most {max}"),
            );
            return Err(Wrong);
        }
        let path = Rc::new(self.path());
        let mut seen: Vec<(&str, &Node<'_>)> = Vec::with_capacity(entries.len());
        for (key, node) in entries {
            if seen.iter().any(|(name, _)| name == key) {
                let at = self.inner(&path, Step::Field(key), node);
                self.mistake(&at.path(), "given twice".into(), "each key once".into());
            } else {
                seen.push((key, node));
            }
        }
        Ok((path, seen))
    }

    /// The fields of a map whose keys are weir's.
    fn fields(&self) -> Read<Fields<'a>> {
        let (path, entries) = self.keys(FIELDS_MAX)?;
        Ok(Fields {
            at: self.clone(),
            path,
            entries,
            asked: Vec::with_capacity(ASKED),
        })
    }
}

/// All values, or none if one of them is wrong. Each is read, either way.
fn all<T, C: FromIterator<T>>(read: impl Iterator<Item = Read<T>>) -> Read<C> {
    let mut wrong = false;
    let right = read.filter_map(|read| {
        wrong |= read.is_err();
        read.ok()
    });
    let right = right.collect();
    if wrong { Err(Wrong) } else { Ok(right) }
}

/// The fields of one map. Whoever is done asking calls [`Fields::finish`],
/// which reports every field that nobody asked for.
struct Fields<'a> {
    at: At<'a>,
    path: Rc<Path<'a>>,
    /// Those that nobody took, as they were written.
    entries: Vec<(&'a str, &'a Node<'a>)>,
    asked: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// The field, if it is there. `null` is as good as absent, as in Kubernetes.
    fn find(&mut self, name: &'static str) -> Option<At<'a>> {
        self.asked.push(name);
        self.take(name).filter(|at| *at.node != Node::Null)
    }

    /// What `read` makes of the field, if it is there.
    fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&At<'a>) -> Read<T>,
    ) -> Read<Option<T>> {
        self.find(name).map(|at| read(&at)).transpose()
    }

    /// What `read` makes of the field; its absence is a mistake.
    fn required<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        read: impl FnOnce(&At<'a>) -> Read<T>,
    ) -> Read<T> {
        if let Some(at) = self.find(name) {
            return read(&at);
        }
        let path = Path {
            parent: Some(Rc::clone(&self.path)),
            step: Step::Field(name),
        };
        self.at.mistake(&path, "absent".into(), expected.to_owned());
        Err(Wrong)
    }

    fn take(&mut self, name: &str) -> Option<At<'a>> {
        let index = self.entries.iter().position(|(key, _)| *key == name)?;
        let (name, node) = self.entries.remove(index);
        Some(self.at.inner(&self.path, Step::Field(name), node))
    }

    /// A field of the design that means nothing yet: saying so beats ignoring it.
    fn refuse(&mut self, name: &str, why: &str) {
        if let Some(at) = self.take(name) {
            at.complain(format!("no `{name}`: {why}"));
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
        for (name, node) in self.entries {
            let close =
                |known: &&&str| strsim::damerau_levenshtein(name, known) <= 2.min(name.len() / 2);
            let hint = match self
                .asked
                .iter()
                .filter(close)
                .min_by_key(|known| strsim::damerau_levenshtein(name, known))
            {
                Some(known) => format!("; did you mean `{known}`?"),
                None => format!("; known here: {}", self.asked.join(", ")),
            };
            let at = self.at.inner(&self.path, Step::Field(name), node);
            at.complain(format!("no field of this name{hint}"));
        }
    }
}

#[cfg(test)]
mod tests;
