//! What is in force, on disk: rules with generations, history and undo;
//! inventory with a revision. Owns the state directory.
//!
//! `head.json` names the files that hold all objects and is replaced last;
//! what small commits changed since stands in a log beside them. Either way a
//! crash leaves the state before a commit or the one after it. Must never
//! judge a configuration: what it is given was checked.
//!
//! Undo is the caller's: it takes [`Store::undo`], puts these rules in the
//! place of the current ones ([`Objects::replace_rules`]) and commits. That makes a new generation,
//! so undoing twice gives back what there was, as `kubectl rollout undo` does.

mod changes;
mod document;
mod error;
mod file;
mod format;
mod log;
mod version;

use std::collections::BTreeMap;
use std::path::Path;

use imbl::OrdMap;
use jiff::Timestamp;
use serde_json::Value;

use super::document::parse_values;
use super::{Document, Kind, Object, ObjectName, Objects};
use changes::{Changed, changed};
use document::All;
pub use error::StoreError;
use file::StateDir;
pub use format::{Author, Edit, Entry, EntryChange};
use format::{Head, ObjectsFile, StoredEntry};
use log::{Log, Record};
pub use version::{ResourceVersion, Stale};

/// Generations that can be undone.
pub const HISTORY_MAX: usize = 100;

/// One of so many objects may be changed through the log before everything is
/// written again: the work for that is shared by as many changes, and a start
/// reads little more than once over.
const LOGGED_SHARE: usize = 4;

/// The numbers in force after a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Receipt {
    /// Of the rules; 0 before there were any.
    pub generation: u64,
    /// Of the inventory; 0 before there was any.
    pub revision: u64,
}

/// A commit that is written but not in force.
#[derive(Debug)]
pub struct Staged {
    head: Head,
    objects: Objects,
    versions: Versions,
    entry: Option<Entry>,
    /// What the log is to say; `None`: the head is to name new files.
    line: Option<Record>,
}

/// The state directory, opened and locked.
#[derive(Debug)]
pub struct Store {
    dir: StateDir,
    /// The head on disk, which names the files.
    base: Head,
    /// What the log has made of it.
    head: Head,
    log: Option<Log>,
    /// Only a new head gets past what a failed write may have left.
    is_log_broken: bool,
    /// Changes in the log.
    logged: usize,
    /// What is in force.
    objects: Objects,
    versions: Versions,
    /// Oldest first, without gaps, the last one of `head.generation`.
    history: Vec<Entry>,
}

/// The version of every object. A copy shares what is the same.
pub type Versions = BTreeMap<Kind, OrdMap<ObjectName, ResourceVersion>>;

impl Store {
    /// Opens `dir`, creating it where it is missing, and reads what is in force.
    ///
    /// # Errors
    /// Another daemon holds it, or a file in it cannot be read or understood.
    pub fn open(dir: &Path) -> Result<(Self, Objects), StoreError> {
        let dir = StateDir::open(dir)?;
        let base = dir.read_head()?;
        let mut store = Self {
            head: base.clone(),
            base,
            dir,
            log: None,
            is_log_broken: false,
            logged: 0,
            objects: Objects::default(),
            versions: Versions::new(),
            history: Vec::new(),
        };
        for (name, number) in [
            (file::rules(store.base.generation), store.base.generation),
            (file::inventory(store.base.revision), store.base.revision),
        ] {
            if number > 0 {
                let file: ObjectsFile = store.dir.read(&name, number)?;
                store.take(&name, &file.objects)?;
            }
        }
        store.replay()?;
        let history = store.dir.read_history(store.head.generation)?;
        store.history = history.into_iter().map(StoredEntry::into_entry).collect();
        store.dir.sweep(&store.base, &store.head);
        let objects = store.objects.clone();
        Ok((store, objects))
    }

    /// Takes over what small commits changed.
    fn replay(&mut self) -> Result<(), StoreError> {
        let base = self.base.resource_version;
        let Some((log, records)) = Log::open(&self.dir, base)? else {
            return Ok(());
        };
        let name = log::name(base);
        for record in records {
            self.logged += record.changes.len();
            for change in record.changes {
                if let Some(document) = change.after {
                    self.take(&name, std::slice::from_ref(&document))?;
                } else {
                    let gone = ObjectName::new(&change.namespace, &change.name);
                    self.objects.remove(change.kind, &gone);
                    self.versions.entry(change.kind).or_default().remove(&gone);
                }
            }
            self.head.generation = record.generation;
            self.head.revision = record.revision;
            self.head.resource_version = record.resource_version;
        }
        self.log = Some(log);
        Ok(())
    }

