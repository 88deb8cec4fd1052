//! How a call in a pod failed.

use std::fmt;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

/// A call that failed.
#[derive(Clone, Debug, Serialize, Deserialize, thiserror::Error)]
pub struct Fault {
    /// The kernel's number for it, where it came from the kernel.
    pub errno: Option<i32>,
    /// What failed, in words.
    pub what: String,
}

impl Fault {
    /// Whether the kernel gave this error.
    pub fn is(&self, errno: Errno) -> bool {
        self.errno == Some(errno as i32)
    }

    pub(crate) fn other(what: impl fmt::Display) -> Self {
        Self {
            errno: None,
            what: what.to_string(),
        }
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self {
            errno: error.raw_os_error(),
            what: error.to_string(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errno {
            Some(errno) => write!(f, "{:?} ({})", Errno::from_raw(errno), self.what),
            None => f.write_str(&self.what),
        }
    }
}
