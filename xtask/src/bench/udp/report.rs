//! The figures of UDP as tables and JSON.

use serde_json::{Map, Value, json};

use super::{Case, Datagrams, Hook, Style, Way};
use crate::bench::report::{cell, markdown};
use crate::bench::result::Quantity;

/// What is told of a way.
const QUANTITIES: [Quantity; 4] = [
    Quantity::Rate,
    Quantity::P50,
    Quantity::P99,
    Quantity::NodeCpu,
];

/// Tables in Markdown.
pub(in crate::bench) fn text(datagrams: &Datagrams) -> String {
    let mut text = String::new();
    for style in Style::ALL {
        let mut head = vec![""];
        head.extend(QUANTITIES.map(Quantity::title));
        let rows = Way::ALL.into_iter().map(|way| {
            let cells = QUANTITIES.map(|quantity| cell(datagrams.median(style, way, quantity)));
            std::iter::once(way.title().to_owned())
                .chain(cells)
                .collect()
        });
        text += "\n### UDP request/response, 128 B, ";
        text += style.title();
        text += " (operation: there and back)\n\n";
        text += &markdown(&head, rows);
    }
    let mut head = vec!["ns"];
    head.extend(Hook::ALL.map(Hook::title));
    let rows = Case::ALL.into_iter().map(|case| {
        let cells = Hook::ALL.map(|hook| cell(datagrams.hooks.get(&(case, hook)).copied()));
        std::iter::once(case.title().to_owned())
            .chain(cells)
            .collect()
    });
    text += "\n### UDP: run time of the hooks\n\n";
    text += &markdown(&head, rows);
    text + "\nOn a connected socket the kernel calls no hook but that of `connect`.\n"
}

/// For programs: medians, and the value of every round.
pub(in crate::bench) fn json(datagrams: &Datagrams) -> Value {
    let mut json = Map::new();
    for style in Style::ALL {
        let ways = Way::ALL.into_iter().map(|way| {
            let quantities = QUANTITIES.into_iter().map(|quantity| {
                let rounds = datagrams.rounds(style, way, quantity);
                let median = datagrams.median(style, way, quantity);
                let value = json!({ "median": median, "rounds": rounds });
                (quantity.key().to_owned(), value)
            });
            (way.key().to_owned(), Value::Object(quantities.collect()))
        });
        json.insert(style.key().to_owned(), Value::Object(ways.collect()));
    }
    let hooks = Case::ALL.into_iter().map(|case| {
        let means = Hook::ALL.into_iter().map(|hook| {
            let mean = datagrams.hooks.get(&(case, hook));
            (hook.title().to_owned(), json!(mean))
        });
        (case.key().to_owned(), Value::Object(means.collect()))
    });
    json.insert("hookNanos".to_owned(), Value::Object(hooks.collect()));
    Value::Object(json)
}
