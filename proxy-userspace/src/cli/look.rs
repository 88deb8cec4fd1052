//! The commands that only look: history, workloads, explain, status, tap, graph.

use std::fmt::Write as _;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::args::{ExplainArgs, GraphArgs, GraphOutput, Output, OutputArgs};
use super::client::Query;
use super::print::title;
use super::table::Table;
use super::{Failure, Session};
use crate::admin::wire::{HistoryEntry, Items, Status};
use crate::control::{AccelerationStatus, DataplaneStatus, Explanation, MapStatus, WorkloadStatus};

/// Asks for `query` and shows it: as a text for people, or as it came.
fn show<T: DeserializeOwned>(
    session: &mut Session<'_>,
    query: Query,
    output: Output,
    text: impl Fn(&T) -> String,
) -> Result<(), Failure> {
    if output != Output::Table {
        return session
            .print
            .structured(&session.client.get::<Value>(query)?, output);
    }
    session.print.out(&text(&session.client.get(query)?))
}

/// `weir history`.
pub(super) fn history(session: &mut Session<'_>, args: &OutputArgs) -> Result<(), Failure> {
    show(
        session,
        Query::new("/v1/history"),
        args.output,
        |history: &Items<HistoryEntry>| {
            let mut table = Table::new(&["GENERATION", "TIME", "UID", "CHANGES", "REASON"]);
            for entry in &history.items {
                table.row(vec![
                    entry.generation.to_string(),
                    format!("{:.0}", entry.time),
                    entry.uid.to_string(),
                    changes(entry),
                    entry.reason.clone().unwrap_or_default(),
                ]);
            }
            table.render()
        },
    )
}

/// The one change in words, of more how many there are.
fn changes(entry: &HistoryEntry) -> String {
    match &entry.changes[..] {
        [one] if entry.changes_omitted == 0 => format!("{} {}", title(one), one.change.as_str()),
        many => format!("{} objects", many.len() + entry.changes_omitted),
    }
}

/// `weir workloads`.
pub(super) fn workloads(session: &mut Session<'_>, args: &OutputArgs) -> Result<(), Failure> {
    show(
        session,
        Query::new("/v1/workloads"),
        args.output,
        workload_table,
    )
}

pub(super) fn workload_table(workloads: &Items<WorkloadStatus>) -> String {
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let mut table = Table::new(&[
        "NAMESPACE",
        "NAME",
        "ADDRESSES",
        "ENROLLED",
        "CAPTURED",
        "PENDING",
        "OPEN",
        "OLDER",
        "WHY",
    ]);
    for workload in &workloads.items {
        let addresses: Vec<String> = workload.addresses.iter().map(ToString::to_string).collect();
        table.row(vec![
            workload.namespace.clone(),
            workload.name.clone(),
            addresses.join(","),
            yes(workload.enrolled),
            yes(workload.captured),
            workload.pending_flows.to_string(),
            workload.open_connections.to_string(),
            workload.older_connections.to_string(),
            workload.why.clone(),
        ]);
    }
    table.render()
}

/// `weir explain`.
pub(super) fn explain(session: &mut Session<'_>, args: &ExplainArgs) -> Result<(), Failure> {
    let mut query = Query::new("/v1/explain")
        .with("workload", Some(&args.workload))
        .with("namespace", Some(&args.namespace))
        .with("destination", Some(&args.destination))
        .with("method", args.method.as_ref())
        .with("path", args.path.as_ref());
    for header in &args.headers {
        query = query.with("header", Some(header));
    }
    show(session, query, args.output, explanation)
}

fn explanation(explanation: &Explanation) -> String {
    let mut lines = vec![
        ("from", explanation.workload.clone()),
        ("to", explanation.destination.clone()),
        ("verdict", explanation.verdict.clone()),
        ("reason", explanation.reason.clone()),
    ];
    let optional = [
        ("egress rule", &explanation.rule),
        ("service", &explanation.service),
        ("protocol", &explanation.protocol),
        ("route rule", &explanation.route_rule),
    ];
    for (label, value) in optional {
        lines.extend(value.clone().map(|value| (label, value)));
    }
    lines.push(("generation", explanation.generation.to_string()));
    for endpoint in &explanation.endpoints {
        let text = format!(
            "{} {} {}%",
            endpoint.workload, endpoint.address, endpoint.share
        );
        lines.push(("endpoint", text));
    }
    lines.extend(explanation.notes.iter().map(|note| ("note", note.clone())));
    fields(&lines)
}

/// `weir status`.
pub(super) fn status(session: &mut Session<'_>, args: &OutputArgs) -> Result<(), Failure> {
    show(session, Query::new("/v1/status"), args.output, status_text)
}

