//! The curves as tables, plots and JSON, and the targets they are held to.

use serde_json::{Map, Value, json};

use super::beside::{self, Calls};
use super::case::{Axis, Case};
use super::{Cost, Costs};
use crate::bench::plot::{self, Line, time};
use crate::bench::report::markdown;
use crate::bench::target::{Bound, Target};

/// The cases that can be on an axis, in the order of tables.
const CASES: [Case; 9] = [
    Case::Unenrolled,
    Case::Direct,
    Case::Direct6,
    Case::Deny,
    Case::Balance,
    Case::Balance6,
    Case::Proxy,
    Case::Iptables,
    Case::Nftables,
];

/// What is told of a connect.
#[derive(Clone, Copy)]
enum Side {
    Hook,
    Call,
}

impl Side {
    const ALL: [Self; 2] = [Self::Hook, Self::Call];

    fn title(self) -> &'static str {
        match self {
            Self::Hook => "connect: run time of the hook",
            Self::Call => "connect: the whole call",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Hook => "hook",
            Self::Call => "call",
        }
    }

    fn of(self, cost: &Cost) -> Option<f64> {
        match self {
            Self::Hook => cost.hook_ns,
            Self::Call => Some(cost.call_ns),
        }
    }
}

/// Tables in Markdown, each with its plot.
pub(in crate::bench) fn text(costs: &Costs) -> String {
    let mut text = calls(&costs.calls);
    for axis in Axis::ALL {
        for side in Side::ALL {
            let lines = lines(costs, axis, side);
            let Some(first) = lines.first() else { continue };
            let sizes: Vec<String> = first
                .points
                .iter()
                .map(|(size, _)| format!("{size:.0}"))
                .collect();
            let mut head = vec![axis.title()];
            head.extend(sizes.iter().map(String::as_str));
            let rows = lines.iter().map(|line| {
                let cells = line.points.iter().map(|(_, nanos)| time(*nanos));
                std::iter::once(line.title.clone()).chain(cells).collect()
            });
            let (title, axis_title) = (side.title(), axis.title());
            let (table, file) = (markdown(&head, rows), file(axis, side));
            text.extend(
                [
                    &format!("\n### {title}, by {axis_title}\n\n{table}\n"),
                    &format!("![{title}]({file})\n"),
                ]
                .map(String::as_str),
            );
        }
        text += &growth(costs, axis);
    }
    text
}

/// The run time of the hook as a multiple of that on the node that does not grow.
fn growth(costs: &Costs, axis: Axis) -> String {
    let curve = |case| Some((case, costs.curve(axis, case)?));
    let curves: Vec<_> = Case::OF_WEIR.into_iter().filter_map(curve).collect();
    let Some((_, first)) = curves.first() else {
        return String::new();
    };
    let sizes: Vec<String> = first.keys().map(u32::to_string).collect();
    let mut head = vec![axis.title()];
    head.extend(sizes.iter().map(String::as_str));
    let rows = curves.iter().map(|(case, curve)| {
        let cells = curve.values().map(|cost| match cost.growth {
            Some(growth) => format!("{growth:.2}"),
            None => "–".to_owned(),
        });
        std::iter::once(case.title().to_owned())
            .chain(cells)
            .collect()
    });
    let table = markdown(&head, rows);
    let title = axis.title();
    format!(
        "\n### connect: the hook beside that of a node that does not grow, by {title}\n\n{table}\n"
    )
}

/// The whole call to a pod, beside the same without weir.
fn calls(calls: &Calls) -> String {
    let rows = beside::CASES.into_iter().map(|case| {
        let cell = |nanos: Option<f64>| nanos.map_or_else(|| "–".to_owned(), time);
        let more = match case {
            Case::NoMesh | Case::NoMesh6 => None,
            _ => calls.more(case),
        };
        vec![
            case.title().to_owned(),
            cell(calls.median(case)),
            cell(more),
        ]
    });
    let table = markdown(&["", "connect() to a pod", "more than no mesh"], rows);
    format!(
        "\n### connect: the whole call, beside no mesh\n\n{table}\nThe middle of all turns, and \
         of the differences within each, of one family; the kernel's statistics are off.\n"
    )
}

