//! The figures of a full node as a table and JSON, and the targets they are held to.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{CHANGES, ENDPOINTS, PODS, PREFIXES, SERVICES, Scale};
use crate::bench::report::{MIB, cell, markdown};
use crate::bench::target::{Bound, Target};

fn median(sorted: &[Duration]) -> Option<Duration> {
    sorted.get(sorted.len() / 2).copied()
}

fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

#[expect(clippy::cast_precision_loss, reason = "less than a terabyte")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}

/// What an operator waits for.
pub(in crate::bench) fn targets(scale: Option<&Scale>) -> Vec<Target> {
    let one = |scale: &Scale| {
        let medians = scale.one.iter().filter_map(|(_, times)| median(times));
        medians.max()
    };
    vec![
        Target {
            what: "full node: s for an apply of everything, from nothing",
            bound: Bound::AtMost(2.0),
            measured: scale.map(|scale| scale.all.as_secs_f64()),
        },
        Target {
            what: "full node: ms for an apply of one object, the slowest kind",
            bound: Bound::AtMost(50.0),
            measured: scale.and_then(one).map(millis),
        },
    ]
}

/// For people.
pub(in crate::bench) fn text(scale: &Scale) -> String {
    let row = |what: &str, value: Option<f64>, slowest: Option<f64>| {
        vec![what.to_owned(), cell(value), cell(slowest)]
    };
    let mut rows = vec![
        row(
            "apply of everything, from nothing: ms",
            Some(millis(scale.all)),
            None,
        ),
        row(
            "start with all of it stored: ms",
            Some(millis(scale.start)),
            None,
        ),
    ];
    for (what, times) in &scale.one {
        let slowest = times.last().copied().map(millis);
        rows.push(row(
            &format!("{what}: ms"),
            median(times).map(millis),
            slowest,
        ));
    }
    rows.push(row("kernel maps: MiB", Some(mib(scale.maps_bytes)), None));
    rows.push(row(
        "daemon, resident: MiB",
        Some(mib(scale.resident_bytes)),
        None,
    ));
    let table = markdown(&["", "measured", "slowest"], rows.into_iter());
    format!(
        "\n### A full node\n\n{PODS} pods, {SERVICES} services, of which every other one is \
         balanced by the kernel, {} endpoints and {PREFIXES} prefixes; changes of one object: the \
         median of {CHANGES}.\n\n{table}",
        SERVICES * ENDPOINTS
    )
}

/// For programs.
pub(in crate::bench) fn json(scale: &Scale) -> Value {
    let one = scale.one.iter().map(|(what, times)| {
        let value = json!({
            "medianMillis": median(times).map(millis),
            "slowestMillis": times.last().copied().map(millis),
        });
        ((*what).to_owned(), value)
    });
    json!({
        "everythingMillis": millis(scale.all),
        "startMillis": millis(scale.start),
        "one": one.collect::<Map<_, _>>(),
        "mapsBytes": scale.maps_bytes,
        "residentBytes": scale.resident_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_kind_is_judged_by_its_median() {
        let millis = |times: [u64; 3]| times.map(Duration::from_millis).to_vec();
        let scale = Scale {
            all: Duration::from_millis(2_500),
            one: vec![("a", millis([1, 2, 90])), ("b", millis([3, 4, 5]))],
            start: Duration::ZERO,
            maps_bytes: 1 << 20,
            resident_bytes: 0,
        };
        let targets = targets(Some(&scale));
        assert_eq!(targets[0].is_met(), Some(false));
        assert_eq!(targets[1].measured, Some(4.0));
        assert!(
            super::targets(None)
                .iter()
                .all(|target| target.is_met().is_none())
        );
        assert!(text(&scale).contains("| a: ms "));
        assert_eq!(json(&scale)["one"]["a"]["slowestMillis"], 90.0);
    }
}