fn status_text(status: &Status) -> String {
    let dataplane = &status.dataplane;
    let programs = &dataplane.programs;
    let attached = programs.iter().filter(|program| program.attached).count();
    let objects: Vec<String> = status
        .objects
        .iter()
        .map(|(kind, count)| format!("{kind} {count}"))
        .collect();
    let mut text = fields(&[
        ("node", status.node.clone()),
        ("version", status.version.clone()),
        ("process", status.pid.to_string()),
        (
            "started",
            format!("{:.0} ({} s ago)", status.started_at, status.uptime_seconds),
        ),
        (
            "generation",
            format!("{} (revision {})", status.generation, status.revision),
        ),
        ("objects", objects.join(", ")),
        (
            "programs",
            format!("{attached} of {} attached", programs.len()),
        ),
        ("listeners", dataplane.listeners.len().to_string()),
        ("acceleration", acceleration(&dataplane.acceleration)),
        ("UDP", dataplane.udp.clone()),
    ]);
    for case in &dataplane.acceleration.broken {
        let _infallible = writeln!(
            text,
            "acceleration breaks {}: {}, but {}",
            case.name, case.must, case.seen
        );
    }
    for program in programs.iter().filter(|program| !program.attached) {
        let _infallible = writeln!(text, "NOT ATTACHED: {} at {}", program.name, program.hook);
    }
    text.push_str(&others(dataplane));
    for warning in &status.warnings {
        let _infallible = writeln!(text, "warning: {}", warning.text);
    }
    let mut counters = Table::new(&["COUNTER", "VALUE"]);
    for (name, value) in &dataplane.counters {
        counters.row(vec![name.clone(), value.to_string()]);
    }
    let maps = maps_table(&dataplane.maps);
    format!("{text}\n{}\n{}", maps.render(), counters.render())
}

/// Programs of others on the hooks, one a line.
fn others(dataplane: &DataplaneStatus) -> String {
    let mut text = String::new();
    for other in &dataplane.others {
        let (id, hook, cgroup) = (other.id, &other.hook, &other.cgroup);
        let name = Some(other.name.as_str()).filter(|name| !name.is_empty());
        let name = name.unwrap_or("a program");
        let _infallible = writeln!(text, "beside weir: {name} (id {id}) at {hook} of {cgroup}");
    }
    if dataplane.others_omitted > 0 {
        let _infallible = writeln!(text, "beside weir: {} more", dataplane.others_omitted);
    }
    text
}

/// What each map holds and takes. Blank: nobody can tell, or it has no such thing.
fn maps_table(statuses: &[MapStatus]) -> Table {
    let mut maps = Table::new(&["MAP", "ENTRIES", "CAPACITY", "KIB", "MAP-LIMIT"]);
    for map in statuses {
        let entries = map
            .entries
            .map(|entries| entries.to_string())
            .unwrap_or_default();
        let capacity = (map.capacity > 0).then(|| map.capacity.to_string());
        let size = map.bytes.map(|bytes| bytes.div_ceil(1024).to_string());
        maps.row(vec![
            map.name.clone(),
            entries,
            capacity.unwrap_or_default(),
            size.unwrap_or_default(),
            map.map_limit.clone().unwrap_or_default(),
        ]);
    }
    maps
}

/// `label: value` lines, the values in one column.
fn fields(lines: &[(&str, String)]) -> String {
    let width = lines
        .iter()
        .map(|(label, _)| label.len())
        .max()
        .unwrap_or(0)
        + 1;
    let mut text = String::new();
    for (label, value) in lines {
        let _infallible = writeln!(text, "{:width$} {value}", format!("{label}:"));
    }
    text
}

/// `weir tap`.
pub(super) fn tap(session: &mut Session<'_>) -> Result<(), Failure> {
    let mut written = Ok(());
    let print = &mut session.print;
    session.client.follow(Query::new("/v1/tap"), |lines| {
        written = print.bytes(lines);
        written.is_ok()
    })?;
    written
}

/// `weir graph`.
pub(super) fn graph(session: &mut Session<'_>, args: &GraphArgs) -> Result<(), Failure> {
    let query = |format| Query::new("/v1/graph").with("format", Some(format));
    match args.output {
        GraphOutput::Dot => session.print.out(&session.client.get_text(query("dot"))?),
        GraphOutput::Json => session
            .print
            .structured(&session.client.get::<Value>(query("json"))?, Output::Json),
    }
}

/// Acceleration in one line.
fn acceleration(status: &AccelerationStatus) -> String {
    let fault = status.fault.as_ref();
    let fault = fault.map_or_else(String::new, |fault| format!("; it failed: {fault}"));
    format!(
        "{}, in force for {}; self-test: {}{fault}",
        status.mode, status.in_force_for, status.self_test
    )
}
