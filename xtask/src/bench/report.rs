//! The report: Markdown tables for people, JSON for programs.
//!
//! Owns rounding. Must never leave out a target that was missed.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::acceleration::Verdict;
use super::chart;
use super::connect::{self, Costs};
use super::load::Load;
use super::memory::Memory;
use super::readme;
use super::result::{Quantity, Results};
use super::row::Kind;
use super::scale::{self, Scale};
use super::target::{Bound, Target};
use super::udp::{self, Datagrams};

pub(super) const MIB: f64 = 1_048_576.0;
pub(super) const KIB: f64 = 1024.0;

/// Everything that a report is made from.
pub(super) struct Report {
    /// What it was measured on.
    pub(super) machine: Vec<(&'static str, String)>,
    /// Rounds, and seconds of each load in each.
    pub(super) rounds: (u32, u64),
    /// How long all of it took.
    pub(super) took: Duration,
    /// The rows that were measured.
    pub(super) rows: Vec<Kind>,
    /// The loads.
    pub(super) results: Results,
    /// Of the proxies that were asked for.
    pub(super) memory: Vec<(Kind, Memory)>,
    /// What one connect costs.
    pub(super) costs: Option<Costs>,
    /// What datagrams cost.
    pub(super) datagrams: Option<Datagrams>,
    /// What applies take on a full node.
    pub(super) scale: Option<Scale>,
    /// What was said of acceleration.
    pub(super) verdict: Option<Verdict>,
    /// What weir is held to.
    pub(super) targets: Vec<Target>,
}

impl Report {
    /// For people; every table is Markdown.
    pub(super) fn text(&self) -> String {
        let mut text = self.head();
        for load in Load::ALL.iter().filter(|_| !self.rows.is_empty()) {
            let (name, operation) = (load.name(), load.operation());
            let (table, chart) = (self.table(*load), chart::file(*load));
            push(
                &mut text,
                format_args!(
                    "\n### {name} (operation: {operation})\n\n{table}\n![{name}]({chart})\n"
                ),
            );
        }
        if !self.memory.is_empty() {
            text += &self.memory();
        }
        text.extend(self.verdict.iter().map(Verdict::text));
        text.extend(self.datagrams.iter().map(udp::text));
        text.extend(self.costs.iter().map(connect::text));
        text.extend(self.scale.iter().map(scale::text));
        text += &self.targets();
        if !self.rows.is_empty() {
            text += "\n### For the README\n\n";
            text += &readme::table(&self.results, &self.memory);
        }
        text
    }

    /// What was measured, how and on what.
    fn head(&self) -> String {
        let (rounds, seconds) = self.rounds;
        let took = self.took.as_secs();
        let plural = if rounds == 1 { "" } else { "s" };
        let machine = self.machine.iter();
        let machine = machine.map(|(name, value)| vec![(*name).to_owned(), value.clone()]);
        format!(
            "# weir, measured\n\nMedians of {rounds} round{plural}, {seconds} s for each load, \
             {took} s in all.\n\n{}",
            markdown(&["measured on", ""], machine)
        )
    }

    fn memory(&self) -> String {
        let rows = self.memory.iter().map(|(kind, memory)| {
            let idle = memory.idle / MIB;
            let connection = memory.per_connection / KIB;
            vec![
                kind.title().into(),
                format!("{idle:.1}"),
                format!("{connection:.1}"),
            ]
        });
        let head = ["", "idle MiB", "per idle connection KiB"];
        format!("\n### Memory\n\n{}", markdown(&head, rows))
    }

    /// Every target, with what was measured.
    fn targets(&self) -> String {
        let rows = self.targets.iter().map(|target| {
            let met = target
                .is_met()
                .map_or("not measured", |met| if met { "met" } else { "MISSED" });
            let bound = match target.bound {
                Bound::AtMost(bound) => format!("≤ {bound}"),
                Bound::AtLeast(bound) => format!("≥ {bound}"),
            };
            vec![target.what.into(), bound, cell(target.measured), met.into()]
        });
        let count = |met| {
            let of = self.targets.iter().filter(|target| target.is_met() == met);
            of.count()
        };
        format!(
            "\n### Targets\n\n{} met, {} missed, {} not measured. A ratio is the middle of those of \
             each round.\n\n{}",
            count(Some(true)),
            count(Some(false)),
            count(None),
            markdown(&["target", "to reach", "measured", ""], rows)
        )
    }

