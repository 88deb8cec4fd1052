//! Acceleration as weir itself tells of it: what the self-test found on this
//! kernel, what `auto` makes of that, and whether it is in force where a row says so.
//!
//! Owns no list of cases: `weir status` has it. Must never let a row that is not
//! accelerated be measured as one.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::{Metrics, Node, Weir, WeirOptions, try_eventually};

use super::report::markdown;

/// Where the daemon keeps the verdict below its state directory.
const FILE: &str = "acceleration.json";
/// weir ends a self-test that takes longer than 30 s.
const VERDICT_LIMIT: Duration = Duration::from_secs(40);

/// What a daemon under `--accelerate auto` says, once it has tried everything.
pub(super) struct Verdict {
    /// The daemon's own file, so that no other has to try again; none if it kept none.
    kept: Option<Vec<u8>>,
    /// For whom `auto` accelerates.
    in_force_for: String,
    /// The summary in one line.
    summary: String,
    broken: Vec<Case>,
}

/// A case of the self-test that did not hold.
struct Case {
    name: String,
    must: String,
    seen: String,
}

impl Verdict {
    /// Starts a daemon that may accelerate if it finds nothing against it.
    pub(super) fn of_auto() -> Result<Self> {
        let node = Node::new()?;
        let options = WeirOptions {
            args: mode("auto"),
            ..WeirOptions::default()
        };
        let weir = Weir::start_with(&node, options)?;
        let mut verdict = Self::read(&await_verdict(&weir)?);
        verdict.kept = fs::read(weir.state_dir().join(FILE)).ok();
        Ok(verdict)
    }

    /// What `weir status` says of acceleration.
    fn read(status: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let broken = status["broken"].as_array().into_iter().flatten();
        Self {
            kept: None,
            in_force_for: text(&status["inForceFor"]),
            summary: text(&status["selfTest"]),
            broken: broken
                .map(|case| Case {
                    name: text(&case["name"]),
                    must: text(&case["must"]),
                    seen: text(&case["seen"]),
                })
                .collect(),
        }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "\n### Acceleration on this kernel\n\n`--accelerate auto` is in force for {}: the \
             self-test says that {}.\n",
            self.in_force_for, self.summary
        );
        if !self.broken.is_empty() {
            let rows = self.broken.iter().map(|case| {
                let name = format!("`{}`", case.name);
                vec![name, case.must.clone(), case.seen.clone()]
            });
            let table = markdown(&["case", "what must hold", "what was seen"], rows);
            write!(
                text,
                "What kept `auto` off, and what the rows under `force` take on:\n\n{table}"
            )
            .expect("a String takes everything");
        }
        text
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let broken = self.broken.iter();
        let broken = broken
            .map(|case| json!({ "name": case.name, "must": case.must, "seen": case.seen }))
            .collect::<Vec<_>>();
        json!({
            "autoInForceFor": self.in_force_for,
            "selfTest": self.summary,
            "broken": broken,
        })
    }
}

/// How a daemon is started that accelerates whatever the self-test says. What is
/// known already it need not try again.
pub(super) fn forced(node: &Node, known: Option<&Verdict>) -> Result<WeirOptions> {
    if let Some(kept) = known.and_then(|verdict| verdict.kept.as_ref()) {
        let state = node.dir().join("state");
        DirBuilder::new()
            .mode(0o700)
            .create(&state)
            .context("cannot make the daemon's state directory")?;
        fs::write(state.join(FILE), kept).context("cannot pass the verdict on")?;
    }
    Ok(WeirOptions {
        args: mode("force"),
        ..WeirOptions::default()
    })
}

fn mode(mode: &str) -> Vec<String> {
    ["--accelerate", mode].map(str::to_owned).to_vec()
}

/// Waits for the end of the self-test, which would take a CPU from what is
/// measured; what `weir status` says of acceleration then.
pub(super) fn await_verdict(weir: &Weir<'_>) -> Result<Value> {
    try_eventually("a verdict on acceleration", VERDICT_LIMIT, || {
        let mut status = weir.json(&["status"]);
        let status = status["dataplane"]["acceleration"].take();
        match status["selfTest"].as_str() {
            None | Some("running") => Err(status.to_string()),
            Some(_) => Ok(status),
        }
    })
}

/// Whether every leg of the one connection that `dial` makes is accelerated.
pub(super) fn ensure_in_force(
    weir: &Weir<'_>,
    legs: u64,
    dial: impl FnOnce() -> Result<()>,
) -> Result<()> {
    const COUNTED: &str = "weir_acceleration_total";
    let accelerated = |metrics: &Metrics| metrics.count(COUNTED, &[("outcome", "accelerated")]);
    let before = weir.try_metrics()?;
    dial()?;
    let after = weir.try_metrics()?;
    ensure!(
        accelerated(&after) - accelerated(&before) >= legs,
        "not accelerated:\nbefore {}\nafter {}\n{}",
        before.show(COUNTED),
        after.show(COUNTED),
        weir.json(&["status"])["dataplane"]["acceleration"]
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_broken_case_is_told() {
        let case = json!({ "name": "waitall", "must": "wait", "seen": "did not" });
        let verdict = Verdict::read(&json!({
            "inForceFor": "nobody",
            "selfTest": "1 of 2 known cases do not hold: waitall",
            "broken": [case.clone()],
        }));
        let text = verdict.text();
        assert!(text.contains("is in force for nobody"), "{text}");
        assert!(text.contains("| `waitall` | wait"), "{text}");
        assert_eq!(verdict.json()["broken"], json!([case]));
    }

    #[test]
    fn where_all_hold_nothing_is_listed() {
        let verdict = Verdict::read(&json!({
            "inForceFor": "all workloads but those that refuse it",
            "selfTest": "all 2 known cases hold",
            "broken": [],
        }));
        assert!(!verdict.text().contains('|'));
    }
}