/// The plots: file names and contents.
pub(in crate::bench) fn files(costs: &Costs) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for axis in Axis::ALL {
        for side in Side::ALL {
            let lines = lines(costs, axis, side);
            if !lines.is_empty() {
                let plot = plot::lines(side.title(), axis.title(), &lines);
                files.push((file(axis, side), plot));
            }
        }
    }
    files
}

fn file(axis: Axis, side: Side) -> String {
    format!("connect-{}-{}.svg", axis.title(), side.key())
}

fn lines(costs: &Costs, axis: Axis, side: Side) -> Vec<Line> {
    let line = |case: Case| {
        let curve = costs.curve(axis, case)?;
        let points: Vec<(f64, f64)> = curve
            .iter()
            .filter_map(|(size, cost)| Some((f64::from(*size), side.of(cost)?)))
            .collect();
        (!points.is_empty()).then(|| Line {
            title: case.title().to_owned(),
            points,
        })
    };
    CASES.into_iter().filter_map(line).collect()
}

/// For programs.
pub(in crate::bench) fn json(costs: &Costs) -> Value {
    let mut axes = Map::new();
    for axis in Axis::ALL {
        let mut cases = Map::new();
        for case in CASES {
            let Some(curve) = costs.curve(axis, case) else {
                continue;
            };
            let points: Vec<Value> = curve
                .iter()
                .map(|(size, cost)| {
                    json!({
                        "size": size,
                        "hookNanos": cost.hook_ns,
                        "callNanos": cost.call_ns,
                        "growth": cost.growth,
                    })
                })
                .collect();
            cases.insert(case.key().to_owned(), points.into());
        }
        axes.insert(axis.title().to_owned(), Value::Object(cases));
    }
    let calls = beside::CASES.into_iter().map(|case| {
        let value = json!({
            "callNanos": costs.calls.median(case),
            "moreNanos": costs.calls.more(case),
        });
        (case.key().to_owned(), value)
    });
    axes.insert("besideNoMesh".to_owned(), Value::Object(calls.collect()));
    Value::Object(axes)
}

/// What the hook is held to.
pub(in crate::bench) fn targets(costs: Option<&Costs>) -> Vec<Target> {
    let at_most = |axis, case| costs?.curve(axis, case)?.values().last().copied();
    let largest = |case| {
        let at = |axis| at_most(axis, case)?.hook_ns;
        Axis::ALL.into_iter().filter_map(at).max_by(f64::total_cmp)
    };
    let growth = |axis| {
        let of = |case| at_most(axis, case)?.growth;
        Case::OF_WEIR
            .into_iter()
            .filter_map(of)
            .max_by(f64::total_cmp)
    };
    let target = |what, bound, measured| Target {
        what,
        bound: Bound::AtMost(bound),
        measured,
    };
    let balanced = costs.and_then(|costs| costs.calls.more(Case::Balance));
    vec![
        target(
            "connect, balanced: µs more for the whole call than without mesh",
            1.5,
            balanced.map(|nanos| nanos / 1e3),
        ),
        target(
            "connect, not enrolled: ns in the hook, at the worst size",
            150.0,
            largest(Case::Unenrolled),
        ),
        target(
            "connect, Direct: ns in the hook, at the worst size",
            600.0,
            largest(Case::Direct),
        ),
        target(
            "connect: hook at the most rules / at the fewest, worst verdict",
            1.1,
            growth(Axis::Rules),
        ),
        target(
            "connect: hook at the most services / at the fewest, worst verdict",
            1.1,
            growth(Axis::Services),
        ),
        target(
            "connect: hook at the most workloads / at the fewest, worst verdict",
            1.1,
            growth(Axis::Workloads),
        ),
    ]
}
