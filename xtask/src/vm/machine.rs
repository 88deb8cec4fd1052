//! One emulated machine: what is in its memory at the start, and its run under
//! QEMU, with an end.
//!
//! Owns the QEMU process. Must never use the machine's own virtualisation, which
//! may be nested and hang, and must never leave a QEMU behind.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::archive::Archive;
use super::console::Console;
use super::kernel::Unpacked;
use super::programs::{self, Programs};
use crate::{process, workspace};

/// The first process.
const INIT: &str = include_str!("init.sh");
/// How much longer than usual the tests wait.
const PATIENCE: u32 = 10;
/// How long one test program may take.
const TEST_LIMIT: Duration = Duration::from_mins(8);
/// How long the machine may take, from its start to its end.
const MACHINE_LIMIT: Duration = Duration::from_mins(30);
/// How much longer QEMU may take than the machine in it.
const SLACK: Duration = Duration::from_mins(1);
/// Only a panic speaks between the lines of the tests, and it ends the machine.
/// An emulated processor has nothing to hide and a clock that can be trusted:
/// guarding the one and asking a device instead of the other takes half the time.
const COMMAND_LINE: &str =
    "console=ttyS0 loglevel=1 panic=-1 mitigations=off tsc=reliable clocksource=tsc";
/// How often the console is looked at.
const POLL: Duration = Duration::from_millis(200);
/// Directories that the first process mounts something on, or that have to be there.
const DIRECTORIES: [&str; 7] = ["dev", "etc", "proc", "run", "sys", "tmp", "weir"];

/// What every machine holds, whatever its kernel.
pub(super) struct Content {
    /// Path inside and bytes.
    files: Vec<(String, Vec<u8>)>,
}

impl Content {
    /// Puts together the programs, the shell, and the libraries that they load.
    pub(super) fn gather(programs: &Programs, tests: &[&str]) -> Result<Self> {
        let command = |name: &str| {
            workspace::command_path(name)
                .ok_or_else(|| anyhow!("{name} is gone: `cargo xtask setup --vm` brings it"))
        };
        let mut sources = vec![
            ("bin/busybox".to_owned(), command("busybox")?),
            ("bin/ip".to_owned(), command("ip")?),
            ("bin/ss".to_owned(), command("ss")?),
            ("weir/weir".to_owned(), programs.weir.clone()),
            ("weir/testbed-tool".to_owned(), programs.tool.clone()),
        ];
        for test in tests {
            let program = programs.tests.get(*test);
            let program = program.ok_or_else(|| anyhow!("there is no test {test}"))?;
            sources.push((format!("weir/tests/{test}"), program.clone()));
        }
        let mut files = vec![
            ("init".to_owned(), INIT.into()),
            ("weir/plan".to_owned(), plan(tests).into_bytes()),
            ("etc/hosts".to_owned(), "127.0.0.1 localhost\n".into()),
            // Nobody answers there; weir wants to know a name server at its start.
            (
                "etc/resolv.conf".to_owned(),
                "nameserver 127.0.0.1\n".into(),
            ),
        ];
        let mut libraries = BTreeSet::new();
        for (path, source) in sources {
            libraries.extend(programs::libraries(&source)?);
            files.push((path, programs::stripped(&source)?));
        }
        for library in libraries {
            let bytes = fs::read(&library)
                .with_context(|| format!("{} cannot be read", library.display()))?;
            files.push((library.display().to_string(), bytes));
        }
        Ok(Self { files })
    }

    /// The archive that a machine with this kernel starts from.
    fn archive(&self, kernel: &Unpacked) -> Vec<u8> {
        let mut archive = Archive::default();
        for directory in DIRECTORIES {
            archive.directory(directory);
        }
        for (path, bytes) in &self.files {
            archive.file(path, bytes);
        }
        for (number, module) in kernel.modules.iter().enumerate() {
            // The shell lists them in the order of their names.
            let path = format!("weir/modules/{number:02}-{}.ko", module.name);
            archive.file(&path, &module.object);
        }
        archive.finish()
    }
}

