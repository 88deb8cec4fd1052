//! The table kernel × tests, and its place in the documentation.
//!
//! Owns the text between the marks in `docs/kernels.md`, which is also where
//! earlier results are kept: one run may add to what another has seen. Must
//! never write there what was not seen.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result, anyhow};

use super::console::Outcome;
use super::kernel::KERNELS;
use crate::workspace;

const DOCUMENT: &str = "docs/kernels.md";
const BEGIN: &str = "<!-- kernels:begin (written by `cargo xtask vm --write-docs`) -->\n";
const END: &str = "<!-- kernels:end -->";
/// In a cell that nothing is known of.
const UNKNOWN: &str = "–";

/// What was seen: a row for each test program, a column for each kernel.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// The kernel's package, by its version.
    packages: BTreeMap<String, String>,
    /// Cells by test program and kernel.
    cells: BTreeMap<String, BTreeMap<String, String>>,
}

impl Table {
    /// Adds a kernel.
    pub(super) fn kernel(&mut self, version: &str, package: &str) {
        self.packages.insert(version.to_owned(), package.to_owned());
    }

    /// Adds how a test program ended on a kernel.
    pub(super) fn result(&mut self, test: &str, version: &str, outcome: Option<&Outcome>) {
        let cell = outcome.map_or_else(|| "**no result**".to_owned(), Outcome::cell);
        let row = self.cells.entry(test.to_owned()).or_default();
        row.insert(version.to_owned(), cell);
    }

    /// This table, and from `earlier` what is not in it: of the same packages,
    /// and of tests that still exist.
    fn over(mut self, earlier: Self, exists: impl Fn(&str) -> bool) -> Self {
        for (version, package) in earlier.packages {
            let now = self.packages.entry(version.clone());
            if *now.or_insert_with(|| package.clone()) != package {
                continue;
            }
            for (test, row) in &earlier.cells {
                if let Some(cell) = row.get(&version).filter(|_| exists(test)) {
                    let row = self.cells.entry(test.clone()).or_default();
                    row.entry(version.clone()).or_insert_with(|| cell.clone());
                }
            }
        }
        self
    }

    /// The table in Markdown; `about` says what a test program is about.
    pub(super) fn markdown(&self, about: impl Fn(&str) -> String) -> String {
        let columns: Vec<(&str, &String)> = KERNELS
            .iter()
            .filter_map(|kernel| Some((kernel.version, self.packages.get(kernel.version)?)))
            .collect();
        let mut text = "| tests |".to_owned();
        // Writing to a string cannot fail.
        for (version, package) in &columns {
            let _: std::fmt::Result = write!(text, " {version} ({package}) |");
        }
        text.push_str("\n| --- |");
        text.push_str(&" --- |".repeat(columns.len()));
        text.push('\n');
        for (test, row) in &self.cells {
            let _: std::fmt::Result = write!(text, "| `{test}`: {} |", about(test));
            for (version, _) in &columns {
                let cell = row.get(*version).map_or(UNKNOWN, String::as_str);
                let _: std::fmt::Result = write!(text, " {cell} |");
            }
            text.push('\n');
        }
        text
    }

    /// Reads back what [`Table::markdown`] wrote.
    fn parse(text: &str) -> Self {
        let mut table = Self::default();
        let mut lines = text.lines().map(cells);
        let head = lines.next().unwrap_or_default();
        let columns: Vec<Option<(&str, &str)>> = head
            .iter()
            .skip(1)
            .map(|cell| cell.strip_suffix(')')?.split_once(" ("))
            .collect();
        for (version, package) in columns.iter().flatten() {
            table.kernel(version, package);
        }
        for line in lines.skip(1) {
            let Some(test) = line.first().and_then(|cell| cell.split('`').nth(1)) else {
                continue;
            };
            let row = table.cells.entry(test.to_owned()).or_default();
            for (column, cell) in columns.iter().zip(&line[1..]) {
                if let Some((version, _)) = column
                    && *cell != UNKNOWN
                {
                    row.insert((*version).to_owned(), (*cell).to_owned());
                }
            }
        }
        table
    }
}

/// The cells of a line of a Markdown table.
fn cells(line: &str) -> Vec<&str> {
    let inner = line.trim().trim_matches('|');
    inner.split('|').map(str::trim).collect()
}

/// What a test program is about: the first line of its file.
pub(super) fn about(test: &str) -> String {
    let text = fs::read_to_string(file(test)).unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    line.trim_start_matches("//!").trim().to_owned()
}

fn file(test: &str) -> std::path::PathBuf {
    workspace::root().join(format!("tests/tests/{test}.rs"))
}

