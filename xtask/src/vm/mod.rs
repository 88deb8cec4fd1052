//! `cargo xtask vm`: weir and its privileged tests on other kernels than the
//! machine's own, each on an emulated machine.
//!
//! Owns the choice of kernels and tests, and the verdict. Must never change the
//! machine that it runs on, nor pass because something was not run.

mod archive;
mod console;
mod kernel;
mod machine;
mod modules;
mod programs;
mod table;

use std::env::consts::ARCH;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::builder::PossibleValuesParser;

use crate::setup::{self, Need};
use console::Console;
use kernel::{KERNELS, Kernel};
use machine::Content;
use programs::Programs;
use table::Table;

/// The test programs in which a kernel has a say, those that take longest first.
/// What the others test is the same on every kernel: configuration, the command
/// line, HTTP, what bytes a proxy passes on; `--test` runs them all the same.
const ABOUT_KERNELS: [&str; 15] = [
    "self_test",
    "egress",
    "capture",
    "udp",
    "udp_egress",
    "restart",
    "balance",
    "isolation",
    "ipv6",
    "dual_stack",
    "sockets",
    "notes",
    "older",
    "tables",
    "attach",
];

/// What `cargo xtask vm` can be told.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The kernels to run; all, if none is named. Each is fetched once;
    /// `target/vm/kernels` holds them.
    #[arg(value_name = "KERNEL", value_parser = PossibleValuesParser::new(KERNELS.map(|kernel| kernel.version)))]
    kernels: Vec<String>,
    /// Run only this file of `tests/tests`, also one that is not about kernels;
    /// may be given more than once.
    #[arg(long = "test", value_name = "NAME")]
    tests: Vec<String>,
    /// Put the results into the table of docs/kernels.md; what was not run
    /// stays there as it is.
    #[arg(long)]
    write_docs: bool,
}

/// Runs `cargo xtask vm`.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if ARCH != "x86_64" {
        bail!("the emulated machines run this machine's programs, and are x86_64; this is {ARCH}");
    }
    setup::ensure(Need::Vm)?;
    let programs = programs::build()?;
    let tests = chosen(&programs, &args.tests)?;
    let content = Content::gather(&programs, &tests)?;
    let mut table = Table::default();
    let mut problems = Vec::new();
    for kernel in KERNELS {
        if args.kernels.is_empty() || args.kernels.iter().any(|name| name == kernel.version) {
            problems.extend(try_kernel(kernel, &content, &tests, &mut table)?);
        }
    }
    println!("\n{}", table.markdown(table::about));
    if args.write_docs {
        table::write(table)?;
    }
    if !problems.is_empty() {
        bail!(
            "weir does not hold everywhere:\n  {}",
            problems.join("\n  ")
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// The test programs to run: those about kernels, or the wanted ones.
fn chosen<'a>(programs: &Programs, wanted: &'a [String]) -> Result<Vec<&'a str>> {
    let chosen: Vec<&str> = match wanted {
        [] => ABOUT_KERNELS.to_vec(),
        wanted => wanted.iter().map(String::as_str).collect(),
    };
    if let Some(unknown) = chosen
        .iter()
        .find(|name| !programs.tests.contains_key(**name))
    {
        bail!("there is no tests/tests/{unknown}.rs");
    }
    Ok(chosen)
}

/// Boots one kernel, adds to the table what it showed, and says what went wrong.
fn try_kernel(
    kernel: Kernel,
    content: &Content,
    tests: &[&str],
    table: &mut Table,
) -> Result<Vec<String>> {
    let unpacked = kernel.bring()?;
    let version = kernel.version;
    let log = machine::log(version);
    let console = machine::run(&unpacked, content, &log, |said| {
        println!("vm: {version}: {said}");
    });
    // One that does not start keeps no other from being tried.
    let (console, failure) = match console {
        Ok(console) => (console, None),
        Err(error) => (Console::default(), Some(format!("{error:#}"))),
    };
    table.kernel(version, &unpacked.package);
    for test in tests {
        table.result(test, version, console.results.get(*test));
    }
    let mut problems: Vec<String> = failure
        .into_iter()
        .chain(problems(&console, tests))
        .map(|problem| format!("Linux {version}: {problem}"))
        .collect();
    if !problems.is_empty() {
        problems.push(format!("{} has all that it said", log.display()));
    }
    Ok(problems)
}

/// Everything that is not as it should be; nothing is expected but success.
fn problems(console: &Console, tests: &[&str]) -> Vec<String> {
    let mut problems = Vec::new();
    problems.extend(console.panic.clone());
    for test in tests {
        match console.results.get(*test) {
            Some(outcome) if outcome.is_good() => {}
            Some(outcome) => {
                let (cell, code) = (outcome.cell(), outcome.code);
                problems.push(format!("{test}: {cell} (exit status {code})"));
            }
            None => problems.push(format!("{test}: no result")),
        }
    }
    if !console.is_done {
        problems.push("the machine did not come to its end".to_owned());
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_result_is_a_problem() {
        let mut console = Console::default();
        for line in [
            "@weir kernel 6.1",
            "@weir begin tcp",
            "test result: ok. 8 passed; 0 failed",
            "@weir end tcp 0",
            "@weir done",
        ] {
            console.read(line);
        }
        assert!(problems(&console, &["tcp"]).is_empty());
        assert_eq!(problems(&console, &["http", "tcp"]), ["http: no result"]);
        console.is_done = false;
        assert_eq!(problems(&console, &["tcp"]).len(), 1);
    }

    #[test]
    fn tests_are_chosen_by_name_or_by_what_they_are_about() {
        let mut programs = Programs {
            weir: "weir".into(),
            tool: "tool".into(),
            tests: ABOUT_KERNELS
                .iter()
                .chain(&["admin"])
                .map(|name| ((*name).to_owned(), name.into()))
                .collect(),
        };
        assert_eq!(chosen(&programs, &[]).unwrap(), ABOUT_KERNELS);
        let wanted = ["admin".to_owned()];
        assert_eq!(chosen(&programs, &wanted).unwrap(), ["admin"]);
        assert!(chosen(&programs, &["none".to_owned()]).is_err());
        programs.tests.remove("udp");
        assert!(chosen(&programs, &[]).is_err(), "one is gone");
    }
}
