//! Why a change was not made, and whose fault that is.

use crate::config::{Kind, Mistakes, ObjectName, PatchError, StoreError};

use super::dataplane::{ExplainError, InstallError};

/// Why a question or change was refused. Nothing has changed, unless the
/// variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Documents that are wrong, alone or together.
    #[error("the configuration is refused and nothing was changed: {}", count(.0))]
    Mistakes(Mistakes),
    /// Objects are not in the state that the request was made for: there
    /// already, or another version by now. A sentence for each.
    #[error("{}", several(.0))]
    Conflict(Vec<String>),
    /// Objects that the request names are not there. A sentence for each.
    #[error("{}", several(.0))]
    Absent(Vec<String>),
    /// `If-Match` or `If-None-Match` does not hold.
    #[error("{0} {1} is not as If-Match or If-None-Match asks: read it again, then write")]
    Precondition(Kind, ObjectName),
    /// The document is of another object than the one that is written.
    #[error("the document is {found}, but the path names {wanted}")]
    OtherObject {
        /// What the document is.
        found: String,
        /// What the path names.
        wanted: String,
    },
    /// The patch does not fit the object.
    #[error("{0}")]
    Patch(PatchError),
    /// History holds no such generation.
    #[error("{0}")]
    NoGeneration(StoreError),
    /// There is nothing before the rules in force.
    #[error("there is no earlier generation to go back to")]
    NothingBefore,
    /// The data plane did not take it.
    #[error("{0}")]
    Install(InstallError),
    /// It could not be kept on disk, so it was taken out of force again.
    #[error("the configuration could not be stored, so the former one is in force again: {0}")]
    NotStored(StoreError),
    /// It could not be kept on disk, nor taken out of force again: it may hold,
    /// unrecorded, until the next change or restart.
    #[error(
        "the configuration could not be stored ({store}), and going back failed too, so it may be in force until the next change or restart: {install}"
    )]
    Torn {
        /// Why it could not be stored.
        store: StoreError,
        /// Why the former one could not be installed again.
        install: InstallError,
    },
    /// The history could not be read.
    #[error("the history cannot be read: {0}")]
    History(StoreError),
    /// The question has no answer.
    #[error("{0}")]
    Explain(ExplainError),
    /// Too many changes wait already.
    #[error("too many requests wait for the one writer of configuration: try again later")]
    Busy,
    /// The writer ended by a bug: its thread is gone, though handles are not.
    #[error(
        "the writer of configuration has failed, what was in force still is: see weir's log and restart it"
    )]
    WriterGone,
}

impl From<Mistakes> for Refusal {
    fn from(mistakes: Mistakes) -> Self {
        Self::Mistakes(mistakes)
    }
}

/// How many mistakes there are.
fn count(mistakes: &Mistakes) -> String {
    match mistakes.mistakes.len() + mistakes.omitted {
        1 => "1 mistake".to_owned(),
        many => format!("{many} mistakes"),
    }
}

/// The one sentence, or how many there are.
fn several(sentences: &[String]) -> String {
    match sentences {
        [one] => one.clone(),
        many => format!(
            "{} objects are not as the request takes them to be; nothing was changed",
            many.len()
        ),
    }
}
