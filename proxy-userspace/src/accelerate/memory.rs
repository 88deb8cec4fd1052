//! What an earlier self-test found, so that a restart need not try again.
//!
//! It holds for one kernel, one kernel half and one list of cases; anything else is
//! tried anew.
//! Must never be believed when it cannot be read whole.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Verdict;
use super::cases::{CASES, Case};

/// Its file in the state directory.
const FILE: &str = "acceleration.json";

/// A file of a few kilobytes; a larger one is none of ours.
const FILE_MAX: u64 = 1 << 20;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Remembered {
    tried_on: String,
    verdict: Verdict,
}

/// A place to remember a verdict in.
#[derive(Clone, Debug)]
pub struct Memory {
    path: PathBuf,
    here: String,
}

impl Memory {
    /// In the daemon's state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join(FILE),
            here: here(&CASES),
        }
    }

    /// What was found here; `None`: nothing, or elsewhere.
    pub fn recall(&self) -> Option<Verdict> {
        if fs::metadata(&self.path).ok()?.len() > FILE_MAX {
            return None;
        }
        let text = fs::read_to_string(&self.path).ok()?;
        let remembered: Remembered = serde_json::from_str(&text).ok()?;
        (remembered.tried_on == self.here && !remembered.verdict.cases.is_empty())
            .then_some(remembered.verdict)
    }

    /// Remembers, for the next start.
    pub fn keep(&self, verdict: &Verdict) -> io::Result<()> {
        let remembered = Remembered {
            tried_on: self.here.clone(),
            verdict: verdict.clone(),
        };
        let text = serde_json::to_string_pretty(&remembered)?;
        let half = self.path.with_extension("tmp");
        fs::write(&half, text)?;
        fs::rename(&half, &self.path)
    }
}

/// The kernel, the kernel half that would run on it, and what is tried.
fn here(cases: &[Case]) -> String {
    let kernel = nix::sys::utsname::uname().map_or_else(
        |_| "an unknown kernel".to_owned(),
        |name| {
            let (release, version) = (name.release(), name.version());
            format!("{} {}", release.display(), version.display())
        },
    );
    let mut hasher = DefaultHasher::new();
    crate::EBPF_OBJECT.hash(&mut hasher);
    for case in cases {
        (case.name, case.must, case.families).hash(&mut hasher);
    }
    let (version, object) = (env!("CARGO_PKG_VERSION"), hasher.finish());
    format!("{kernel}; weir {version} ({object:016x})")
}

#[cfg(test)]
mod tests {
    use super::super::{CaseResult, Outcome};
    use super::*;

    #[test]
    fn a_verdict_is_remembered_for_this_kernel_alone() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(dir.path());
        assert_eq!(memory.recall(), None);
        let why = "seen".to_owned();
        let verdict = Verdict {
            cases: vec![CaseResult {
                name: "fin".to_owned(),
                must: "hold".to_owned(),
                outcome: Outcome::Broken { why },
            }],
        };
        memory.keep(&verdict).unwrap();
        assert_eq!(memory.recall(), Some(verdict));
        let elsewhere = Memory {
            here: "another kernel".to_owned(),
            ..memory.clone()
        };
        assert_eq!(elsewhere.recall(), None);
        let of_fewer_cases = Memory {
            here: here(&CASES[1..]),
            ..memory.clone()
        };
        assert_eq!(of_fewer_cases.recall(), None);
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(memory.recall(), None);
    }
}
