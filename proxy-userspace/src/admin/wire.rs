//! What goes over the admin socket, as JSON. Shared by the daemon and the
//! command line; documented in docs/admin-api.md, and stable.
//!
//! Must never hold a type of the inside: renaming one there changes nothing here.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{Edit, Entry, EntryChange};
use crate::control::DataplaneStatus;

/// The media type of [`Sources`].
pub const SOURCES_JSON: &str = "application/vnd.weir.sources+json";

/// Several files of documents in one request, so that mistakes can name the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sources {
    /// The files, in the order they count.
    pub sources: Vec<SourceText>,
}

/// One file of documents.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceText {
    /// Its name, as mistakes show it.
    pub name: String,
    /// YAML or JSON.
    pub text: String,
}

/// Text that stays where it is, in an object or in an answer: a receipt may
/// name every object of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Text<'t>(#[serde(borrow)] pub Cow<'t, str>);

impl AsRef<str> for Text<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl<'t, T: Into<Cow<'t, str>>> From<T> for Text<'t> {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

/// The answer to every write.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt<O = Vec<ObjectChange>> {
    /// The generation of the rules that is in force.
    pub generation: u64,
    /// The revision of the inventory that is in force.
    pub revision: u64,
    /// Whether nothing was changed because only a check was asked for.
    pub dry_run: bool,
    /// What became of each object, in the order of the request: [`ObjectChange`]s.
    pub objects: O,
    /// What was accepted but may not be what was meant.
    pub warnings: Vec<Remark>,
}

/// The answer to `DELETE /v1/workloads/NAMESPACE/NAME/older`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// Connections that were closed.
    pub closed: u64,
}

/// What became of one object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectChange<T = String> {
    /// Its kind, as documents write it.
    pub kind: T,
    /// Its namespace.
    pub namespace: T,
    /// Its name.
    pub name: T,
    /// What was done.
    pub change: Change,
    /// Its new version; absent in a dry run and for what is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<T>,
    /// In a dry run: the difference as a unified diff of YAML; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diff: Option<T>,
}

/// What was done with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It is new.
    Created,
    /// It was there and says something else now.
    Configured,
    /// It already said this.
    Unchanged,
    /// It is gone.
    Deleted,
}

impl Change {
    /// As people read it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
            Self::Deleted => "deleted",
        }
    }
}

/// A mistake or a warning: in words, and taken apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Remark {
    /// The whole remark in one line, with its place.
    pub text: String,
    /// `source`, `document`, `object`, `path`, and for a mistake `value` and
    /// `expected`, for a warning `message`; as far as they are known.
    #[serde(flatten)]
    pub parts: Value,
}

impl Remark {
    /// The remark that `of` is.
    pub fn new(of: &(impl ToString + Serialize)) -> Self {
        let text = of.to_string();
        // Mistakes and warnings are structs of strings and numbers; these always serialize.
        let parts =
            serde_json::to_value(of).unwrap_or_else(|_| Value::Object(serde_json::Map::new()));
        Self { text, parts }
    }

    /// A remark without parts.
    pub fn plain(text: String) -> Self {
        Self {
            text,
            parts: Value::Object(serde_json::Map::new()),
        }
    }
}

/// The answer to a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct List {
    /// Always `v1`, as kubectl lists objects of all kinds.
    pub api_version: String,
    /// Always `List`.
    pub kind: String,
    /// What was in force when it was read.
    pub metadata: ListMeta,
    /// The objects, by namespace and name.
    pub items: Vec<Value>,
}

/// What was in force when a list was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMeta {
    /// The generation of the rules.
    pub generation: u64,
    /// The revision of the inventory.
    pub revision: u64,
}

/// Any other list of things.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Items<T> {
    /// The things.
    pub items: Vec<T>,
}

/// The answer to `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Name of the node.
    pub node: String,
    /// Version of the daemon.
    pub version: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// When it started, RFC 3339.
    pub started_at: jiff::Timestamp,
    /// How long it has run.
    pub uptime_seconds: u64,
    /// The generation of the rules that is in force.
    pub generation: u64,
    /// The revision of the inventory that is in force.
    pub revision: u64,
    /// How many objects of each kind are in force.
    pub objects: std::collections::BTreeMap<String, usize>,
    /// What the last start or write left to say.
    pub warnings: Vec<Remark>,
    /// The data plane.
    pub dataplane: DataplaneStatus,
}

/// One generation, in the answer to `GET /v1/history`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// Its number.
    pub generation: u64,
    /// When it came into force.
    pub time: jiff::Timestamp,
    /// The user id that asked for it.
    pub uid: u32,
    /// Why, if it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What it changed; the first hundred.
    pub changes: Vec<ObjectChange>,
    /// How many changes are not listed.
    pub changes_omitted: usize,
}

impl From<Entry> for HistoryEntry {
    fn from(entry: Entry) -> Self {
        let Entry {
            generation,
            time,
            uid,
            reason,
            changes,
            changes_omitted,
        } = entry;
        let changes = changes.into_iter().map(ObjectChange::from).collect();
        Self {
            generation,
            time,
            uid,
            reason,
            changes,
            changes_omitted,
        }
    }
}

impl From<EntryChange> for ObjectChange {
    fn from(change: EntryChange) -> Self {
        let EntryChange {
            kind,
            namespace,
            name,
            change,
        } = change;
        let change = match change {
            Edit::Created => Change::Created,
            Edit::Configured => Change::Configured,
            Edit::Deleted => Change::Deleted,
        };
        Self {
            kind: kind.to_string(),
            namespace,
            name,
            change,
            resource_version: None,
            diff: None,
        }
    }
}
