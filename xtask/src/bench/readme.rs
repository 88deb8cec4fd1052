//! The table that the README shows: a column for each row of the bench.

use super::load::Load;
use super::memory::Memory;
use super::report::{KIB, MIB, cell, markdown};
use super::result::{Quantity, Results};
use super::row::Kind;

const KINDS: [Kind; 9] = [
    Kind::NoMesh,
    Kind::Haproxy,
    Kind::Nginx,
    Kind::Envoy,
    Kind::Redirect,
    Kind::Weir,
    Kind::Accelerated,
    Kind::Balance,
    Kind::BalanceAccelerated,
];

/// Titles, and what stands in each line.
const LINES: [(&str, &[(Load, Quantity)]); 8] = [
    (
        "HTTP/1.1, 64 connections: requests/s",
        &[(Load::Http64, Quantity::Rate)],
    ),
    (
        "HTTP/1.1, 64 connections: p50 / p99 µs",
        &[(Load::Http64, Quantity::P50), (Load::Http64, Quantity::P99)],
    ),
    (
        "HTTP/1.1, 64 connections: proxy CPU µs/request",
        &[(Load::Http64, Quantity::ProxyCpu)],
    ),
    (
        "HTTP/1.1, 64 connections, moved as bytes: requests/s",
        &[(Load::Opaque64, Quantity::Rate)],
    ),
    (
        "HTTP/1.1, 1 connection: p50 µs",
        &[(Load::Http1, Quantity::P50)],
    ),
    (
        "TCP request/response: p50 µs",
        &[(Load::Exchange, Quantity::P50)],
    ),
    (
        "TCP connect + request + close: CPU µs/operation",
        &[(Load::Connect, Quantity::NodeCpu)],
    ),
    (
        "TCP bulk: Gbit/s, sent / received",
        &[
            (Load::Send, Quantity::Gbits),
            (Load::Receive, Quantity::Gbits),
        ],
    ),
];

/// The table.
pub(super) fn table(results: &Results, memory: &[(Kind, Memory)]) -> String {
    let mut head = vec![""];
    head.extend(KINDS.map(Kind::title));
    let lines = LINES.iter().map(|(title, values)| {
        let values = |kind| {
            let values = values.iter();
            let cells = values.map(|(load, quantity)| cell(results.median(*load, kind, *quantity)));
            cells.collect::<Vec<_>>().join(" / ")
        };
        line(title, values)
    });
    let idle = |kind| {
        let found = memory.iter().find(|(of, _)| *of == kind);
        found.map_or("–".to_owned(), |(_, memory)| {
            let (idle, connection) = (memory.idle / MIB, memory.per_connection / KIB);
            format!("{idle:.1} MiB / {connection:.1} KiB")
        })
    };
    let last = line("Memory, idle / per idle connection", idle);
    markdown(&head, lines.chain([last]))
}

fn line(title: &str, value: impl Fn(Kind) -> String) -> Vec<String> {
    std::iter::once(title.to_owned())
        .chain(KINDS.map(value))
        .collect()
}