/// Puts what was seen into the documentation, over what was seen earlier.
pub(super) fn write(table: Table) -> Result<()> {
    let path = workspace::root().join(DOCUMENT);
    let text = fs::read_to_string(&path).with_context(|| format!("{DOCUMENT} is missing"))?;
    let (before, earlier, after) =
        split(&text).ok_or_else(|| anyhow!("{DOCUMENT} has lost its marks"))?;
    let table = table.over(Table::parse(earlier), |test| file(test).is_file());
    let text = format!("{before}{BEGIN}{}{END}{after}", table.markdown(about));
    fs::write(&path, text).with_context(|| format!("{DOCUMENT} cannot be written"))
}

/// What is before, between and after the marks.
fn split(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (between, after) = rest.split_once(END)?;
    Some((before, between, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(version: &str, package: &str, results: &[(&str, u32)]) -> Table {
        let mut table = Table::default();
        table.kernel(version, package);
        for (test, failed) in results {
            let outcome = Outcome {
                passed: 8 - failed,
                failed: *failed,
                failures: vec!["a".to_owned(); usize::from(*failed > 0)],
                code: 0,
                ..Outcome::default()
            };
            table.result(test, version, Some(&outcome));
        }
        table
    }

    #[test]
    fn runs_add_up_to_a_table() {
        let first = seen("6.1", "6.1.9-1", &[("tcp", 0), ("gone", 0), ("http", 1)]);
        let second = seen("7.2", "7.2.1-1", &[("tcp", 0)]);
        let both = second.over(first, |test| test != "gone");
        let text = both.markdown(|test| format!("About {test}."));
        let expected = "\
| tests | 6.1 (6.1.9-1) | 7.2 (7.2.1-1) |
| --- | --- | --- |
| `http`: About http. | **7 of 8**, not `a` | – |
| `tcp`: About tcp. | 8 of 8 | 8 of 8 |
";
        assert_eq!(text, expected);
        assert_eq!(Table::parse(&text), both);
        assert_eq!(Table::parse(""), Table::default());
    }

    #[test]
    fn another_package_starts_anew() {
        let old = seen("6.1", "6.1.9-1", &[("tcp", 0), ("http", 0)]);
        let new = seen("6.1", "6.1.10-1", &[("tcp", 1)]).over(old, |_| true);
        assert_eq!(new, seen("6.1", "6.1.10-1", &[("tcp", 1)]));
        let old = seen("6.1", "6.1.9-1", &[("tcp", 0), ("http", 0)]);
        let new = seen("6.1", "6.1.9-1", &[("tcp", 1)]).over(old, |_| true);
        assert_eq!(new, seen("6.1", "6.1.9-1", &[("tcp", 1), ("http", 0)]));
    }

    #[test]
    fn the_document_has_a_place_for_it() {
        let text = fs::read_to_string(workspace::root().join(DOCUMENT)).unwrap();
        let (_, table, _) = split(&text).unwrap();
        let table = Table::parse(table);
        for test in table.cells.keys() {
            assert!(file(test).is_file(), "{test}");
        }
        assert!(about("capture").starts_with("Capture: "));
    }

    /// How many tests a cell is about; `None`: it says nothing of them.
    fn of_tests(cell: &str) -> Option<usize> {
        let (_, after) = cell.split_once(" of ")?;
        let digits = after.find(|c: char| !c.is_ascii_digit());
        after[..digits.unwrap_or(after.len())].parse().ok()
    }

    #[test]
    fn cells_say_how_many_tests_they_are_about() {
        let outcome = |failed| Outcome {
            passed: 12 - failed,
            failed,
            failures: vec!["a".to_owned(); usize::from(failed > 0)],
            code: 0,
            ..Outcome::default()
        };
        assert_eq!(of_tests(&outcome(0).cell()), Some(12));
        assert_eq!(of_tests(&outcome(1).cell()), Some(12));
        assert_eq!(
            of_tests("1 of 1; 15 of 36 known cases do not hold"),
            Some(1)
        );
        assert_eq!(of_tests("**no result**"), None);
    }

    /// A test that was added or taken away since the table was written was never
    /// seen on these kernels.
    #[test]
    fn the_document_is_about_the_tests_that_there_are() {
        let text = fs::read_to_string(workspace::root().join(DOCUMENT)).unwrap();
        let (_, table, _) = split(&text).unwrap();
        for (test, row) in &Table::parse(table).cells {
            let source = fs::read_to_string(file(test)).unwrap();
            let now = source
                .lines()
                .filter(|line| line.trim() == "#[test]")
                .count();
            for (version, cell) in row {
                assert!(
                    of_tests(cell).is_none_or(|then| then == now),
                    "{test} on {version}: {cell}, but it has {now} tests: \
                     cargo xtask vm --write-docs"
                );
            }
        }
    }
}
