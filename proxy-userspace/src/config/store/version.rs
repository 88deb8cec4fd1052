//! Versions of single objects, and what it means to have an old one.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `metadata.resourceVersion`: a decimal number, written as a string. One
/// counter numbers every commit, so a version never comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResourceVersion(u64);

impl ResourceVersion {
    /// The version of the next commit.
    pub(super) fn next(self) -> Self {
        Self(
            self.0
                .checked_add(1)
                .expect("a commit a nanosecond fills 64 bits in 584 years"),
        )
    }
}

impl fmt::Display for ResourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ResourceVersion {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<NonZeroU64>().map(|number| Self(number.get()))
    }
}

/// A change was made from an object that is no longer the one in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{object} is not at resourceVersion {given} any more ({}): get it again and repeat the change",
    current.map_or_else(|| "it is gone".to_owned(), |current| format!("it is at {current}"))
)]
pub struct Stale {
    /// Which object, as `RouteRule default/reviews`.
    pub object: String,
    /// The version that the change was made from.
    pub given: ResourceVersion,
    /// The version in force; `None`: the object is gone.
    pub current: Option<ResourceVersion>,
}
