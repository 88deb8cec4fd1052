//! Running other programs with a limit on their time.
//!
//! Owns the end of every process it starts: a program that outlives its limit
//! is ended together with its descendants, by id. Must never end a process
//! that it did not start, nor pick one by name.

use std::fs;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How often a running program is looked at.
const POLL: Duration = Duration::from_millis(10);
/// How long a program may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// Runs `command` with our own input and output; an error if it fails, does
/// not start, or takes longer than `limit`.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<()> {
    let name = name(command);
    let child = command
        .spawn()
        .with_context(|| format!("`{name}` does not start"))?;
    let status = wait(child, &name, limit)?;
    if !status.success() {
        bail!("`{name}` failed ({status})");
    }
    Ok(())
}

/// Runs `command` silently and returns what it wrote to stdout; the error
/// holds the last line of what it wrote to stderr.
pub(crate) fn capture(command: &mut Command, limit: Duration) -> Result<String> {
    let name = name(command);
    let mut stdout = tempfile::tempfile().context("no room for a temporary file")?;
    let mut stderr = tempfile::tempfile().context("no room for a temporary file")?;
    let child = command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?)
        .spawn()
        .with_context(|| format!("`{name}` does not start"))?;
    let status = wait(child, &name, limit)?;
    if !status.success() {
        let said = read_back(&mut stderr)?;
        let last = said.trim_end().lines().last().unwrap_or("it said nothing");
        bail!("`{name}` failed ({status}): {last}");
    }
    read_back(&mut stdout)
}

fn read_back(file: &mut fs::File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The program and its first two arguments: enough to know it by.
fn name(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let words = [program.file_name().unwrap_or(program.as_os_str())]
        .into_iter()
        .chain(command.get_args().take(2));
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

fn wait(mut child: Child, name: &str, limit: Duration) -> Result<ExitStatus> {
    let started = Instant::now();
    while started.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        thread::sleep(POLL);
    }
    end(&mut child)?;
    bail!("`{name}` was still running after {} s", limit.as_secs());
}

/// Ends `child` and its descendants: SIGTERM first, SIGKILL after a grace.
fn end(child: &mut Child) -> Result<()> {
    let family = family(i32::try_from(child.id()).context("a process id is positive")?);
    signal(&family, Signal::SIGTERM);
    let asked = Instant::now();
    while asked.elapsed() < GRACE && family.iter().any(Member::is_running) {
        // Also takes the child off the process table, where it counts as running.
        child.try_wait()?;
        thread::sleep(POLL);
    }
    signal(&family, Signal::SIGKILL);
    child.wait()?;
    Ok(())
}

fn signal(family: &[Member], signal: Signal) {
    for member in family.iter().filter(|member| member.is_running()) {
        // Gone in between is as good.
        let _ = kill(Pid::from_raw(member.id), signal);
    }
}

/// A process, told apart from a later one with the same id by its start time.
struct Member {
    id: i32,
    parent: i32,
    started: u64,
}

impl Member {
    fn read(id: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        Self::parse(id, &stat)
    }

    /// From a line of `/proc/<id>/stat`. The command's name stands in
    /// parentheses and may itself hold parentheses and spaces.
    fn parse(id: i32, stat: &str) -> Option<Self> {
        let (_, after_name) = stat.rsplit_once(") ")?;
        let mut fields = after_name.split(' ');
        let parent = fields.nth(1)?.parse().ok()?;
        let started = fields.nth(17)?.parse().ok()?;
        Some(Self {
            id,
            parent,
            started,
        })
    }

    fn is_running(&self) -> bool {
        Self::read(self.id).is_some_and(|now| now.started == self.started)
    }
}

/// The process and all below it, nearest first.
fn family(ancestor: i32) -> Vec<Member> {
    let mut others: Vec<Member> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Member::read)
        .collect();
    let mut family: Vec<Member> = others
        .extract_if(.., |other| other.id == ancestor)
        .collect();
    let mut next = 0;
    while let Some(parent) = family.get(next).map(|member| member.id) {
        family.extend(others.extract_if(.., |other| other.parent == parent));
        next += 1;
    }
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parent_and_start_are_found_behind_any_name() {
        let tail = format!("{}77 0", "0 ".repeat(17));
        for name in ["cat", "b (c", "a) b (c"] {
            let stat = format!("12 ({name}) S 7 {tail}");
            let member = Member::parse(12, &stat).unwrap();
            assert_eq!((member.parent, member.started), (7, 77), "{stat}");
        }
        assert!(Member::parse(12, "12 (cat").is_none());
    }

    #[test]
    fn a_failure_tells_the_last_line() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one >&2; echo two >&2; exit 3"]);
        let error = capture(&mut command, Duration::from_secs(10)).unwrap_err();
        let said = error.to_string();
        assert!(said.ends_with(": two"), "{said}");
    }

    #[test]
    fn a_program_that_hangs_is_ended_with_its_children() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 61 & sleep 62"]);
        let child = command.spawn().unwrap();
        let id = i32::try_from(child.id()).unwrap();
        let started = Instant::now();
        while family(id).len() < 3 && started.elapsed() < Duration::from_secs(10) {
            thread::sleep(POLL);
        }
        let all = family(id);
        assert_eq!(all.len(), 3);
        let error = wait(child, "sh", Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("still running"), "{error}");
        while all.iter().any(Member::is_running) {
            assert!(started.elapsed() < Duration::from_secs(30), "still there");
            thread::sleep(POLL);
        }
    }
}
