//! What the files of the state directory hold. Every file says what it is and
//! in which version, so that neither a stranger nor a later weir is misread.

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::changes::Changed;
use super::version::ResourceVersion;
use crate::config::document::parse_value;
use crate::config::{Document, Kind, ObjectName, Objects};

/// The version of every format here; raised when a file's meaning changes.
pub(super) const VERSION: u64 = 1;

/// Changes of one generation that are listed; more are counted.
const LISTED_MAX: usize = 100;

/// Characters of a reason that are kept.
const REASON_MAX: usize = 1000;

/// A file that says what it is.
pub(super) trait Format {
    /// The word for it, in the file.
    const FORMAT: &'static str;

    /// The generation or revision that is in its name.
    fn number(&self) -> Option<u64>;
}

/// Which files are in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Head {
    format: String,
    version: u64,
    pub(super) generation: u64,
    pub(super) revision: u64,
    /// Of the last commit.
    pub(super) resource_version: ResourceVersion,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            format: Self::FORMAT.to_owned(),
            version: VERSION,
            generation: 0,
            revision: 0,
            resource_version: ResourceVersion::default(),
        }
    }
}

impl Format for Head {
    const FORMAT: &'static str = "weir state";

    fn number(&self) -> Option<u64> {
        None
    }
}

/// All rules of a generation, or all inventory of a revision: as it is read
/// with documents, as it is written with what makes them one by one.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ObjectsFile<T = Vec<Value>> {
    format: String,
    version: u64,
    number: u64,
    pub(super) objects: T,
}

impl<T> ObjectsFile<T> {
    pub(super) fn new(number: u64, objects: T) -> Self {
        Self {
            format: "weir objects".to_owned(),
            version: VERSION,
            number,
            objects,
        }
    }
}

impl Format for ObjectsFile {
    const FORMAT: &'static str = "weir objects";

    fn number(&self) -> Option<u64> {
        Some(self.number)
    }
}

/// Who changed something, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Author {
    /// The user id at the other end of the admin socket.
    pub uid: u32,
    /// `--reason`; the first thousand characters are kept.
    pub reason: Option<String>,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Edit {
    /// It came.
    Created,
    /// It was changed.
    Configured,
    /// It went.
    Deleted,
}

/// One object that a generation changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EntryChange {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What happened to it.
    pub change: Edit,
}

/// One generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Its number, from 1.
    pub generation: u64,
    /// When it came into force.
    pub time: Timestamp,
    /// Who brought it.
    pub uid: u32,
    /// Why, if that was said.
    pub reason: Option<String>,
    /// What it changed, the first hundred.
    pub changes: Vec<EntryChange>,
    /// How many changes are not listed.
    pub changes_omitted: usize,
}

/// One generation, with what it replaced: as it is read with changes of its own,
/// as it is written with those of the commit.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct StoredEntry<T = Vec<StoredChange>> {
    format: String,
    version: u64,
    generation: u64,
    time: Timestamp,
    uid: u32,
    reason: Option<String>,
    changes: T,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredChange<S = String, D = Value> {
    kind: Kind,
    namespace: S,
    name: S,
    change: Edit,
    /// The document that was in force before.
    before: Option<D>,
}

/// The changes of a commit, each made into what is stored as it is written.
pub(super) struct Written<'a>(&'a [&'a Changed]);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|change| {
            StoredChange {
                kind: change.kind,
                namespace: change.name.namespace(),
                name: change.name.name(),
                change: edit(change),
                before: change
                    .before
                    .as_ref()
                    .map(|object| Document::new(object, None)),
            }
        }))
    }
}

fn edit(change: &Changed) -> Edit {
    match (&change.before, &change.after) {
        (None, _) => Edit::Created,
        (Some(_), Some(_)) => Edit::Configured,
        (Some(_), None) => Edit::Deleted,
    }
}

impl Format for StoredEntry {
    const FORMAT: &'static str = "weir generation";

    fn number(&self) -> Option<u64> {
        Some(self.generation)
    }
}

impl<'a> StoredEntry<Written<'a>> {
    pub(super) fn new(
        generation: u64,
        time: Timestamp,
        author: Author,
        changes: &'a [&'a Changed],
    ) -> Self {
        Self {
            format: StoredEntry::FORMAT.to_owned(),
            version: VERSION,
            generation,
            time,
            uid: author.uid,
            reason: author
                .reason
                .map(|reason| reason.chars().take(REASON_MAX).collect()),
            changes: Written(changes),
        }
    }

    /// What is kept in memory, as of one that was read.
    pub(super) fn entry(self) -> Entry {
        let changes = self.changes.0;
        self.listing(changes, |change| EntryChange {
            kind: change.kind,
            namespace: change.name.namespace().to_owned(),
            name: change.name.name().to_owned(),
            change: edit(change),
        })
    }
}

impl<T> StoredEntry<T> {
    /// What is kept in memory: the names without the documents.
    fn listing<C>(self, changes: &[C], listed: impl Fn(&C) -> EntryChange) -> Entry {
        Entry {
            generation: self.generation,
            time: self.time,
            uid: self.uid,
            reason: self.reason,
            changes: changes.iter().take(LISTED_MAX).map(listed).collect(),
            changes_omitted: changes.len().saturating_sub(LISTED_MAX),
        }
    }
}

impl StoredEntry {
    /// What is kept in memory.
    pub(super) fn into_entry(mut self) -> Entry {
        let changes = std::mem::take(&mut self.changes);
        self.listing(&changes, |change| EntryChange {
            kind: change.kind,
            namespace: change.namespace.clone(),
            name: change.name.clone(),
            change: change.change,
        })
    }

    /// Turns the rules of this generation into those of the one before it.
    pub(super) fn take_back(self, rules: &mut Objects) -> Result<(), String> {
        for StoredChange {
            kind,
            namespace,
            name,
            change: _,
            before,
        } in self.changes
        {
            match before {
                None => drop(rules.remove(kind, &ObjectName::new(&namespace, &name))),
                Some(document) => {
                    let parsed = parse_value(&format!("{kind} {namespace}/{name}"), &document);
                    for object in parsed.map_err(|mistakes| mistakes.to_string())?.objects {
                        rules.upsert(object);
                    }
                }
            }
        }
        Ok(())
    }
}