/// What the first process is told, as a part of a shell script.
fn plan(tests: &[&str]) -> String {
    let mut plan = String::new();
    for (name, value) in [
        ("TESTS", tests.join(" ")),
        ("PATIENCE", PATIENCE.to_string()),
        ("LIMIT", TEST_LIMIT.as_secs().to_string()),
        ("WHOLE_LIMIT", MACHINE_LIMIT.as_secs().to_string()),
    ] {
        // Writing to a string cannot fail.
        let _: std::fmt::Result = writeln!(plan, "{name}='{value}'");
    }
    plan
}

/// Where the whole console of a machine is kept.
pub(super) fn log(version: &str) -> PathBuf {
    workspace::root().join(format!("target/vm/{version}.log"))
}

/// Boots `kernel` with `content`; ends with the machine, or when its time is
/// over. What it says is kept in `log`, and `tell` hears the lines for people.
pub(super) fn run(
    kernel: &Unpacked,
    content: &Content,
    log: &Path,
    tell: impl Fn(&str),
) -> Result<Console> {
    let scratch = tempfile::NamedTempFile::new().context("no room for a temporary file")?;
    fs::write(scratch.path(), content.archive(kernel))?;
    let output = File::create(log).with_context(|| format!("{} cannot be made", log.display()))?;
    let mut qemu = qemu(&kernel.image, scratch.path());
    qemu.stdin(Stdio::null())
        .stderr(output.try_clone()?)
        .stdout(output);
    let mut lines = BufReader::new(File::open(log)?);
    let mut console = Console::default();
    let ended = thread::scope(|scope| {
        let running = scope.spawn(|| process::run(&mut qemu, MACHINE_LIMIT + SLACK));
        let mut rest = String::new();
        loop {
            // Asked first: what was written before its end is read after it.
            let is_over = running.is_finished();
            follow(&mut lines, &mut rest, &mut console, &tell)?;
            if is_over {
                return running.join().map_err(|_| anyhow!("a thread panicked"))?;
            }
            thread::sleep(POLL);
        }
    });
    // What it said until then counts all the same.
    if let Err(error) = ended {
        tell(&format!("{error:#}"));
    }
    if console.release.is_none() {
        bail!(
            "the kernel did not start; {} has what it said",
            log.display()
        );
    }
    Ok(console)
}

/// Reads the lines that have come since the last time; `rest` keeps a part of one.
fn follow(
    lines: &mut BufReader<File>,
    rest: &mut String,
    console: &mut Console,
    tell: impl Fn(&str),
) -> Result<()> {
    let mut bytes = Vec::new();
    while lines.read_until(b'\n', &mut bytes)? > 0 {
        rest.push_str(&String::from_utf8_lossy(&bytes));
        bytes.clear();
        if rest.ends_with('\n') {
            if let Some(said) = console.read(rest) {
                tell(&said);
            }
            rest.clear();
        }
    }
    Ok(())
}

fn qemu(image: &Path, archive: &Path) -> Command {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-machine", "accel=tcg", "-cpu", "max", "-smp", "2"]);
    qemu.args(["-m", "2048", "-nic", "none", "-no-reboot"]);
    qemu.args(["-display", "none", "-monitor", "none", "-serial", "stdio"]);
    qemu.arg("-kernel").arg(image).arg("-initrd").arg(archive);
    qemu.args(["-append", COMMAND_LINE]);
    qemu
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_is_for_a_shell() {
        let plan = plan(&["capture", "tcp"]);
        assert!(
            plan.starts_with("TESTS='capture tcp'\nPATIENCE='10'\n"),
            "{plan}"
        );
        for line in plan.lines() {
            let (name, _) = line.split_once('=').unwrap();
            assert!(INIT.contains(&format!("${name}")), "{name}");
        }
    }

    #[test]
    fn half_a_line_waits_for_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console");
        fs::write(&path, "@weir kernel 6.1\n@weir do").unwrap();
        let mut lines = BufReader::new(File::open(&path).unwrap());
        let (mut rest, mut console) = (String::new(), Console::default());
        follow(&mut lines, &mut rest, &mut console, |_| {}).unwrap();
        assert!(console.release.is_some() && !console.is_done);
        fs::write(&path, "@weir kernel 6.1\n@weir done\n").unwrap();
        follow(&mut lines, &mut rest, &mut console, |_| {}).unwrap();
        assert!(console.is_done);
    }
}
