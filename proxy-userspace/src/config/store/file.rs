//! The state directory as files: names, modes, and writes that are there as a
//! whole or not at all.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::format::{Format, Head, StoredEntry, VERSION};
use super::{HISTORY_MAX, StoreError, log};

pub(super) const HEAD: &str = "head.json";
const HISTORY: &str = "history";
const LOCK: &str = "lock";

/// What one file may hold, in bytes: a hundred thousand rules with room to spare.
const FILE_MAX: u64 = 512 * 1024 * 1024;

pub(super) fn rules(generation: u64) -> String {
    format!("rules-{generation}.json")
}

pub(super) fn inventory(revision: u64) -> String {
    format!("inventory-{revision}.json")
}

pub(super) fn history(generation: u64) -> String {
    format!("{HISTORY}/{generation}.json")
}

/// What helps against a damaged file.
pub(super) fn remedy(path: &Path) -> String {
    let parent = path.parent().unwrap_or(path);
    if parent.file_name().is_some_and(|name| name == HISTORY) {
        format!(
            "`rm {}` costs no more than undo to the generations before it",
            path.display()
        )
    } else {
        format!(
            "restore {0} from a backup, or `mv {0} {0}.bad` and apply your files again",
            parent.display()
        )
    }
}

/// The directory, held by this process alone.
#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
    /// Held as long as it is open.
    _lock: File,
}

