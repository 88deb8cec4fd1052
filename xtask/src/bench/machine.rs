//! What it was measured on, and which versions were measured.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::process;
use crate::setup::ENVOY;

const ASK_LIMIT: Duration = Duration::from_secs(10);
const UNKNOWN: &str = "unknown";

/// How busy the machine is, as averages over 1, 5 and 15 minutes.
pub(super) fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Names and values, in the order in which they are shown. `load` is that
/// before the first measurement: a busy machine measures nothing.
pub(super) fn describe(weir: &Path, load: String) -> Vec<(&'static str, String)> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let count = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    vec![
        (
            "CPU",
            format!("{count} × {}", field(&cpuinfo, "model name")),
        ),
        ("memory", field(&meminfo, "MemTotal")),
        ("kernel", release.trim().to_owned()),
        ("load before", load),
        ("weir", version(Command::new(weir).arg("--version"))),
        ("haproxy", version(Command::new("haproxy").arg("-v"))),
        (
            "nginx",
            version(Command::new("sh").args(["-c", "nginx -v 2>&1"])),
        ),
        ("envoy", ENVOY.version.to_owned()),
        (
            "iptables",
            version(Command::new("iptables").arg("--version")),
        ),
        ("nftables", version(Command::new("nft").arg("--version"))),
        (
            "wrk",
            version(Command::new("sh").args(["-c", "wrk -v | head -n 1"])),
        ),
        ("rustc", version(Command::new("rustc").arg("--version"))),
    ]
}

/// The value behind `name` and a colon.
fn field(text: &str, name: &str) -> String {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map_or(UNKNOWN.to_owned(), |(_, value)| value.trim().to_owned())
}

fn version(command: &mut Command) -> String {
    let said = process::capture(command, ASK_LIMIT).unwrap_or_default();
    said.lines().next().unwrap_or(UNKNOWN).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let text = "processor\t: 0\nmodel name\t: A CPU: fast\n";
        assert_eq!(field(text, "model name"), "A CPU: fast");
        assert_eq!(field(text, "stepping"), UNKNOWN);
    }
}