    /// The plots that it shows: file names and contents.
    pub(super) fn plots(&self) -> Vec<(String, String)> {
        let mut plots = chart::files(&self.results, &self.rows);
        plots.extend(self.costs.iter().flat_map(connect::files));
        plots
    }

    fn table(&self, load: Load) -> String {
        use Quantity::{Gbits, NodeCpu, P50, P99, ProxyCpu, Rate};
        let quantities: &[Quantity] = if load.is_bulk() {
            &[Gbits, ProxyCpu, NodeCpu]
        } else {
            &[Rate, P50, P99, ProxyCpu, NodeCpu]
        };
        let mut head = vec![""];
        head.extend(quantities.iter().map(|quantity| quantity.title()));
        let rows = self.rows.iter().map(|kind| {
            let values = quantities.iter();
            let values = values.map(|quantity| cell(self.results.median(load, *kind, *quantity)));
            std::iter::once(kind.title().to_owned())
                .chain(values)
                .collect()
        });
        markdown(&head, rows)
    }

    /// For programs: medians, and the value of every round.
    pub(super) fn json(&self) -> Value {
        let (rounds, seconds) = self.rounds;
        let machine: Map<String, Value> = self
            .machine
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        let loads: Map<String, Value> = Load::ALL
            .iter()
            .map(|load| (load.key().to_owned(), self.load_json(*load)))
            .collect();
        let memory: Map<String, Value> = self
            .memory
            .iter()
            .map(|(kind, memory)| {
                let value = json!({
                    "idleBytes": memory.idle,
                    "bytesPerIdleConnection": memory.per_connection,
                });
                (kind.key().to_owned(), value)
            })
            .collect();
        let targets = self.targets.iter().map(|target| {
            let (relation, bound) = match target.bound {
                Bound::AtMost(bound) => ("atMost", bound),
                Bound::AtLeast(bound) => ("atLeast", bound),
            };
            json!({
                "target": target.what,
                relation: bound,
                "measured": target.measured,
                "met": target.is_met(),
            })
        });
        json!({
            "machine": machine,
            "rounds": rounds,
            "secondsPerLoad": seconds,
            "secondsInAll": self.took.as_secs(),
            "loads": loads,
            "memory": memory,
            "acceleration": self.verdict.as_ref().map(Verdict::json),
            "udp": self.datagrams.as_ref().map(udp::json),
            "connect": self.costs.as_ref().map(connect::json),
            "scale": self.scale.as_ref().map(scale::json),
            "targets": targets.collect::<Vec<_>>(),
        })
    }

    fn load_json(&self, load: Load) -> Value {
        use Quantity::{Gbits, NodeCpu, P50, P99, ProxyCpu, Rate};
        let mut rows = Map::new();
        for kind in &self.rows {
            let mut row = Map::new();
            for quantity in [Rate, P50, P99, ProxyCpu, NodeCpu, Gbits] {
                if let Some(median) = self.results.median(load, *kind, quantity) {
                    let rounds = self.results.rounds(load, *kind, quantity);
                    let value = json!({ "median": median, "rounds": rounds });
                    row.insert(quantity.key().to_owned(), value);
                }
            }
            rows.insert(kind.key().to_owned(), Value::Object(row));
        }
        Value::Object(rows)
    }
}

/// Three significant digits, more only where the number has them before the point.
pub(super) fn cell(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

/// A Markdown table whose columns line up.
pub(super) fn markdown(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let head: Vec<String> = head.iter().map(|title| (*title).to_owned()).collect();
    let mut lines = vec![head];
    lines.extend(rows);
    let columns = lines[0].len();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: Vec<usize> = (0..columns)
        .map(|column| width(column).unwrap_or(0).max(3))
        .collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(&widths) {
            push(&mut text, format_args!("| {cell:<width$} "));
        }
        text.push_str("|\n");
        if number == 0 {
            for width in &widths {
                push(&mut text, format_args!("| {:-<width$} ", ""));
            }
            text.push_str("|\n");
        }
    }
    text
}

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_rounded_by_size() {
        let cells = [None, Some(0.123), Some(12.34), Some(12_345.6)].map(cell);
        assert_eq!(cells, ["–", "0.12", "12.3", "12346"]);
    }

    #[test]
    fn tables_line_up() {
        let rows = [
            vec!["a".into(), "µµµµ".into()],
            vec!["bbbb".into(), "1".into()],
        ];
        let expected = "\
|      | x    |
| ---- | ---- |
| a    | µµµµ |
| bbbb | 1    |
";
        assert_eq!(markdown(&["", "x"], rows.into_iter()), expected);
    }
}
