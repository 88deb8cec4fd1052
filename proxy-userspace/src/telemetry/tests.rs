use std::time::Duration;

use super::record::Event;
use super::*;

pub(super) fn request<'a>(source: &'a str, destination: &'a str, code: u16) -> RequestRecord<'a> {
    RequestRecord {
        source,
        workload: "default/pod-1",
        destination,
        destination_kind: DestinationKind::Service,
        version: "v0.1",
        endpoint: Some("192.0.2.1:8080".parse().unwrap()),
        protocol: "HTTP/1.1",
        method: "GET",
        host: "svcb",
        path: "/notify?msg=\"hi\"",
        code,
        reason: "",
        rule: "default/half",
        duration: Duration::from_micros(1_500),
        request_bytes: 10,
        response_bytes: 200,
        retries: 0,
        request_id: "id-1",
        trace_id: "",
        log: false,
    }
}

pub(super) fn connection<'a>(source: &'a str, destination: &'a str) -> ConnectionRecord<'a> {
    ConnectionRecord {
        source,
        workload: "default/pod-1",
        destination,
        destination_kind: DestinationKind::Service,
        version: "",
        endpoint: None,
        reason: "upstream-connect-failed",
        rule: "",
        duration: Duration::from_hours(2),
        sent_bytes: 7,
        received_bytes: 9,
        rtt: None,
        retransmits: None,
        log: false,
    }
}

pub(super) fn denial<'a>(source: &'a str, destination: &'a str) -> DenialRecord<'a> {
    DenialRecord {
        host: "",
        source,
        workload: "default/pod-1",
        destination,
        rule: "",
        reason: "egress-default-deny",
        stage: Stage::Request,
    }
}

pub(super) fn quiet() -> Arc<Telemetry> {
    Telemetry::start(&Options {
        series_max: 100,
        log: LogSink::Off,
    })
    .unwrap()
}

fn value(metrics: &str, series: &str) -> Option<f64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series))?;
    Some(line.trim().parse().unwrap())
}

