//! The two outputs: what was asked for on standard output, what was noticed
//! on standard error.

use std::io::{self, Write as _};

use serde::Serialize;
use serde_json::Value;

use super::Failure;
use crate::admin::problem::Problem;
use crate::admin::wire::{Change, Receipt, Remark};
use crate::config::{Kind, to_yaml};

use super::args::Output;

/// Writes `text`; a reader that went away ends the command, quietly.
pub(super) fn out(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::Unread,
        _ => Failure::Unasked(format!("standard output: {error}")),
    })
}

/// Writes `value` in a format for programs.
pub(super) fn structured(value: &impl Serialize, output: Output) -> Result<(), Failure> {
    let value = serde_json::to_value(value).map_err(|error| Failure::Unasked(error.to_string()))?;
    out(&match output {
        Output::Yaml => to_yaml(&value),
        Output::Json | Output::Table => json(&value),
    })
}

/// As JSON, with a line end.
fn json(value: &Value) -> String {
    format!("{value:#}\n")
}

/// One line for each warning.
pub(super) fn warnings(warnings: &[Remark]) {
    for warning in warnings {
        eprintln!("warning: {}", warning.text);
    }
}

/// A refusal: the sentence, then every mistake on a line of its own.
pub(super) fn problem(problem: &Problem) {
    warnings(&problem.warnings);
    eprintln!("error: {}", problem.detail);
    for mistake in &problem.mistakes {
        eprintln!("  {}", mistake.text);
    }
    if problem.omitted > 0 {
        eprintln!("  and {} more", problem.omitted);
    }
}

/// What a write did.
pub(super) fn receipt(receipt: &Receipt, output: Output) -> Result<(), Failure> {
    warnings(&receipt.warnings);
    if output != Output::Table {
        return structured(receipt, output);
    }
    let dry = if receipt.dry_run { " (dry run)" } else { "" };
    let mut text = String::new();
    for object in &receipt.objects {
        let kind = object.kind.to_ascii_lowercase();
        // As kubectl says it, with the namespace where it is not the usual one.
        let namespace = match object.namespace.as_str() {
            "default" => String::new(),
            namespace => format!("{namespace}/"),
        };
        let change = object.change.as_str();
        text.push_str(&format!(
            "{kind}/{namespace}{} {change}{dry}\n",
            object.name
        ));
    }
    let is_rule = |kind: &str| kind.parse::<Kind>().is_ok_and(Kind::is_rule);
    let rules_changed = receipt
        .objects
        .iter()
        .any(|object| object.change != Change::Unchanged && is_rule(&object.kind));
    if rules_changed && !receipt.dry_run {
        text.push_str(&format!("generation {} is in force\n", receipt.generation));
    }
    out(&text)
}
