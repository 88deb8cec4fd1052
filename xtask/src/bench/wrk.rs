//! wrk: how it is called, and its report read back.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::NamedTempFile;

use super::result::Measured;

/// A script that puts an empty line before each request. HTTP servers skip it
/// (RFC 9112, section 2.2), and to whoever tells HTTP by the first bytes it is none.
/// wrk makes its request once, so that this costs nothing in a run.
const OPAQUE: &str = "wrk.method = \"\\r\\nGET\"\n";

/// The file with that script; it goes on drop.
pub(super) fn opaque() -> Result<NamedTempFile> {
    let mut file = NamedTempFile::new().context("no temporary file")?;
    file.write_all(OPAQUE.as_bytes())?;
    Ok(file)
}

/// wrk's arguments for keep-alive connections to `url`.
pub(super) fn args(
    url: &str,
    connections: u32,
    time: Duration,
    script: Option<&Path>,
) -> Vec<String> {
    let words = ["--threads", "1", "--latency", "--timeout", "10s"];
    let mut args: Vec<String> = words.map(str::to_owned).into();
    args.extend(["--connections".into(), connections.to_string()]);
    args.extend(["--duration".into(), format!("{}s", time.as_secs())]);
    let script = script.map(|file| ["--script".into(), file.display().to_string()]);
    args.extend(script.into_iter().flatten());
    args.push(url.into());
    args
}

/// Reads the report. A request that failed makes the whole of it worthless.
pub(super) fn parse(report: &str) -> Result<Measured> {
    for trouble in ["Non-2xx or 3xx responses", "Socket errors"] {
        if let Some(line) = report.lines().find(|line| line.contains(trouble)) {
            bail!("requests failed: {}", line.trim());
        }
    }
    // `  187326 requests in 3.00s, 21.44MB read`
    let (count, time) = report
        .lines()
        .find_map(|line| line.trim().split_once(" requests in "))
        .context("wrk's report lacks the number of requests")?;
    let time = time.split(',').next().unwrap_or_default();
    Ok(Measured {
        operations: count.parse().context("wrk's number of requests")?,
        seconds: micros(time).context("wrk's duration")? / 1e6,
        p50_us: percentile(report, "50%")?,
        p99_us: percentile(report, "99%")?,
    })
}

fn percentile(report: &str, name: &str) -> Result<f64> {
    report
        .lines()
        .find_map(|line| micros(line.trim().strip_prefix(name)?.trim()))
        .with_context(|| format!("wrk's report lacks the {name} latency"))
}

/// Microseconds of a time such as `352.00us`, `1.06ms`, `3.00s` or `1.50m`.
fn micros(time: &str) -> Option<f64> {
    let unit = time.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = time.split_at(unit);
    let factor = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "\
Running 3s test @ http://10.96.0.20/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   509.71us  126.37us   5.50ms   88.32%
    Req/Sec    62.78k     2.41k   65.50k    74.19%
  Latency Distribution
     50%  503.00us
     75%  534.00us
     90%  578.00us
     99%    1.06ms
  187326 requests in 3.10s, 21.44MB read
Requests/sec:  60430.51
Transfer/sec:      6.92MB
";

    #[test]
    fn a_report_is_read() {
        let measured = parse(REPORT).unwrap();
        assert!((measured.operations - 187_326.0).abs() < 0.1);
        assert!((measured.seconds - 3.1).abs() < 1e-9);
        assert!((measured.p50_us - 503.0).abs() < 1e-9);
        assert!((measured.p99_us - 1060.0).abs() < 1e-9);
    }

    #[test]
    fn failed_requests_are_not_measured() {
        let failed = format!("{REPORT}  Non-2xx or 3xx responses: 7\n");
        assert!(parse(&failed).is_err());
        let errors = "Socket errors: connect 0, read 3, write 0, timeout 0";
        assert!(parse(&format!("{REPORT}  {errors}\n")).is_err());
        assert!(parse("unable to connect").is_err());
    }
}