#[test]
fn requests_are_counted_with_their_sizes_and_durations() {
    let telemetry = quiet();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let worker = telemetry.worker();
                for _ in 0..50 {
                    worker.request(&request("svca", "svcb", 200));
                }
            });
        }
    });
    telemetry.worker().request(&RequestRecord {
        reason: "no-endpoint",
        retries: 2,
        ..request("svca", "svcb", 503)
    });
    let text = telemetry.metrics(Format::OpenMetrics);
    let labels = |reason: &str, code: u16| {
        format!(
            "{{source=\"svca\",destination=\"svcb\",destination_kind=\"service\",\
             version=\"v0.1\",reason=\"{reason}\",code=\"{code}\""
        )
    };
    let (good, bad) = (labels("", 200), labels("no-endpoint", 503));
    for (series, expected) in [
        (format!("weir_requests_total{good}}}"), 100.0),
        (format!("weir_requests_total{bad}}}"), 1.0),
        (
            format!("weir_request_duration_seconds_count{good}}}"),
            100.0,
        ),
        (format!("weir_request_duration_seconds_sum{good}}}"), 0.15),
        (
            format!(
                "weir_request_duration_seconds_bucket{{le=\"0.001\",{}}}",
                &good[1..]
            ),
            0.0,
        ),
        (
            format!(
                "weir_request_duration_seconds_bucket{{le=\"0.0025\",{}}}",
                &good[1..]
            ),
            100.0,
        ),
        (
            format!(
                "weir_request_duration_seconds_bucket{{le=\"+Inf\",{}}}",
                &good[1..]
            ),
            100.0,
        ),
        (format!("weir_request_bytes_total{good}}}"), 1000.0),
        (format!("weir_response_bytes_total{good}}}"), 20_000.0),
        (format!("weir_request_retries_total{bad}}}"), 2.0),
    ] {
        assert_eq!(value(&text, &series), Some(expected), "{series}\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn connections_are_active_while_their_guard_lives() {
    let telemetry = quiet();
    let worker = telemetry.worker();
    let labels = "{source=\"a\",destination=\"b\",destination_kind=\"external\"}";
    let at = |name: &str| {
        let text = telemetry.metrics(Format::Prometheus);
        value(&text, &format!("weir_connections_{name}{labels}"))
    };
    let one = worker.connection_opened("a", "b", DestinationKind::External);
    let two = worker.connection_opened("a", "b", DestinationKind::External);
    assert_eq!(at("active"), Some(2.0));
    drop(one);
    assert_eq!((at("active"), at("closed_total")), (Some(1.0), Some(1.0)));
    drop(two);
    assert_eq!((at("active"), at("opened_total")), (Some(0.0), Some(2.0)));
}

#[test]
fn what_the_daemon_says_of_itself_is_told() {
    let telemetry = quiet();
    let worker = telemetry.worker();
    telemetry.set_generation(7);
    telemetry.set_inventory(9, 3, [Arc::from("a")]);
    telemetry.set_kernel_source(|| {
        let mut totals = [0; Counter::ALL.len()];
        totals[Counter::Denied as usize] = 4;
        totals
    });
    worker.flow_missed();
    worker.denied(&denial("a", "192.0.2.1:80"));
    worker.audited(&denial("a", "192.0.2.2:80"));
    worker.connection_closed(&connection("a", "b"));
    let text = telemetry.metrics(Format::Prometheus);
    let refused = |destination: &str| {
        format!(
            "{{source=\"a\",destination=\"{destination}\",rule=\"\",reason=\"egress-default-deny\"}}"
        )
    };
    let tcp = "{source=\"a\",destination=\"b\",destination_kind=\"service\",version=\"\",\
               reason=\"upstream-connect-failed\"";
    for (series, expected) in [
        ("weir_config_generation".to_owned(), 7.0),
        ("weir_config_revision".to_owned(), 9.0),
        ("weir_workloads".to_owned(), 3.0),
        (
            "weir_kernel_connects_total{outcome=\"denied\"}".to_owned(),
            4.0,
        ),
        (
            "weir_kernel_connects_total{outcome=\"proxied\"}".to_owned(),
            0.0,
        ),
        ("weir_flow_misses_total".to_owned(), 1.0),
        (
            "weir_rejected_connections_total{reason=\"no-flow\"}".to_owned(),
            1.0,
        ),
        (
            format!("weir_denials_total{}", refused("192.0.2.1:80")),
            1.0,
        ),
        (
            format!("weir_egress_audited_total{}", refused("192.0.2.2:80")),
            1.0,
        ),
        (format!("weir_tcp_connections_total{tcp}}}"), 1.0),
        (
            format!("weir_tcp_bytes_total{tcp},direction=\"sent\"}}"),
            7.0,
        ),
        (
            format!("weir_tcp_bytes_total{tcp},direction=\"received\"}}"),
            9.0,
        ),
        ("weir_log_lines_dropped_total".to_owned(), 0.0),
    ] {
        assert_eq!(value(&text, &series), Some(expected), "{series}\n{text}");
    }
    for name in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
    ] {
        assert!(value(&text, &format!("{name} ")).is_some(), "{name}");
    }
}

#[test]
fn how_long_connections_lasted_is_told() {
    let telemetry = quiet();
    telemetry.worker().connection_closed(&connection("a", "b"));
    let text = telemetry.metrics(Format::OpenMetrics);
    let ends = "source=\"a\",destination=\"b\",destination_kind=\"service\",version=\"\",\
                reason=\"upstream-connect-failed\"}";
    for (series, expected) in [
        ("count{", 1.0),
        ("sum{", 7200.0),
        ("bucket{le=\"3600.0\",", 0.0),
        ("bucket{le=\"21600.0\",", 1.0),
        ("bucket{le=\"+Inf\",", 1.0),
    ] {
        let series = format!("weir_tcp_connection_duration_seconds_{series}{ends}");
        assert_eq!(value(&text, &series), Some(expected), "{series}\n{text}");
    }
}

