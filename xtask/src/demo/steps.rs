//! The steps of the demo, in order.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use serde_json::Value;
use testbed::agent::LoadReport;
use testbed::try_eventually;

use super::mesh::Mesh;
use super::report::Outcome;

type Step = fn(&mut Mesh<'_>) -> Result<Outcome>;

/// Title and action of each.
pub(super) const ALL: [(&str, Step); 10] = [
    (
        "all pods are enrolled, and capture is verified by a canary",
        enroll,
    ),
    (
        "/pay fails: msgd is external, and external is denied",
        denied,
    ),
    ("an EgressRule opens msgd", opened),
    (
        "without a rule, the four endpoints of svcb share evenly",
        even,
    ),
    ("a RouteRule: half v0.1, half v0.2", half),
    ("all of it to v0.2, from the very next request on", all_new),
    ("weir undo: half and half again", undone),
    (
        "a rolling update of svcb v0.2 to v0.3 under load, and back",
        rolling,
    ),
    ("metrics equal what was sent, and the graph shows it", seen),
    ("kill -9 of weir, and a restart", killed),
];

const DENIALS: &str = "weir_denials_total";
const REQUESTS: &str = "weir_requests_total";

fn enroll(mesh: &mut Mesh<'_>) -> Result<Outcome> {
    mesh.enroll_all()?;
    let wanted = mesh.pods();
    // The canaries are sent when the pods are enrolled, and take a moment.
    let captured = try_eventually("every canary", Duration::from_secs(10), || {
        match captured(mesh) {
            Ok(captured) if captured == (wanted, wanted) => Ok(captured),
            other => Err(format!("{other:?}")),
        }
    });
    Ok(Outcome {
        expected: format!("{wanted} workloads, all captured"),
        measured: match &captured {
            Ok((workloads, captured)) => format!("{workloads} workloads, {captured} captured"),
            Err(error) => error.to_string(),
        },
        passed: captured.is_ok(),
    })
}

/// How many workloads weir knows, and how many of them a canary found captured.
fn captured(mesh: &Mesh<'_>) -> Result<(usize, usize)> {
    let output = mesh.weir.cli(&["workloads", "-o", "json"])?;
    let said: Value =
        serde_json::from_str(&output.stdout).context("weir workloads says no JSON")?;
    let workloads = said["items"].as_array().context("no list of workloads")?;
    let captured = workloads
        .iter()
        .filter(|workload| workload["captured"] == true);
    Ok((workloads.len(), captured.count()))
}

fn denied(mesh: &mut Mesh<'_>) -> Result<Outcome> {
    let denials = |mesh: &Mesh<'_>| -> Result<u64> {
        let of_svcb = [("source", "default/svcb")];
        Ok(mesh.weir.try_metrics()?.count(DENIALS, &of_svcb))
    };
    let before = denials(mesh)?;
    let reply = mesh.pay()?;
    mesh.denied += 1;
    let msgd = mesh.msgd().to_string();
    let line = denial_line(mesh, &msgd)?;
    let counted = denials(mesh)? - before;
    Ok(Outcome {
        expected: "500 with the cause; one denial in log and metric, with its reason".to_owned(),
        measured: format!(
            "{} {}; {DENIALS} +{counted}; log: {line}",
            reply.status,
            reply.field("/error")
        ),
        passed: reply.status == 500 && counted == 1 && line.contains("egress-default-deny"),
    })
}

fn denial_line(mesh: &Mesh<'_>, destination: &str) -> Result<String> {
    try_eventually(
        "a log line about the denial",
        Duration::from_secs(3),
        || {
            let lines = mesh.weir.log_lines();
            let line = lines
                .iter()
                .find(|line| line["type"] == "denial" && line["destination"] == destination);
            line.map(Value::to_string)
                .ok_or_else(|| "there is none".to_owned())
        },
    )
}