    /// Takes over documents of a file, in the place of what they replace.
    fn take(&mut self, name: &str, documents: &[Value]) -> Result<(), StoreError> {
        let parsed = parse_values(name, documents)
            .map_err(|mistakes| self.dir.corrupt(name, mistakes.to_string()))?;
        for object in &parsed.objects {
            let version = parsed
                .resource_version(object.kind(), object.name())
                .ok_or_else(|| {
                    let reason = format!("{object} has no resourceVersion");
                    self.dir.corrupt(name, reason)
                })?;
            self.versions
                .entry(object.kind())
                .or_default()
                .insert(object.name().clone(), version);
        }
        self.objects.upsert_all(parsed.objects);
        Ok(())
    }

    /// Writes `objects` as what is in force. The generation rises if a rule
    /// changed, the revision if the inventory did; nothing is written if neither.
    ///
    /// # Errors
    /// The disk refused; what was in force is still what the store holds.
    pub fn commit(&mut self, objects: &Objects, author: Author) -> Result<Receipt, StoreError> {
        let staged = self.stage(objects, author)?;
        self.seal(staged)
    }

    /// The first and longer half of a commit: writes what no head names yet,
    /// so that nothing is in force by it. What never gets sealed is swept away.
    ///
    /// # Errors
    /// The disk refused.
    pub fn stage(&self, objects: &Objects, author: Author) -> Result<Option<Staged>, StoreError> {
        let changes = changed(&self.objects, objects);
        if changes.is_empty() {
            return Ok(None);
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
            entry = Some(stored.entry());
        }
        let logged = self.logged + changes.len();
        let line = if !self.is_log_broken && logged <= objects.len() / LOGGED_SHARE {
            Some(Record::new(&head, &changes))
        } else {
            self.write_all(&head, objects, &versions)?;
            None
        };
        Ok(Some(Staged {
            head,
            objects: objects.clone(),
            versions,
            entry,
            line,
        }))
    }

    /// The second half: what was staged is in force from now on.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub fn seal(&mut self, staged: Option<Staged>) -> Result<Receipt, StoreError> {
        let Some(staged) = staged else {
            return Ok(self.receipt());
        };
        if let Some(line) = &staged.line {
            let appended = self.append(line);
            self.is_log_broken = appended.is_err();
            appended?;
            self.logged += line.changes.len();
        } else {
            self.dir.write(file::HEAD, &staged.head)?;
            self.base = staged.head.clone();
            self.log = None;
            self.is_log_broken = false;
            self.logged = 0;
        }
        self.head = staged.head;
        self.objects = staged.objects;
        self.versions = staged.versions;
        self.history.extend(staged.entry);
        if self.history.len() > HISTORY_MAX {
            self.history.remove(0);
        }
        self.dir.sweep(&self.base, &self.head);
        Ok(self.receipt())
    }

    fn append(&mut self, line: &Record) -> Result<(), StoreError> {
        let log = match &mut self.log {
            Some(log) => log,
            none => none.insert(Log::create(&self.dir, self.base.resource_version)?),
        };
        log.append(line)
    }

    /// Writes everything that a head with these numbers names.
    fn write_all(
        &self,
        head: &Head,
        objects: &Objects,
        versions: &Versions,
    ) -> Result<(), StoreError> {
        if head.generation != self.base.generation {
            let file = All::of(objects, versions, Kind::is_rule);
            let file = ObjectsFile::new(head.generation, file);
            self.dir.write(&file::rules(head.generation), &file)?;
        }
        if head.revision != self.base.revision {
            let file = All::of(objects, versions, |kind| !kind.is_rule());
            let file = ObjectsFile::new(head.revision, file);
            self.dir.write(&file::inventory(head.revision), &file)?;
        }
        Ok(())
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

    /// The version of every object in force.
    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    /// The canonical document of an object, with its version.
    pub fn document(&self, object: &Object) -> Value {
        let version = self.resource_version(object.kind(), object.name());
        Document::new(object, version).to_value()
    }

    fn versions_after(&self, changes: &[Changed], version: ResourceVersion) -> Versions {
        let mut versions = self.versions.clone();
        for change in changes {
            let of_kind = versions.entry(change.kind).or_default();
            if change.after.is_some() {
                of_kind.insert(change.name.clone(), version);
            } else {
                of_kind.remove(&change.name);
            }
        }
        versions
    }
}

#[cfg(test)]
mod tests;
