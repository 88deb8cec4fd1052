use super::super::record::{DenialRecord, Stage};
use super::*;

fn read(path: &std::path::Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn lines_of_all_queues_reach_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    std::fs::write(&path, "before\n").unwrap();
    let log = Log::start(&LogSink::File(path.clone())).unwrap();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (log, queue) = (&log, log.queue());
            scope.spawn(move || {
                for n in 0..500 {
                    log.push(&queue, format!("{worker} {n}").as_bytes());
                    if n % 100 == 0 {
                        thread::sleep(GATHER);
                    }
                }
            });
        }
    });
    drop(log);
    let text = read(&path);
    assert!(text.starts_with("before\n"), "the file is appended to");
    for worker in 0..4 {
        let prefix = format!("{worker} ");
        let numbers: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix(&prefix))
            .collect();
        let expected: Vec<_> = (0..500).map(|n| n.to_string()).collect();
        assert_eq!(numbers, expected, "whole and in order");
    }
}

#[test]
fn a_sink_that_stands_still_costs_lines_but_no_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    nix::unistd::mkfifo(
        &path,
        nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR,
    )
    .unwrap();
    // Opened for reading, so that the log can open it, but never read.
    let _reader = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let log = Log::start(&LogSink::File(path)).unwrap();
    let queue = log.queue();
    let line = [b'x'; 999];
    let start = std::time::Instant::now();
    let lines = 5 * QUEUE_MAX / 1000;
    for _ in 0..lines {
        log.push(&queue, &line);
    }
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(queue.lock().bytes.len() <= QUEUE_MAX);
    let (_, dropped) = log.totals();
    assert!(dropped > lines as u64 / 2, "{dropped}");
    drop(log);
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "the end does not wait for ever"
    );
}

#[test]
fn a_sink_that_refuses_is_counted() {
    let log = Log::start(&LogSink::File("/dev/full".into())).unwrap();
    log.push(&log.queue(), b"lost");
    let shared = log.shared.clone();
    drop(log);
    assert_eq!(shared.dropped.load(Ordering::Relaxed), 1);
    assert_eq!(shared.written.load(Ordering::Relaxed), 0);
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error() {
    assert!(Log::start(&LogSink::File("/proc/none/such".into())).is_err());
}

#[test]
fn a_line_is_stamped_and_tagged() {
    let record = DenialRecord {
        host: "",
        source: "default/svcb",
        workload: "default/svcb-1",
        destination: "192.0.2.1:9997",
        rule: "",
        reason: "egress-default-deny",
        stage: Stage::Connect,
    };
    let mut buffer = b"old".to_vec();
    format(&mut buffer, Event::Denial(&record));
    let line = String::from_utf8(buffer).unwrap();
    let expected = r#","type":"denial","source":"default/svcb","workload":"default/svcb-1","destination":"192.0.2.1:9997","reason":"egress-default-deny","stage":"connect"}"#;
    let (time, rest) = line.split_at(r#"{"time":"2026-01-02T03:04:05.678Z""#.len());
    assert_eq!(rest, expected);
    let time = time
        .strip_prefix(r#"{"time":""#)
        .unwrap()
        .trim_end_matches('"');
    time.parse::<Timestamp>().unwrap();
}
