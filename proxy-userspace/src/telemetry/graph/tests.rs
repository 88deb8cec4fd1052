use super::super::RequestRecord;
use super::super::tests::{connection, denial, quiet, request};
use super::*;

#[test]
fn the_graph_adds_up_versions_and_marks_denials() {
    let telemetry = quiet();
    let worker = telemetry.worker();
    worker.request(&request("svca", "svcb", 200));
    worker.request(&RequestRecord {
        version: "v0.2",
        ..request("svca", "svcb", 503)
    });
    worker.connection_closed(&connection("svca", "db"));
    worker.denied(&denial("svcb", "msgd \"x\""));
    let graph = telemetry.graph();
    let brief: Vec<_> = graph
        .edges
        .iter()
        .map(|edge| {
            (
                edge.destination.as_str(),
                edge.kind,
                edge.count,
                edge.errors,
            )
        })
        .collect();
    assert_eq!(
        brief,
        [
            ("db", EdgeKind::Tcp, 1, 1),
            ("svcb", EdgeKind::Http, 2, 1),
            ("msgd \"x\"", EdgeKind::Denied, 1, 0),
        ]
    );
    assert_eq!(graph.edges[1].received_bytes, 400);
    assert_eq!(
        graph.to_dot(),
        r#"digraph weir {
  rankdir=LR;
  "msgd \"x\"" [shape=box];
  "svca" -> "db" [label="tcp 1, 1 failed"];
  "svca" -> "svcb" [label="http 2, 1 failed"];
  "svcb" -> "msgd \"x\"" [label="denied 1", style=dashed, color=red];
}
"#
    );
}
