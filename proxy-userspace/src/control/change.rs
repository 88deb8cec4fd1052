//! A change, from what is asked for to what came of it.

use std::sync::Arc;

use super::view::View;
use crate::admin::selector::Selector;
use crate::config::{Author, Kind, Object, ObjectName, Parsed, Warning};

/// What `POST /v1/apply` does with an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Creates or changes it.
    #[default]
    Upsert,
    /// Creates it; refused if it is there.
    Create,
    /// Changes it; refused if it is not there.
    Replace,
}

/// Documents to put in force together.
#[derive(Debug)]
pub struct Batch {
    /// The documents.
    pub parsed: Parsed,
    /// What to do with each.
    pub mode: Mode,
    /// Deletes what carries these labels and is not among the documents.
    pub prune: Option<Selector>,
}

/// On whose behalf, and how far.
#[derive(Clone, Debug)]
pub struct Intent {
    /// Who asks, and why.
    pub author: Author,
    /// Whether to stop before anything changes.
    pub dry_run: bool,
}

/// What a request takes the one object that it writes to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Expect {
    /// Whatever it is.
    #[default]
    Anything,
    /// There, in any version.
    Present,
    /// Not there.
    Absent,
    /// There, in this version.
    Version(String),
}

/// What became of one object.
#[derive(Clone, Debug)]
pub struct Changed {
    /// Its kind.
    pub kind: Kind,
    /// What it was; absent if it is new.
    pub before: Option<Object>,
    /// What it is; absent if it is gone.
    pub after: Option<Object>,
    /// Whether that is the same.
    pub unchanged: bool,
}

impl Changed {
    /// Its name.
    ///
    /// # Panics
    /// If it neither was nor is: no plan makes such a one.
    pub fn name(&self) -> &ObjectName {
        let object = self.after.as_ref().or(self.before.as_ref());
        object.expect("it was there or it is").name()
    }
}

/// A change that was made, or in a dry run would have been.
#[derive(Clone, Debug)]
pub struct Done {
    /// What is in force now.
    pub view: Arc<View>,
    /// Every object of the request.
    pub objects: Vec<Changed>,
    /// What was accepted but may not be what was meant.
    pub warnings: Vec<Warning>,
    /// Whether nothing was changed because only a check was asked for.
    pub dry_run: bool,
}
