//! The log of small commits: what changed since the files that `head.json`
//! names were written, one line a commit, so that a change of one object does
//! not write all of them again.
//!
//! A commit holds once its line is on the disk, newline and all. A line without
//! one is what a crash left of a commit that nobody was told of: it is cut off.
//! Must never hold a line after one that could not be finished.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::StoreError;
use super::changes::Changed;
use super::file::{StateDir, io_error};
use super::format::{Head, VERSION};
use super::version::ResourceVersion;
use crate::config::{Document, Kind};

/// What the first line says the file is.
const FORMAT: &str = "weir log";

/// The first line.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Title {
    format: String,
    version: u64,
    /// `resourceVersion` of the head whose files it goes on from.
    base: ResourceVersion,
}

/// One commit.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Record {
    pub(super) resource_version: ResourceVersion,
    pub(super) generation: u64,
    pub(super) revision: u64,
    pub(super) changes: Vec<Logged>,
}

/// One object of a commit.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Logged {
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) name: String,
    /// The document from then on, with its version; `None`: it is gone.
    pub(super) after: Option<Value>,
}

impl Record {
    /// The commit that made `head` of what was before.
    pub(super) fn new(head: &Head, changes: &[Changed]) -> Self {
        let logged = changes.iter().map(|change| Logged {
            kind: change.kind,
            namespace: change.name.namespace().to_owned(),
            name: change.name.name().to_owned(),
            after: change
                .after
                .as_ref()
                .map(|object| Document::new(object, Some(head.resource_version)).to_value()),
        });
        Self {
            resource_version: head.resource_version,
            generation: head.generation,
            revision: head.revision,
            changes: logged.collect(),
        }
    }
}

/// The name of the log that goes on from the head of this version.
pub(super) fn name(base: ResourceVersion) -> String {
    format!("log-{base}.jsonl")
}

/// The open log.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    path: PathBuf,
    /// Bytes that hold whole lines.
    size: u64,
}

impl Log {
    /// Starts an empty log.
    pub(super) fn create(dir: &StateDir, base: ResourceVersion) -> Result<Self, StoreError> {
        let (file, path) = dir.open_new(&name(base))?;
        let mut log = Self {
            file,
            path,
            size: 0,
        };
        let title = Title {
            format: FORMAT.to_owned(),
            version: VERSION,
            base,
        };
        log.line(&title)?;
        dir.sync()?;
        Ok(log)
    }

    /// Opens the log of this head, if there is one, and reads its commits.
    pub(super) fn open(
        dir: &StateDir,
        base: ResourceVersion,
    ) -> Result<Option<(Self, Vec<Record>)>, StoreError> {
        let name = name(base);
        let Some((file, path, text)) = dir.open_text(&name)? else {
            return Ok(None);
        };
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut lines = text[..whole].lines();
        let Some(title) = lines.next() else {
            // Not even the first line was finished: no commit is in it.
            return Ok(None);
        };
        let corrupt =
            |line: usize, reason: String| dir.corrupt(&name, format!("line {line}: {reason}"));
        let title: Title =
            serde_json::from_str(title).map_err(|error| corrupt(1, error.to_string()))?;
        if title.version != VERSION {
            let found = title.version;
            return Err(StoreError::Version { path, found });
        }
        if title.format != FORMAT || title.base != base {
            return Err(corrupt(1, "it is no log of this state".to_owned()));
        }
        let mut records: Vec<Record> = Vec::new();
        let mut last = base;
        for (index, line) in lines.enumerate() {
            let record: Record = serde_json::from_str(line)
                .map_err(|error| corrupt(index + 2, error.to_string()))?;
            if record.resource_version != last.next() {
                return Err(corrupt(
                    index + 2,
                    "a commit before it is missing".to_owned(),
                ));
            }
            last = record.resource_version;
            records.push(record);
        }
        let mut log = Self {
            file,
            path,
            size: whole as u64,
        };
        log.cut()?;
        Ok(Some((log, records)))
    }

    /// Adds a commit. After an error the log must not be used any more.
    pub(super) fn append(&mut self, record: &Record) -> Result<(), StoreError> {
        self.line(record)
    }

    fn line(&mut self, content: &impl Serialize) -> Result<(), StoreError> {
        let fail = |source| io_error("write", &self.path, source);
        let mut line = serde_json::to_vec(content).map_err(|error| fail(error.into()))?;
        line.push(b'\n');
        let written = self
            .file
            .write_all(&line)
            .and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.size += line.len() as u64;
                Ok(())
            }
            Err(source) => {
                let error = io_error("write", &self.path, source);
                self.cut()?;
                Err(error)
            }
        }
    }

    /// Leaves whole lines only, and goes on behind them.
    fn cut(&mut self) -> Result<(), StoreError> {
        self.file
            .set_len(self.size)
            .and_then(|()| self.file.seek(SeekFrom::Start(self.size)))
            .and_then(|_| self.file.sync_data())
            .map_err(|source| io_error("write", &self.path, source))
    }
}
