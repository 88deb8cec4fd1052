//! The two outputs: what was asked for, and beside it what was noticed.
//!
//! Must never mix them: standard output is read by programs.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

use super::Failure;
use super::args::Output;
use crate::admin::problem::Problem;
use crate::admin::wire::{Change, ObjectChange, Receipt, Remark};
use crate::config::{Kind, to_yaml};

/// Where a command writes to.
pub(super) struct Printer<'a> {
    /// Standard output.
    pub(super) out: &'a mut dyn Write,
    /// Standard error.
    pub(super) err: &'a mut dyn Write,
}

impl Printer<'_> {
    /// Writes what was asked for; a reader that went away ends the command, quietly.
    pub(super) fn out(&mut self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())
    }

    /// As [`Self::out`], for text that was not looked at.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.out.write_all(bytes).and_then(|()| self.out.flush());
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::Unread,
            _ => Failure::Unasked(format!("standard output: {error}")),
        })
    }

    /// Writes a line about what was noticed.
    pub(super) fn note(&mut self, line: &str) {
        // There is no third place to say that this one cannot be written to.
        let _ = writeln!(self.err, "{line}");
    }

    /// Writes `value` in a format for programs.
    pub(super) fn structured(
        &mut self,
        value: &impl Serialize,
        output: Output,
    ) -> Result<(), Failure> {
        let value: Value =
            serde_json::to_value(value).map_err(|error| Failure::Unasked(error.to_string()))?;
        self.out(&match output {
            Output::Yaml => to_yaml(&value),
            Output::Json | Output::Table => format!("{value:#}\n"),
        })
    }

    /// One line for each warning.
    pub(super) fn warnings(&mut self, warnings: &[Remark]) {
        for warning in warnings {
            self.note(&format!("warning: {}", warning.text));
        }
    }

    /// A refusal: the sentence, then every mistake on a line of its own.
    pub(super) fn problem(&mut self, problem: &Problem) {
        self.warnings(&problem.warnings);
        self.note(&format!("error: {}", problem.detail));
        for mistake in &problem.mistakes {
            self.note(&format!("  {}", mistake.text));
        }
        if problem.omitted > 0 {
            self.note(&format!("  and {} more", problem.omitted));
        }
    }

    /// What a write did.
    pub(super) fn receipt<T: AsRef<str> + Serialize>(
        &mut self,
        receipt: &Receipt<Vec<ObjectChange<T>>>,
        output: Output,
    ) -> Result<(), Failure> {
        self.warnings(&receipt.warnings);
        if output != Output::Table {
            return self.structured(receipt, output);
        }
        let dry = if receipt.dry_run { " (dry run)" } else { "" };
        let mut text = String::new();
        for object in &receipt.objects {
            write_title(&mut text, object);
            for piece in [" ", object.change.as_str(), dry, "\n"] {
                text.push_str(piece);
            }
        }
        let changed = |object: &ObjectChange<T>| {
            let kind = object.kind.as_ref().parse::<Kind>();
            object.change != Change::Unchanged && kind.is_ok_and(Kind::is_rule)
        };
        if !receipt.dry_run && receipt.objects.iter().any(changed) {
            let _infallible = writeln!(text, "generation {} is in force", receipt.generation);
        }
        self.out(&text)
    }
}

/// As kubectl names an object, with the namespace where it is not the usual one.
pub(super) fn title(object: &ObjectChange) -> String {
    let mut title = String::new();
    write_title(&mut title, object);
    title
}

fn write_title<T: AsRef<str>>(text: &mut String, object: &ObjectChange<T>) {
    text.extend(object.kind.as_ref().chars().map(|c| c.to_ascii_lowercase()));
    text.push('/');
    let namespace = object.namespace.as_ref();
    if namespace != "default" {
        text.push_str(namespace);
        text.push('/');
    }
    text.push_str(object.name.as_ref());
}