fn opened(mesh: &mut Mesh<'_>) -> Result<Outcome> {
    let msgd = mesh.msgd();
    mesh.apply(&format!(
        "apiVersion: config.istio.io/v1alpha2\nkind: EgressRule\nmetadata: {{name: msgd}}\nspec:\n  \
         destination: {{service: {}}}\n  ports: [{{port: {}, protocol: http}}]\n",
        msgd.ip(),
        msgd.port()
    ))?;
    let reply = mesh.pay()?;
    let delivered = reply.field("/svcb/msgd/delivered");
    Ok(Outcome {
        expected: "200, the message delivered by msgd".to_owned(),
        measured: format!("{} {}", reply.status, reply.body.trim()),
        passed: reply.status == 200 && delivered == "hello",
    })
}

fn even(mesh: &mut Mesh<'_>) -> Result<Outcome> {
    let report = mesh.pay_often(100)?;
    let fair =
        report.pods.len() == 4 && report.pods.values().all(|count| (24..=26).contains(count));
    Ok(Outcome {
        expected: "100 requests, 25±1 on each of 4 pods".to_owned(),
        measured: shares(&report, &report.pods),
        passed: fair && report.ok == 100,
    })
}

fn half(mesh: &mut Mesh<'_>) -> Result<Outcome> {
    mesh.apply(&route_rule(&[("v0.1", 50), ("v0.2", 50)]))?;
    half_and_half(mesh)
}

fn half_and_half(mesh: &mut Mesh<'_>) -> Result<Outcome> {
    let report = mesh.pay_often(100)?;
    let near = |version| (49..=51).contains(&report.version(version));
    Ok(Outcome {
        expected: "100 requests, 50±1 on v0.1 and v0.2 each".to_owned(),
        measured: shares(&report, &report.versions),
        passed: report.ok == 100 && near("v0.1") && near("v0.2"),
    })
}

fn all_new(mesh: &mut Mesh<'_>) -> Result<Outcome> {
    mesh.apply(&route_rule(&[("v0.2", 100)]))?;
    let next = mesh.pay()?.field("/svcb/version");
    let report = mesh.pay_often(100)?;
    Ok(Outcome {
        expected: "the next request and 100 after it on v0.2".to_owned(),
        measured: format!("next: {next}; then {}", shares(&report, &report.versions)),
        passed: next == "v0.2" && report.version("v0.2") == 100,
    })
}

fn undone(mesh: &mut Mesh<'_>) -> Result<Outcome> {
    mesh.weir_ok(&["undo", "--reason", "v0.2 is not ready for all"])?;
    half_and_half(mesh)
}

fn rolling(mesh: &mut Mesh<'_>) -> Result<Outcome> {
    mesh.weir_ok(&["delete", "routerule", "svcb"])?;
    mesh.start_paying()?;
    let updated = update(mesh, [("svcb-3", "svcb-5"), ("svcb-4", "svcb-6")], "v0.3");
    let back =
        updated.and_then(|()| update(mesh, [("svcb-5", "svcb-7"), ("svcb-6", "svcb-8")], "v0.2"));
    let report = mesh.stop_paying()?;
    back?;
    let last = mesh.pay_often(100)?;
    let all = ["svcb-5", "svcb-6", "svcb-7", "svcb-8"]
        .iter()
        .all(|pod| report.pods.contains_key(*pod));
    Ok(Outcome {
        expected: "0 failed requests, every new pod used, in the end v0.1 and v0.2 alone"
            .to_owned(),
        measured: format!(
            "{} requests, {} failed, slowest {} ms, by pod {:?}; in the end {}{}",
            report.sent,
            report.failed(),
            report.slowest_ms,
            report.pods,
            shares(&last, &last.versions),
            failures(&report),
        ),
        passed: report.failed() == 0
            && report.sent > 100
            && all
            && last.version("v0.1") == 50
            && last.version("v0.2") == 50,
    })
}

