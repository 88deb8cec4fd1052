//! The command line of the daemon under test, and its admin socket.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{CliOutput, Weir, admin};
use crate::binaries::weir_binary;
use crate::patience::patiently;
use crate::pod::Pod;

impl Weir<'_> {
    /// Runs a command of `weir` to its end.
    pub fn cli(&self, args: &[&str]) -> Result<CliOutput> {
        self.cli_with(args, "")
    }

    /// The same with a text on its standard input.
    pub fn cli_with(&self, args: &[&str], input: &str) -> Result<CliOutput> {
        let mut child = Command::new(weir_binary()?)
            .args(args)
            .env("WEIR_ADMIN_SOCKET", self.admin_socket())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("weir does not start")?;
        let mut stdin = child.stdin.take().context("its input is a pipe")?;
        // A command that refuses its arguments never reads.
        let _: std::io::Result<()> = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().context("cannot wait for weir")?;
        Ok(CliOutput {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// The lines of `weir tap` while `act` runs, and for a moment after.
    pub fn tap(&self, act: impl FnOnce()) -> Result<Vec<String>> {
        let mut tap = Command::new(weir_binary()?)
            .arg("tap")
            .env("WEIR_ADMIN_SOCKET", self.admin_socket())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("weir does not start")?;
        // It says nothing until something happens.
        std::thread::sleep(patiently(Duration::from_millis(500)));
        act();
        std::thread::sleep(patiently(Duration::from_millis(500)));
        tap.kill().context("cannot end weir tap")?;
        let output = tap.wait_with_output().context("cannot wait for weir tap")?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Runs a command that has to succeed, and returns what it said.
    ///
    /// # Panics
    /// If it fails, with all that it said.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.cli(args).expect("weir runs");
        assert!(output.status == 0, "weir {args:?}: {output:#?}");
        output.stdout
    }

    /// The same with `-o json`.
    ///
    /// # Panics
    /// If it fails, or says something else than JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        let said = self.ok(&[args, &["-o", "json"]].concat());
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("weir {args:?}: {error}: {said}"))
    }

    /// Applies documents that have to be taken.
    ///
    /// # Panics
    /// If they are refused.
    pub fn apply(&self, yaml: &str) {
        let output = self.try_apply(yaml);
        assert!(
            output.status == 0,
            "{yaml}\n{}{}",
            output.stderr,
            output.stdout
        );
    }

    /// Applies documents that may be refused.
    ///
    /// # Panics
    /// If the command cannot be run at all.
    pub fn try_apply(&self, yaml: &str) -> CliOutput {
        self.cli_with(&["apply", "-f", "-"], yaml)
            .expect("weir runs")
    }

    /// Asks the admin socket itself: the status and the body of its answer.
    pub fn admin(
        &self,
        method: &str,
        path: &str,
        media_type: &str,
        body: &str,
    ) -> Result<(u16, Value)> {
        admin::ask(&self.admin_socket(), method, path, media_type, body)
    }

    /// Enrolls a pod under its own name and its IPv4 address.
    ///
    /// # Panics
    /// If that is refused.
    pub fn enroll(&self, pod: &Pod, labels: &[&str]) {
        let output = self.try_enroll(pod, labels);
        assert!(
            output.status == 0,
            "weir enroll {}: {output:#?}",
            pod.name()
        );
    }

    /// Enrolls a pod with all the addresses that `weir enroll` finds in it, of
    /// both families.
    ///
    /// # Panics
    /// If that is refused.
    pub fn enroll_found(&self, pod: &Pod, labels: &[&str]) {
        let netns = pod.netns().path().display().to_string();
        let cgroup = pod.cgroup().display().to_string();
        let mut args = vec!["enroll", pod.name(), "--netns", &netns, "--cgroup", &cgroup];
        args.extend(labels.iter().flat_map(|label| ["-l", *label]));
        self.ok(&args);
    }

    /// Enrolls a pod, which may be refused.
    ///
    /// # Panics
    /// If the command cannot be run at all.
    pub fn try_enroll(&self, pod: &Pod, labels: &[&str]) -> CliOutput {
        let netns = pod.netns().path().display().to_string();
        let cgroup = pod.cgroup().display().to_string();
        let address = pod.ip().to_string();
        let mut args = vec!["enroll", pod.name(), "--netns", &netns, "--cgroup", &cgroup];
        args.extend(["--address", &address]);
        args.extend(labels.iter().flat_map(|label| ["-l", *label]));
        self.cli(&args).expect("weir runs")
    }
}
