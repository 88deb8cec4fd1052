//! The table kernel × feature, and its place in the documentation.
//!
//! Owns the text between the marks in `docs/kernels.md`. Must never write there
//! what was not seen.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result, anyhow};

use super::console::Outcome;
use crate::workspace;

const DOCUMENT: &str = "docs/kernels.md";
const BEGIN: &str = "<!-- kernels:begin (written by `cargo xtask vm --write-docs`) -->\n";
const END: &str = "<!-- kernels:end -->";

/// A row: one test program.
pub(super) struct Row {
    /// The name of its file.
    pub(super) name: String,
    /// What it is about: the first line of its file.
    pub(super) about: String,
}

impl Row {
    /// The row of a test program.
    pub(super) fn of(name: &str) -> Result<Self> {
        let path = workspace::root().join(format!("tests/tests/{name}.rs"));
        let text = fs::read_to_string(&path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        let line = text.lines().next().unwrap_or_default();
        Ok(Self {
            name: name.to_owned(),
            about: line.trim_start_matches("//!").trim().to_owned(),
        })
    }
}

/// A column: one kernel.
pub(super) struct Column {
    /// Major and minor number.
    pub(super) version: String,
    /// The version of its package.
    pub(super) package: String,
    /// How each row ended, in the order of the rows; none: it never did.
    pub(super) outcomes: Vec<Option<Outcome>>,
}

/// The table in Markdown.
pub(super) fn markdown(rows: &[Row], columns: &[Column]) -> String {
    let mut head = "| tests |".to_owned();
    let mut line = "| --- |".to_owned();
    for column in columns {
        // Writing to a string cannot fail.
        let _: std::fmt::Result = write!(head, " {} ({}) |", column.version, column.package);
        line.push_str(" --- |");
    }
    let mut table = format!("{head}\n{line}\n");
    for (index, row) in rows.iter().enumerate() {
        let _: std::fmt::Result = write!(table, "| {} (`{}`) |", row.about, row.name);
        for column in columns {
            let outcome = column.outcomes.get(index).and_then(Option::as_ref);
            let cell = outcome.map_or_else(|| "**not reached**".to_owned(), Outcome::cell);
            let _: std::fmt::Result = write!(table, " {cell} |");
        }
        table.push('\n');
    }
    for column in columns {
        for (row, outcome) in rows.iter().zip(&column.outcomes) {
            for failure in outcome.iter().flat_map(|outcome| &outcome.failures) {
                let _: std::fmt::Result = write!(
                    table,
                    "\nFailed on {}: `{}` of `{}`.\n",
                    column.version, failure, row.name
                );
            }
        }
    }
    table
}

/// Puts the table into the documentation.
pub(super) fn write(table: &str) -> Result<()> {
    let path = workspace::root().join(DOCUMENT);
    let text = fs::read_to_string(&path).with_context(|| format!("{DOCUMENT} is missing"))?;
    let text = replaced(&text, table).ok_or_else(|| anyhow!("{DOCUMENT} has lost its marks"))?;
    fs::write(&path, text).with_context(|| format!("{DOCUMENT} cannot be written"))
}

fn replaced(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{table}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shows_what_was_seen() {
        let rows = ["tcp", "http"].map(|name| Row {
            name: name.to_owned(),
            about: format!("About {name}."),
        });
        let good = Outcome {
            passed: 8,
            ..Outcome::default()
        };
        let bad = Outcome {
            passed: 7,
            failed: 1,
            failures: vec!["a".to_owned()],
            code: 101,
        };
        let column = |version: &str, outcomes| Column {
            version: version.to_owned(),
            package: format!("{version}.9-1"),
            outcomes,
        };
        let columns = [
            column("6.1", vec![Some(good.clone()), Some(bad)]),
            column("7.2", vec![Some(good), None]),
        ];
        let expected = "\
| tests | 6.1 (6.1.9-1) | 7.2 (7.2.9-1) |
| --- | --- | --- |
| About tcp. (`tcp`) | 8 of 8 | 8 of 8 |
| About http. (`http`) | **7 of 8** | **not reached** |

Failed on 6.1: `a` of `http`.
";
        assert_eq!(markdown(&rows, &columns), expected);
    }

    #[test]
    fn the_document_has_a_place_for_it() {
        let text = fs::read_to_string(workspace::root().join(DOCUMENT)).unwrap();
        let text = replaced(&text, "| new |\n").unwrap();
        assert!(text.contains(&format!("{BEGIN}| new |\n{END}")));
        assert_eq!(replaced("no marks", ""), None);
    }

    #[test]
    fn a_row_says_what_its_tests_are_about() {
        assert!(Row::of("capture").unwrap().about.starts_with("Capture: "));
        assert!(Row::of("none").is_err());
    }
}