#[test]
fn every_sample_belongs_to_a_declared_family() {
    let telemetry = quiet();
    let worker = telemetry.worker();
    worker.request(&request("a", "b\"\\\n", 200));
    worker.rejected("limit");
    let text = telemetry.metrics(Format::Prometheus);
    let mut declared = std::collections::BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(
                declared.insert(name.to_owned(), kind.to_owned()).is_none(),
                "{name} twice"
            );
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let name = line.split(['{', ' ']).next().unwrap();
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .unwrap_or(name);
        assert!(declared.contains_key(family), "{line}");
    }
    assert!(text.contains(r#"destination="b\"\\\n""#));
}

#[test]
fn a_request_line_has_the_documented_fields() {
    let mut line = Vec::new();
    access_log::format(&mut line, Event::Request(&request("svca", "svcb", 200)));
    let mut line: serde_json::Value = serde_json::from_slice(&line).unwrap();
    line.as_object_mut().unwrap().remove("time").unwrap();
    let expected = serde_json::json!({
        "type": "request", "source": "svca", "workload": "default/pod-1",
        "destination": "svcb", "destination_kind": "service", "version": "v0.1",
        "endpoint": "192.0.2.1:8080", "protocol": "HTTP/1.1", "method": "GET", "host": "svcb",
        "path": "/notify?msg=\"hi\"", "code": 200, "rule": "default/half", "duration_ms": 1.5,
        "request_bytes": 10, "response_bytes": 200, "retries": 0, "request_id": "id-1",
    });
    assert_eq!(line, expected);
}

#[test]
fn a_connection_line_has_the_documented_fields() {
    let mut line = Vec::new();
    access_log::format(&mut line, Event::Connection(&connection("a", "b")));
    let mut line: serde_json::Value = serde_json::from_slice(&line).unwrap();
    line.as_object_mut().unwrap().remove("time").unwrap();
    let expected = serde_json::json!({
        "type": "connection", "source": "a", "workload": "default/pod-1", "destination": "b",
        "destination_kind": "service", "reason": "upstream-connect-failed",
        "duration_ms": 7_200_000, "sent_bytes": 7, "received_bytes": 9,
    });
    assert_eq!(line, expected);
}

#[test]
fn what_a_client_wrote_is_clipped_between_characters() {
    let path = format!("/{}", "\u{e4}".repeat(5000));
    let mut line = Vec::new();
    let record = RequestRecord {
        path: &path,
        ..request("a", "b", 200)
    };
    access_log::format(&mut line, Event::Request(&record));
    assert!(line.len() < 2000);
    let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(line["path"].as_str().unwrap().len(), 1023);
}

#[tokio::test]
async fn a_tap_hears_everything_while_it_lives() {
    let telemetry = quiet();
    let worker = telemetry.worker();
    worker.request(&request("a", "b", 200));
    let mut tap = telemetry.tap();
    worker.request(&request("a", "b", 201));
    worker.denied(&denial("a", "c"));
    for expected in ["\"code\":201", "\"type\":\"denial\""] {
        let Some(Tapped::Line(line)) = tap.recv().await else {
            panic!("no line");
        };
        assert!(line.contains(expected) && !line.contains('\n'), "{line}");
    }
    for _ in 0..2000 {
        worker.request(&request("a", "b", 202));
    }
    assert_eq!(tap.recv().await, Some(Tapped::Missed(2000 - 1024)));
    drop(tap);
    assert!(!telemetry.state.tap.is_heard());
}

#[test]
fn the_log_can_be_off_for_a_source_but_denials_are_always_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let telemetry = Telemetry::start(&Options {
        log: LogSink::File(path.clone()),
        ..Options::default()
    })
    .unwrap();
    let worker = telemetry.worker();
    worker.request(&request("quiet", "b", 200));
    worker.request(&RequestRecord {
        log: true,
        ..request("loud", "b", 200)
    });
    worker.denied(&denial("quiet", "c"));
    worker.audited(&denial("quiet", "d"));
    telemetry.stop_log();
    telemetry.stop_log();
    let text = std::fs::read_to_string(path).unwrap();
    let told: Vec<(String, String)> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| (line["type"].to_string(), line["source"].to_string()))
        .collect();
    let pair = |kind: &str, source: &str| (format!("\"{kind}\""), format!("\"{source}\""));
    assert_eq!(
        told,
        [
            pair("request", "loud"),
            pair("denial", "quiet"),
            pair("audit", "quiet")
        ]
    );
}

#[test]
fn a_gone_source_leaves_the_metrics_and_may_come_back() {
    let telemetry = quiet();
    let worker = telemetry.worker();
    worker.request(&request("gone", "b", 200));
    telemetry.set_inventory(1, 0, []);
    let later = Instant::now() + series::GONE_GRACE;
    telemetry.state.sweep(later);
    assert!(!telemetry.metrics(Format::Prometheus).contains("gone"));
    worker.request(&request("gone", "b", 200));
    assert!(telemetry.metrics(Format::Prometheus).contains("gone"));
}