/// One pod at a time: the new one is added and ready, then the old one is drained and removed.
fn update(mesh: &mut Mesh<'_>, pairs: [(&str, &str); 2], version: &str) -> Result<()> {
    for (old, new) in pairs {
        mesh.start_svcb(new, version)?;
        mesh.enroll(new, &["app=svcb", &format!("version={version}")])?;
        std::thread::sleep(Duration::from_millis(300));
        mesh.retire(old)?;
        std::thread::sleep(Duration::from_millis(300));
    }
    Ok(())
}

fn seen(mesh: &mut Mesh<'_>) -> Result<Outcome> {
    let metrics = mesh.weir.try_metrics()?;
    let count = |source: &str, destination: &str| {
        metrics.count(
            REQUESTS,
            &[("source", source), ("destination", destination)],
        )
    };
    let measured = [
        count("default/client", "default/svca"),
        count("default/svca", "default/svcb"),
        count("default/svcb", "default/msgd"),
    ];
    let wanted = [mesh.paid, mesh.paid, mesh.paid - mesh.denied];
    let graph = mesh.weir.cli(&["graph", "-o", "dot"])?.stdout;
    let edges = [("client", "svca"), ("svca", "svcb"), ("svcb", "msgd")];
    let drawn = edges
        .iter()
        .filter(|(from, to)| has_edge(&graph, from, to))
        .count();
    Ok(Outcome {
        expected: format!("requests {wanted:?} on client → svca → svcb → msgd; 3 edges drawn"),
        measured: format!("requests {measured:?}; {drawn} edges drawn"),
        passed: measured == wanted && drawn == 3,
    })
}

fn has_edge(dot: &str, from: &str, to: &str) -> bool {
    dot.lines()
        .filter_map(|line| line.split_once("->"))
        .any(|(left, right)| left.contains(from) && right.contains(to))
}

fn killed(mesh: &mut Mesh<'_>) -> Result<Outcome> {
    let generation = |mesh: &Mesh<'_>| -> Result<Value> {
        let status: Value =
            serde_json::from_str(&mesh.weir.cli(&["status", "-o", "json"])?.stdout)?;
        ensure!(
            status["generation"].is_u64(),
            "weir status names no generation: {status}"
        );
        Ok(status["generation"].clone())
    };
    let before = generation(mesh)?;
    mesh.weir.kill9()?;
    let forbidden = SocketAddr::new(mesh.msgd().ip(), 9998);
    let dead = match mesh.agent("svcb-1")?.dial(forbidden) {
        Ok(_) => "let through".to_owned(),
        Err(fault) => fault.to_string(),
    };
    let still = mesh
        .agent("svcb-1")?
        .dial(forbidden)
        .is_err_and(|fault| fault.is(Errno::EPERM));
    mesh.weir.launch()?;
    let after = generation(mesh)?;
    let reply = mesh.pay()?;
    Ok(Outcome {
        expected: format!(
            "dead: EPERM for {forbidden}; restarted: generation {before}, /pay gives 200"
        ),
        measured: format!(
            "dead: {dead}; restarted: generation {after}, /pay gives {}",
            reply.status
        ),
        passed: still && before == after && reply.status == 200,
    })
}

fn route_rule(shares: &[(&str, u32)]) -> String {
    let routes = shares.iter().map(|(version, weight)| {
        format!("  - {{labels: {{version: {version}}}, weight: {weight}}}\n")
    });
    let head = "apiVersion: config.istio.io/v1alpha2\nkind: RouteRule\nmetadata: {name: svcb}\n\
                spec:\n  destination: {name: svcb}\n  route:\n";
    std::iter::once(head.to_owned()).chain(routes).collect()
}

fn shares(report: &LoadReport, by: &BTreeMap<String, u64>) -> String {
    format!(
        "{} of {} answered with 2xx: {by:?}{}",
        report.ok,
        report.sent,
        failures(report)
    )
}

fn failures(report: &LoadReport) -> String {
    match report.failures.first() {
        Some(first) => format!("; first failure: {first}"),
        None => String::new(),
    }
}
