//! Who called whom: a view of what the metrics count, so it costs nothing to
//! keep, and its size is bounded by theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::State;
use super::cells::{RequestSum, StreamSum};
use super::record::DestinationKind;
use super::series::Labels;

/// What an edge stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EdgeKind {
    /// HTTP requests.
    Http,
    /// Connections whose bytes were passed through.
    Tcp,
    /// Attempts that policy refused.
    Denied,
    /// Attempts that policy let through only because it audits.
    Audited,
}

/// All calls of one kind from one source to one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Edge {
    /// Who called.
    pub source: String,
    /// Who was called; of a refused attempt, what was dialled or asked for.
    pub destination: String,
    /// What the destination is.
    pub destination_kind: DestinationKind,
    /// What the edge stands for.
    pub kind: EdgeKind,
    /// Requests, connections or attempts.
    pub count: u64,
    /// Of these: answers of 500 and above, and connections that did not end well.
    pub errors: u64,
    /// Body bytes, or bytes, from source to destination.
    pub sent_bytes: u64,
    /// Body bytes, or bytes, from destination to source.
    pub received_bytes: u64,
}

/// Who called whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Graph {
    /// In the order of source, destination and kind.
    pub edges: Vec<Edge>,
}

type EdgeKey = (String, String, DestinationKind, EdgeKind);

#[derive(Default)]
struct Edges(BTreeMap<EdgeKey, Edge>);

impl Graph {
    pub(super) fn of(state: &State) -> Self {
        let mut edges = Edges::default();
        for (labels, sum) in state.requests.sums() {
            edges.requests(&labels, &sum);
        }
        for (labels, sum) in state.streams.sums() {
            edges.streams(&labels, &sum);
        }
        for (kind, family) in [
            (EdgeKind::Denied, &state.denials),
            (EdgeKind::Audited, &state.audits),
        ] {
            for (labels, count) in family.sums() {
                edges.at(&labels, DestinationKind::External, kind).count += count;
            }
        }
        Self {
            edges: edges.0.into_values().collect(),
        }
    }

    /// The graph in the DOT language: refused attempts dashed and red, external
    /// destinations as boxes.
    pub fn to_dot(&self) -> String {
        Dot(self).to_string()
    }
}

struct Dot<'a>(&'a Graph);

impl fmt::Display for Dot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let edges = &self.0.edges;
        let of = |kind| {
            edges
                .iter()
                .filter(move |edge| edge.destination_kind == kind)
        };
        let services: BTreeSet<&str> = of(DestinationKind::Service)
            .flat_map(|edge| [edge.source.as_str(), edge.destination.as_str()])
            .collect();
        let external: BTreeSet<&str> = of(DestinationKind::External)
            .map(|edge| edge.destination.as_str())
            .collect();
        writeln!(f, "digraph weir {{\n  rankdir=LR;")?;
        for name in external.difference(&services) {
            writeln!(f, "  {} [shape=box];", quoted(name))?;
        }
        for edge in edges {
            writeln!(f, "  {}", DotEdge(edge))?;
        }
        writeln!(f, "}}")
    }
}

struct DotEdge<'a>(&'a Edge);

impl fmt::Display for DotEdge<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(edge) = self;
        let (what, style) = match edge.kind {
            EdgeKind::Http => ("http", ""),
            EdgeKind::Tcp => ("tcp", ""),
            EdgeKind::Denied => ("denied", ", style=dashed, color=red"),
            EdgeKind::Audited => ("audited", ", style=dashed"),
        };
        let (source, destination) = (quoted(&edge.source), quoted(&edge.destination));
        write!(
            f,
            "{source} -> {destination} [label=\"{what} {}",
            edge.count
        )?;
        if edge.errors > 0 {
            write!(f, ", {} failed", edge.errors)?;
        }
        write!(f, "\"{style}];")
    }
}

impl Edges {
    fn requests(&mut self, labels: &Labels, sum: &RequestSum) {
        let edge = self.at(labels, destination_kind(labels), EdgeKind::Http);
        edge.count += sum.count();
        if labels.key().code >= 500 {
            edge.errors += sum.count();
        }
        edge.sent_bytes += sum.request_bytes;
        edge.received_bytes += sum.response_bytes;
    }

    fn streams(&mut self, labels: &Labels, sum: &StreamSum) {
        let edge = self.at(labels, destination_kind(labels), EdgeKind::Tcp);
        edge.count += sum.connections();
        if !labels.key().reason.is_empty() {
            edge.errors += sum.connections();
        }
        edge.sent_bytes += sum.sent;
        edge.received_bytes += sum.received;
    }

    fn at(
        &mut self,
        labels: &Labels,
        destination_kind: DestinationKind,
        kind: EdgeKind,
    ) -> &mut Edge {
        let key = labels.key();
        let (source, destination) = (key.source.to_owned(), key.destination.to_owned());
        self.0
            .entry((source.clone(), destination.clone(), destination_kind, kind))
            .or_insert(Edge {
                source,
                destination,
                destination_kind,
                kind,
                count: 0,
                errors: 0,
                sent_bytes: 0,
                received_bytes: 0,
            })
    }
}

fn destination_kind(labels: &Labels) -> DestinationKind {
    if labels.key().external {
        DestinationKind::External
    } else {
        DestinationKind::Service
    }
}

/// A name as a DOT string.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests;
