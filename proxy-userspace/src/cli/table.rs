//! Columns for people.
//!
//! Must never wrap or cut a value: tables are piped into other tools.

use std::fmt::Write as _;

/// Rows under a head, padded as kubectl pads them.
#[derive(Debug)]
pub(super) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(super) fn new(head: &[&str]) -> Self {
        Self {
            head: head.iter().map(|&name| name.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; an empty cell shows as `-`, so that every row has as many words as columns.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.head.len(), "a cell for each column");
        let dash = |cell: String| {
            if cell.is_empty() {
                "-".to_owned()
            } else {
                cell
            }
        };
        self.rows.push(cells.into_iter().map(dash).collect());
    }

    /// The text, each line ended.
    pub(super) fn render(&self) -> String {
        let lines = || std::iter::once(&self.head).chain(&self.rows);
        let width = |column: usize| {
            let cells = lines().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let mut text = String::new();
        for line in lines() {
            let mut padded = String::new();
            for (cell, width) in line.iter().zip(&widths) {
                let _infallible = write!(padded, "{cell:width$}   ");
            }
            text.push_str(padded.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_clean() {
        let mut table = Table::new(&["NAME", "PORTS"]);
        table.row(vec!["svca".into(), "80".into()]);
        table.row(vec!["a-long-name".into(), String::new()]);
        assert_eq!(
            table.render(),
            "NAME          PORTS\nsvca          80\na-long-name   -\n"
        );
    }
}
