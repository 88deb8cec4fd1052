//! `weir top`: status, workloads and the busiest calls, again and again.
//!
//! Must never show a rate that was not counted between two looks.

use std::collections::HashMap;
use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::args::TopArgs;
use super::client::Query;
use super::look::workload_table;
use super::table::Table;
use super::{Failure, Session};
use crate::admin::wire::{Items, Status};
use crate::control::WorkloadStatus;

/// Clears a terminal and goes to its corner.
const CLEAR: &str = "\x1b[H\x1b[2J";
/// Calls that fit below the rest.
const CALLS_MAX: usize = 20;

/// The call graph, as far as it is shown here.
#[derive(Debug, Deserialize)]
struct Graph {
    edges: Vec<Edge>,
}

#[derive(Debug, Deserialize)]
struct Edge {
    source: String,
    destination: String,
    kind: String,
    count: u64,
    errors: u64,
}

impl Edge {
    fn key(&self) -> (String, String, String) {
        (
            self.source.clone(),
            self.destination.clone(),
            self.kind.clone(),
        )
    }
}

/// What the last look counted, and when.
#[derive(Debug)]
struct Last {
    at: Instant,
    counts: HashMap<(String, String, String), u64>,
}

/// `weir top`.
pub(super) fn top(session: &mut Session<'_>, args: &TopArgs) -> Result<(), Failure> {
    let clear = if io::stdout().is_terminal() {
        CLEAR
    } else {
        ""
    };
    let mut last = None;
    let mut looks = 0;
    loop {
        let text = look(session, &mut last)?;
        session.print.out(&format!("{clear}{text}\n"))?;
        looks += 1;
        if args.count.is_some_and(|count| looks >= count) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(args.interval));
    }
}

fn look(session: &Session<'_>, last: &mut Option<Last>) -> Result<String, Failure> {
    let status: Status = session.client.get(Query::new("/v1/status"))?;
    let workloads: Items<WorkloadStatus> = session.client.get(Query::new("/v1/workloads"))?;
    let graph: Graph = session.client.get(Query::new("/v1/graph"))?;
    let head = format!(
        "weir {} on {}   up {} s   generation {}   revision {}",
        status.version, status.node, status.uptime_seconds, status.generation, status.revision
    );
    let counters = status
        .dataplane
        .counters
        .iter()
        .filter(|(_, value)| **value > 0);
    let counters: Vec<String> = counters
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    let workloads = workload_table(&workloads);
    let calls = calls(&graph, last);
    Ok(format!(
        "{head}\n{}\n\n{workloads}\n{calls}",
        counters.join("   ")
    ))
}

/// The busiest calls since the last look; at the first look those with the most so far.
fn calls(graph: &Graph, last: &mut Option<Last>) -> String {
    let now = Instant::now();
    let counts: HashMap<_, _> = graph
        .edges
        .iter()
        .map(|edge| (edge.key(), edge.count))
        .collect();
    let before = last.replace(Last { at: now, counts });
    let news = |edge: &Edge| {
        let known = before
            .as_ref()
            .and_then(|last| last.counts.get(&edge.key()));
        // A series that expired meanwhile begins again at nothing.
        edge.count.saturating_sub(known.copied().unwrap_or(0))
    };
    let mut edges: Vec<_> = graph.edges.iter().map(|edge| (news(edge), edge)).collect();
    edges.sort_by(|(a, _), (b, _)| b.cmp(a));
    let mut table = Table::new(&[
        "SOURCE",
        "DESTINATION",
        "KIND",
        "PER-SECOND",
        "COUNT",
        "ERRORS",
    ]);
    for (news, edge) in edges.into_iter().take(CALLS_MAX) {
        table.row(vec![
            edge.source.clone(),
            edge.destination.clone(),
            edge.kind.clone(),
            before
                .as_ref()
                .map(|last| rate(news, now - last.at))
                .unwrap_or_default(),
            edge.count.to_string(),
            edge.errors.to_string(),
        ]);
    }
    table.render()
}

fn rate(count: u64, time: Duration) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
    let count = count as f64;
    format!("{:.1}", count / time.as_secs_f64().max(0.001))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(destination: &str, count: u64) -> Edge {
        let [source, destination, kind] = ["svca", destination, "http"].map(str::to_owned);
        Edge {
            source,
            destination,
            kind,
            count,
            errors: 0,
        }
    }

    #[test]
    fn the_busiest_since_the_last_look_come_first() {
        let mut last = None;
        let first = calls(
            &Graph {
                edges: vec![edge("old", 1000), edge("new", 0)],
            },
            &mut last,
        );
        assert!(
            first.contains("svca     old           http   -            1000    0\n"),
            "{first}"
        );
        let second = calls(
            &Graph {
                edges: vec![edge("old", 1000), edge("new", 50)],
            },
            &mut last,
        );
        let lines: Vec<&str> = second.lines().collect();
        assert!(lines[1].starts_with("svca     new "), "{second}");
        assert!(lines[2].contains(" 0.0 "), "{second}");
    }
}
