//! What is in force, on disk: rules with generations, history and undo;
//! inventory with a revision. Owns the state directory.
//!
//! `head.json` names the files that are in force and is replaced last, so a
//! crash leaves the state before a commit or the one after it. Must never
//! judge a configuration: what it is given was checked.
//!
//! Undo is the caller's: it takes [`Store::undo`], puts these rules in the
//! place of the current ones ([`Objects::replace_rules`]) and commits. That makes a new generation,
//! so undoing twice gives back what there was, as `kubectl rollout undo` does.

mod changes;
mod file;
mod format;
mod version;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::Value;

use super::document::parse_values;
use super::{Kind, Object, ObjectName, Objects};
use changes::{Changed, changed};
use file::StateDir;
pub use format::{Author, Edit, Entry, EntryChange};
use format::{Head, ObjectsFile, StoredEntry};
pub use version::{ResourceVersion, Stale};

/// Generations that can be undone.
pub const HISTORY_MAX: usize = 100;

/// The state directory does not serve. Each says what helps.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Two daemons would overwrite each other's state.
    #[error("{} is in use by another weir: stop it first, or give this one a --state-dir of its own", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// Whoever may write there may rewrite the policy.
    #[error("{0} can be written by others than its owner: `chmod 0700 {0}`", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
    },
    /// Not what weir wrote.
    #[error("{} is damaged ({reason}): {}", path.display(), file::remedy(path))]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Written by a weir with other formats.
    #[error("{} has format version {found}, this weir reads {}: run the weir that wrote it, or move its directory away and apply your files again", path.display(), format::VERSION)]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// There is no generation before the first.
    #[error("nothing to undo: no rule was ever applied")]
    NothingToUndo,
    /// No such rule set to go back to.
    #[error("generation {asked} is not kept: {oldest} to {newest} are")]
    UnknownGeneration {
        /// What was asked for.
        asked: u64,
        /// The first that can be restored.
        oldest: u64,
        /// The one in force.
        newest: u64,
    },
}

/// The numbers in force after a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Receipt {
    /// Of the rules; 0 before there were any.
    pub generation: u64,
    /// Of the inventory; 0 before there was any.
    pub revision: u64,
}

/// The state directory, opened and locked.
#[derive(Debug)]
pub struct Store {
    dir: StateDir,
    head: Head,
    /// What the files in force hold.
    objects: Objects,
    versions: Versions,
    /// Oldest first, without gaps, the last one of `head.generation`.
    history: Vec<Entry>,
}

type Versions = BTreeMap<Kind, BTreeMap<ObjectName, ResourceVersion>>;

impl Store {
    /// Opens `dir`, creating it where it is missing, and reads what is in force.
    ///
    /// # Errors
    /// Another daemon holds it, or a file in it cannot be read or understood.
    pub fn open(dir: &Path) -> Result<(Self, Objects), StoreError> {
        let dir = StateDir::open(dir)?;
        let head = dir.read_head()?;
        let mut objects = Objects::default();
        let mut versions = Versions::new();
        for (name, number) in [
            (file::rules(head.generation), head.generation),
            (file::inventory(head.revision), head.revision),
        ] {
            if number > 0 {
                load(&dir, &name, number, &mut objects, &mut versions)?;
            }
        }
        let history = dir
            .read_history(head.generation)?
            .into_iter()
            .map(StoredEntry::into_entry)
            .collect();
        dir.sweep(&head);
        let store = Self {
            dir,
            head,
            objects: objects.clone(),
            versions,
            history,
        };
        Ok((store, objects))
    }

    /// Writes `objects` as what is in force. The generation rises if a rule
    /// changed, the revision if the inventory did; nothing is written if neither.
    ///
    /// # Errors
    /// The disk refused; what was in force is still what the store holds.
    pub fn commit(&mut self, objects: &Objects, author: Author) -> Result<Receipt, StoreError> {
        let changes = changed(&self.objects, objects);
        if changes.is_empty() {
            return Ok(self.receipt());
        }
        let (rules, inventory): (Vec<_>, Vec<_>) =
            changes.iter().partition(|change| change.kind.is_rule());
        let mut head = self.head.clone();
        head.resource_version = head.resource_version.next();
        head.generation += u64::from(!rules.is_empty());
        head.revision += u64::from(!inventory.is_empty());
        let versions = self.versions_after(&changes, head.resource_version);
        let mut entry = None;
        if !rules.is_empty() {
            let stored = StoredEntry::new(head.generation, Timestamp::now(), author, &rules);
            self.dir.write(&file::history(head.generation), &stored)?;
            let file = objects_file(head.generation, objects, &versions, Kind::is_rule);
            self.dir.write(&file::rules(head.generation), &file)?;
            entry = Some(stored.into_entry());
        }
        if !inventory.is_empty() {
            let file = objects_file(head.revision, objects, &versions, |kind| !kind.is_rule());
            self.dir.write(&file::inventory(head.revision), &file)?;
        }
        self.dir.write(file::HEAD, &head)?;
        self.head = head;
        self.objects = objects.clone();
        self.versions = versions;
        self.history.extend(entry);
        if self.history.len() > HISTORY_MAX {
            self.history.remove(0);
        }
        self.dir.sweep(&self.head);
        Ok(self.receipt())
    }