impl StateDir {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        for dir in [path.to_path_buf(), path.join(HISTORY)] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
            made.map_err(|source| io_error("create", &dir, source))?;
            let mode = std::fs::metadata(&dir)
                .map_err(|source| io_error("read", &dir, source))?
                .mode();
            if mode & 0o022 != 0 {
                return Err(StoreError::Open { path: dir });
            }
        }
        let lock_path = path.join(LOCK);
        let lock = private()
            .open(&lock_path)
            .map_err(|source| io_error("open", &lock_path, source))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_path_buf(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path: lock_path }),
            Err(TryLockError::Error(source)) => Err(io_error("lock", &lock_path, source)),
        }
    }

    pub(super) fn corrupt(&self, name: &str, reason: impl Into<String>) -> StoreError {
        StoreError::Corrupt {
            path: self.path.join(name),
            reason: reason.into(),
        }
    }

    pub(super) fn read_head(&self) -> Result<Head, StoreError> {
        if self
            .path
            .join(HEAD)
            .try_exists()
            .map_err(|source| io_error("read", &self.path, source))?
        {
            return self.parse(HEAD, None);
        }
        // A crash in the very first commit leaves files numbered 1. Later
        // ones without a head mean that somebody lost it.
        match self.numbered("")?.iter().find(|(_, number)| *number > 1) {
            None => Ok(Head::default()),
            Some((name, _)) => {
                Err(self.corrupt(HEAD, format!("it is missing, but {name} is there")))
            }
        }
    }

    /// Reads a file that must be of this kind and carry this number.
    pub(super) fn read<T: Format + DeserializeOwned>(
        &self,
        name: &str,
        number: u64,
    ) -> Result<T, StoreError> {
        self.parse(name, Some(number))
    }

    fn parse<T: Format + DeserializeOwned>(
        &self,
        name: &str,
        number: Option<u64>,
    ) -> Result<T, StoreError> {
        let path = self.path.join(name);
        let mut text = String::new();
        let read =
            File::open(&path).and_then(|file| file.take(FILE_MAX + 1).read_to_string(&mut text));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(self.corrupt(name, "it is missing"));
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(self.corrupt(name, "it is not text"));
            }
            Err(source) => return Err(io_error("read", &path, source)),
            Ok(size) if size as u64 > FILE_MAX => {
                return Err(self.corrupt(name, "it is larger than weir writes any"));
            }
            Ok(_) => {}
        }
        let value: Value =
            serde_json::from_str(&text).map_err(|error| self.corrupt(name, error.to_string()))?;
        if value.get("format").and_then(Value::as_str) != Some(T::FORMAT) {
            return Err(self.corrupt(name, format!("its format is not `{}`", T::FORMAT)));
        }
        match value.get("version").and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(found) => return Err(StoreError::Version { path, found }),
            None => return Err(self.corrupt(name, "it has no version")),
        }
        let file: T =
            serde_json::from_value(value).map_err(|error| self.corrupt(name, error.to_string()))?;
        if file.number() == number {
            Ok(file)
        } else {
            Err(self.corrupt(name, "the number in it is not that of its name"))
        }
    }

    /// The generations up to `newest` that follow each other without a gap, oldest first.
    pub(super) fn read_history(&self, newest: u64) -> Result<Vec<StoredEntry>, StoreError> {
        let mut entries = Vec::new();
        for generation in (1..=newest).rev().take(HISTORY_MAX) {
            let name = history(generation);
            if !self.path.join(&name).exists() {
                break;
            }
            entries.push(self.read(&name, generation)?);
        }
        entries.reverse();
        Ok(entries)
    }

    /// Replaces a file, or leaves the old one as it is.
    pub(super) fn write<T: Serialize>(&self, name: &str, content: &T) -> Result<(), StoreError> {
        let path = self.path.join(name);
        let parent = path.parent().unwrap_or(&self.path);
        // The lock makes us the only writer, so one name for all is enough.
        let temporary = parent.join(".new");
        let fail = |source| io_error("write", &path, source);
        let mut out = BufWriter::new(private().truncate(true).open(&temporary).map_err(fail)?);
        serde_json::to_writer(&mut out, content).map_err(|error| fail(error.into()))?;
        out.write_all(b"\n").map_err(fail)?;
        let file = out.into_inner().map_err(|error| fail(error.into_error()))?;
        file.sync_all().map_err(fail)?;
        std::fs::rename(&temporary, &path).map_err(fail)?;
        File::open(parent)
            .and_then(|dir| dir.sync_all())
            .map_err(fail)
    }

    /// Makes a file, or empties the one that a crash left.
    pub(super) fn open_new(&self, name: &str) -> Result<(File, PathBuf), StoreError> {
        let path = self.path.join(name);
        let file = private()
            .truncate(true)
            .open(&path)
            .map_err(|source| io_error("write", &path, source))?;
        Ok((file, path))
    }

    /// Opens a file to read all of it and write on; `None` if there is none.
    pub(super) fn open_text(
        &self,
        name: &str,
    ) -> Result<Option<(File, PathBuf, String)>, StoreError> {
        let path = self.path.join(name);
        let mut file = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|source| io_error("open", &path, source))?,
        };
        let mut bytes = Vec::new();
        let read = (&mut file).take(FILE_MAX + 1).read_to_end(&mut bytes);
        read.map_err(|source| io_error("read", &path, source))?;
        if bytes.len() as u64 > FILE_MAX {
            return Err(self.corrupt(name, "it is larger than weir writes any"));
        }
        let text = String::from_utf8(bytes).map_err(|_| self.corrupt(name, "it is not text"))?;
        Ok(Some((file, path, text)))
    }

    /// Makes new names in the directory outlast a crash.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        File::open(&self.path)
            .and_then(|dir| dir.sync_all())
            .map_err(|source| io_error("write", &self.path, source))
    }

    /// Removes what is in force no longer. What stays is only in the way, so
    /// failing does no harm.
    ///
    /// `base` is the head on disk, `head` what the log made of it.
    pub(super) fn sweep(&self, base: &Head, head: &Head) {
        let kept = [
            rules(base.generation),
            inventory(base.revision),
            log::name(base.resource_version),
        ];
        for (name, _) in self.numbered("").unwrap_or_default() {
            if !kept.contains(&name) {
                let _left_behind = std::fs::remove_file(self.path.join(name));
            }
        }
        let oldest = head.generation.saturating_sub(HISTORY_MAX as u64);
        for (name, number) in self.numbered(HISTORY).unwrap_or_default() {
            if number <= oldest || number > head.generation {
                let _left_behind = std::fs::remove_file(self.path.join(HISTORY).join(name));
            }
        }
    }

    /// The files of weir's naming in a directory, with their numbers.
    fn numbered(&self, dir: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let dir = self.path.join(dir);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(|source| io_error("list", &dir, source))? {
            let name = entry
                .map_err(|source| io_error("list", &dir, source))?
                .file_name();
            let Some(name) = name.to_str() else { continue };
            let stem = name
                .strip_suffix(".json")
                .or_else(|| name.strip_suffix(".jsonl"))
                .unwrap_or_default();
            let digits = stem
                .trim_start_matches("rules-")
                .trim_start_matches("inventory-")
                .trim_start_matches("log-");
            if let Ok(number) = digits.parse() {
                found.push((name.to_owned(), number));
            }
        }
        Ok(found)
    }
}

/// For a file that only its owner reads.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    options
}

pub(super) fn io_error(action: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io {
        action,
        path: path.to_path_buf(),
        source,
    }
}
