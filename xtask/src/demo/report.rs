//! What each step expected and measured, on the screen and as JSON.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

/// What came of a step.
pub(super) struct Outcome {
    pub(super) expected: String,
    pub(super) measured: String,
    pub(super) passed: bool,
}

/// The steps so far.
#[derive(Default)]
pub(super) struct Report {
    steps: Vec<Value>,
    failed: usize,
}

impl Report {
    /// Plays a step, prints it, and keeps it. A step that breaks off has failed.
    pub(super) fn add(&mut self, title: &str, step: impl FnOnce() -> Result<Outcome>) {
        let begun = Instant::now();
        let number = self.steps.len() + 1;
        println!("\n{number:>2}. {title}");
        let outcome = step().unwrap_or_else(|error| Outcome {
            expected: "that the step can be played".to_owned(),
            measured: format!("{error:#}"),
            passed: false,
        });
        let Outcome {
            expected,
            measured,
            passed,
        } = outcome;
        let seconds = begun.elapsed().as_secs_f64();
        println!("    expected: {expected}");
        println!("    measured: {measured}");
        println!(
            "    {} ({seconds:.1} s)",
            if passed { "ok" } else { "FAILED" }
        );
        self.failed += usize::from(!passed);
        self.steps.push(json!({
            "step": number, "title": title, "expected": expected, "measured": measured,
            "passed": passed, "seconds": seconds,
        }));
    }

    /// Whether every step passed.
    pub(super) fn passed(&self) -> bool {
        self.failed == 0 && !self.steps.is_empty()
    }

    /// The last line on the screen.
    pub(super) fn conclude(&self, took: Duration) {
        let (steps, failed) = (self.steps.len(), self.failed);
        println!(
            "\n{} of {steps} steps passed in {:.0} s",
            steps - failed,
            took.as_secs_f64()
        );
    }

    /// Everything, for a file.
    pub(super) fn json(&self, took: Duration) -> Value {
        json!({ "passed": self.passed(), "seconds": took.as_secs_f64(), "steps": self.steps })
    }
}
