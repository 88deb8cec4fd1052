//! Acceleration: whether it may be used on this kernel, and for whom.
//!
//! Owns the self-test (`trial`, with its `cases`; `change`), its verdict and the memory of
//! it. Must never hold anything up: the hooks enforce before the self-test
//! begins, and it runs beside everything else.

mod arena;
mod cases;
mod change;
mod judge;
mod memory;
mod pace;
mod trial;

use serde::{Deserialize, Serialize};

pub use judge::{Accelerator, SelfTest, remove_cgroup};
pub use trial::run as run_self_test;

/// How a case went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
pub enum Outcome {
    /// As on plain TCP.
    Held,
    /// The kernel has nothing that could be tried.
    Absent {
        /// What it said.
        why: String,
    },
    /// Not as on plain TCP.
    Broken {
        /// What was seen.
        why: String,
    },
}

/// One case of the self-test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaseResult {
    /// Its name.
    pub name: String,
    /// What must hold.
    pub must: String,
    /// How it went.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// One line that the self-test's process says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Said {
    /// First of all, and before what takes longest: how many times the usual everything
    /// may take here.
    Pace(u32),
    /// A case has ended.
    Case(CaseResult),
}

/// What the self-test found on this kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Every case, in the order in which they ended.
    pub cases: Vec<CaseResult>,
}

impl Verdict {
    /// The cases that did not hold.
    pub fn broken(&self) -> impl Iterator<Item = &CaseResult> {
        self.cases
            .iter()
            .filter(|case| matches!(case.outcome, Outcome::Broken { .. }))
    }

    /// Whether nothing speaks against acceleration.
    pub fn holds(&self) -> bool {
        !self.cases.is_empty() && self.broken().next().is_none()
    }

    /// One line for the log and for `weir status`.
    pub fn summary(&self) -> String {
        let broken: Vec<&str> = self.broken().map(|case| case.name.as_str()).collect();
        if broken.is_empty() {
            format!("all {} known cases hold", self.cases.len())
        } else {
            let (count, all) = (broken.len(), self.cases.len());
            format!(
                "{count} of {all} known cases do not hold: {}",
                broken.join(", ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, outcome: Outcome) -> CaseResult {
        CaseResult {
            name: name.to_owned(),
            must: "hold".to_owned(),
            outcome,
        }
    }

    #[test]
    fn one_broken_case_speaks_against_it_and_an_absent_one_does_not() {
        let why = || "seen".to_owned();
        let mut verdict = Verdict { cases: Vec::new() };
        assert!(!verdict.holds(), "nothing was tried");
        verdict.cases.push(case("a", Outcome::Held));
        verdict
            .cases
            .push(case("b", Outcome::Absent { why: why() }));
        assert!(verdict.holds());
        assert_eq!(verdict.summary(), "all 2 known cases hold");
        verdict
            .cases
            .push(case("c", Outcome::Broken { why: why() }));
        assert!(!verdict.holds());
        assert_eq!(verdict.summary(), "1 of 3 known cases do not hold: c");
    }
}
