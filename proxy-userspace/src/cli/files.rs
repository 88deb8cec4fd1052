//! The documents that `-f` names: files, directories, standard input.
//!
//! Must never look inside a document: that is the daemon's part.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::admin::wire::SourceText;
use crate::config::INPUT_MAX;

/// A directory holds a configuration, not an archive.
const DIRECTORY_MAX: usize = 10_000;

/// Why the documents could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// A file or directory cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// All files together are larger than the daemon takes.
    #[error("the files hold more than {} MiB: apply them in parts", INPUT_MAX >> 20)]
    TooLarge,
    /// A directory without documents.
    #[error("{0}: no *.yaml, *.yml or *.json in this directory")]
    Empty(PathBuf),
    /// A directory with far too many files.
    #[error("{0}: more than {DIRECTORY_MAX} files in this directory")]
    TooMany(PathBuf),
    /// Standard input was asked for twice.
    #[error("standard input (-) can be read only once")]
    StdinTwice,
}

/// Reads everything that `paths` name, in that order; files of a directory by name.
pub(super) fn read(paths: &[PathBuf]) -> Result<Vec<SourceText>, FileError> {
    let mut left = INPUT_MAX;
    let mut sources = Vec::new();
    let mut stdin_read = false;
    for path in paths {
        if path.as_os_str() == "-" {
            if std::mem::replace(&mut stdin_read, true) {
                return Err(FileError::StdinTwice);
            }
            sources.push(read_one(Path::new("stdin"), io::stdin().lock(), &mut left)?);
            continue;
        }
        for file in files_of(path)? {
            let open = File::open(&file).map_err(failed(&file))?;
            sources.push(read_one(&file, open, &mut left)?);
        }
    }
    Ok(sources)
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_path_buf();
    move |source| FileError::Read { path, source }
}

fn read_one(name: &Path, from: impl Read, left: &mut usize) -> Result<SourceText, FileError> {
    let mut text = String::new();
    let limit = u64::try_from(*left).unwrap_or(u64::MAX).saturating_add(1);
    from.take(limit)
        .read_to_string(&mut text)
        .map_err(failed(name))?;
    let Some(rest) = left.checked_sub(text.len()) else {
        return Err(FileError::TooLarge);
    };
    *left = rest;
    Ok(SourceText {
        name: name.display().to_string(),
        text,
    })
}

fn files_of(path: &Path) -> Result<Vec<PathBuf>, FileError> {
    if !fs::metadata(path).map_err(failed(path))?.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(failed(path))? {
        let file = entry.map_err(failed(path))?.path();
        let extension = file.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("yaml" | "yml" | "json")) && file.is_file() {
            files.push(file);
        }
        if files.len() > DIRECTORY_MAX {
            return Err(FileError::TooMany(path.to_path_buf()));
        }
    }
    if files.is_empty() {
        return Err(FileError::Empty(path.to_path_buf()));
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_gives_its_documents_by_name() {
        let temp = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("b.yaml", "b"),
            ("a.json", "a"),
            ("c.yml", "c"),
            ("notes.txt", "x"),
        ] {
            fs::write(temp.path().join(name), text).unwrap();
        }
        let texts: Vec<String> = read(&[temp.path().into()])
            .unwrap()
            .into_iter()
            .map(|source| source.text)
            .collect();
        assert_eq!(texts, ["a", "b", "c"]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let empty = read(&[temp.path().into()]).unwrap_err();
        assert!(matches!(empty, FileError::Empty(_)), "{empty}");
        let absent = read(&[temp.path().join("absent.yaml")])
            .unwrap_err()
            .to_string();
        assert!(absent.contains("absent.yaml: No such file"), "{absent}");
        let large = temp.path().join("large.yaml");
        fs::write(&large, "x".repeat(INPUT_MAX + 1)).unwrap();
        let error = read(&[large]).unwrap_err();
        assert!(matches!(error, FileError::TooLarge), "{error}");
    }
}