    /// The numbers in force.
    pub fn receipt(&self) -> Receipt {
        Receipt {
            generation: self.head.generation,
            revision: self.head.revision,
        }
    }

    /// The generations that are kept, oldest first.
    pub fn history(&self) -> &[Entry] {
        &self.history
    }

    /// The rules to go back to: those of generation `to`, or of the one
    /// before the current.
    ///
    /// # Errors
    /// As [`Self::rules_at`], or there is nothing to undo.
    pub fn undo(&self, to: Option<u64>) -> Result<Objects, StoreError> {
        let before = || self.head.generation.checked_sub(1);
        self.rules_at(to.or_else(before).ok_or(StoreError::NothingToUndo)?)
    }

    /// The rules of a generation, without any inventory. Generation 0 is the
    /// time before the first rule.
    ///
    /// # Errors
    /// It is not kept any more or has not come yet, or a file is damaged.
    pub fn rules_at(&self, generation: u64) -> Result<Objects, StoreError> {
        let newest = self.head.generation;
        let oldest = newest - self.history.len() as u64;
        if !(oldest..=newest).contains(&generation) {
            return Err(StoreError::UnknownGeneration {
                asked: generation,
                oldest,
                newest,
            });
        }
        let mut rules = Objects::default();
        rules.replace_rules(&self.objects);
        for later in (generation + 1..=newest).rev() {
            let path = file::history(later);
            let entry: StoredEntry = self.dir.read(&path, later)?;
            entry
                .take_back(&mut rules)
                .map_err(|reason| self.dir.corrupt(&path, reason))?;
        }
        Ok(rules)
    }

    /// The version of an object in force; it changes with every change of the object.
    pub fn resource_version(&self, kind: Kind, name: &ObjectName) -> Option<ResourceVersion> {
        self.versions.get(&kind)?.get(name).copied()
    }

    /// Whether a change that names a version was made from the object in
    /// force. Without a version it is taken to be meant for any.
    ///
    /// # Errors
    /// The object was changed or deleted since that version.
    pub fn check_version(
        &self,
        kind: Kind,
        name: &ObjectName,
        given: Option<ResourceVersion>,
    ) -> Result<(), Stale> {
        let current = self.resource_version(kind, name);
        match given {
            Some(given) if current != Some(given) => Err(Stale {
                object: format!("{kind} {name}"),
                given,
                current,
            }),
            _ => Ok(()),
        }
    }

    /// The canonical document of an object, with its version.
    pub fn document(&self, object: &Object) -> Value {
        with_version(object, self.resource_version(object.kind(), object.name()))
    }

    fn versions_after(&self, changes: &[Changed], version: ResourceVersion) -> Versions {
        let mut versions = self.versions.clone();
        for change in changes {
            let of_kind = versions.entry(change.kind).or_default();
            if change.after {
                of_kind.insert(change.name.clone(), version);
            } else {
                of_kind.remove(&change.name);
            }
        }
        versions
    }
}

fn with_version(object: &Object, version: Option<ResourceVersion>) -> Value {
    let mut document = object.to_json();
    if let Some(version) = version {
        document["metadata"]["resourceVersion"] = Value::from(version.to_string());
    }
    document
}

fn objects_file(
    number: u64,
    objects: &Objects,
    versions: &Versions,
    wanted: impl Fn(Kind) -> bool,
) -> ObjectsFile {
    let all = Kind::ALL
        .into_iter()
        .filter(|kind| wanted(*kind))
        .flat_map(|kind| objects.list(kind));
    let document = |object: Object| {
        let version = versions
            .get(&object.kind())
            .and_then(|of_kind| of_kind.get(object.name()))
            .copied();
        with_version(&object, version)
    };
    ObjectsFile::new(number, all.map(document).collect())
}

fn load(
    dir: &StateDir,
    name: &str,
    number: u64,
    objects: &mut Objects,
    versions: &mut Versions,
) -> Result<(), StoreError> {
    let file: ObjectsFile = dir.read(name, number)?;
    let parsed = parse_values(name, &file.objects)
        .map_err(|mistakes| dir.corrupt(name, mistakes.to_string()))?;
    for object in &parsed.objects {
        let version = parsed
            .resource_version(object.kind(), object.name())
            .ok_or_else(|| dir.corrupt(name, format!("{object} has no resourceVersion")))?;
        versions
            .entry(object.kind())
            .or_default()
            .insert(object.name().clone(), version);
        objects.upsert(object.clone());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
