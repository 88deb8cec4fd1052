//! Why the state directory does not serve.

use std::path::PathBuf;

use super::file::remedy;
use super::format::VERSION;

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
    #[error("{} is damaged ({reason}): {}", path.display(), remedy(path))]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Written by a weir with other formats.
    #[error("{} has format version {found}, this weir reads {}: run the weir that wrote it, or move its directory away and apply your files again", path.display(), VERSION)]
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
