//! What processes and the machine used: CPU time and memory, from `/proc`.
//!
//! Owns the units. Must never be told a process by its name.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::unistd::{SysconfVar, sysconf};

/// CPU time of a process and of the whole machine, so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cpu {
    /// The proxy's and its children's, user and system; zero without a proxy.
    pub(super) proxy: Duration,
    /// Everything that was not idle.
    pub(super) machine: Duration,
}

impl Cpu {
    /// Reads it now.
    pub(super) fn now(proxy: Option<u32>) -> Result<Self> {
        let proxy = match proxy {
            None => Duration::ZERO,
            Some(id) => {
                let mut count = 0;
                for id in family(id)? {
                    let stat = read(&format!("/proc/{id}/stat"))?;
                    count += of_process(&stat).context("a process's stat has another shape")?;
                }
                ticks(count)?
            }
        };
        let stat = read("/proc/stat")?;
        let machine = ticks(of_machine(&stat).context("the machine's stat has another shape")?)?;
        Ok(Self { proxy, machine })
    }

    /// What was used since `earlier`.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            proxy: self.proxy.saturating_sub(earlier.proxy),
            machine: self.machine.saturating_sub(earlier.machine),
        }
    }
}

/// The resident memory of a process and its children in bytes; what they share
/// counts for each of them.
pub(super) fn resident(id: u32) -> Result<u64> {
    let mut bytes = 0;
    for id in family(id)? {
        let status = read(&format!("/proc/{id}/status"))?;
        bytes += rss(&status).context("a process's status lacks VmRSS")?;
    }
    Ok(bytes)
}

/// A process and its children, the workers of some proxies.
fn family(id: u32) -> Result<Vec<u32>> {
    let mut family = vec![id];
    let children = read(&format!("/proc/{id}/task/{id}/children"))?;
    for child in children.split_whitespace() {
        family.push(child.parse().context("a child's number")?);
    }
    Ok(family)
}

/// How long so many clock ticks are.
fn ticks(count: u64) -> Result<Duration> {
    match sysconf(SysconfVar::CLK_TCK)? {
        Some(hertz) if hertz > 0 => {
            let nanos = 1_000_000_000 / u64::try_from(hertz)?;
            Ok(Duration::from_nanos(count * nanos))
        }
        _ => bail!("the kernel does not tell its clock tick"),
    }
}

/// `utime` and `stime`, which come 12th and 13th after the name.
fn of_process(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// user, nice, system, then idle and iowait, which do not count, then irq,
/// softirq and steal; steal does not count either: it is others' time.
fn of_machine(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line
        .split_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    let busy = [0, 1, 2, 5, 6].map(|index| fields.get(index).copied());
    busy.into_iter().sum()
}

fn rss(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("{path} cannot be read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_understood() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 31 11 0 0 20 0 3 0 900 1 2 3";
        assert_eq!(of_process(stat), Some(42));
        let stat = "cpu  10 1 20 9999 77 2 3 55 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(of_machine(stat), Some(36));
        assert_eq!(rss("Name:\tx\nVmRSS:\t   1024 kB\n"), Some(1 << 20));
    }

    #[test]
    fn this_process_can_be_read() {
        let own = std::process::id();
        let before = Cpu::now(Some(own)).unwrap();
        let used = Cpu::now(Some(own)).unwrap().since(before);
        assert!(used.proxy <= Duration::from_mins(1));
        assert!(before.machine > Duration::ZERO);
        assert!(resident(own).unwrap() > 1 << 16);
    }
}
