//! Network namespaces with a name, and what is configured in them with `ip`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::sweep::making;

/// Where `ip netns` keeps the files of named namespaces.
pub(crate) const NETNS_DIR: &str = "/run/netns";

/// A named network namespace; removed on drop.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes the namespace `name`, with its loopback device up.
    pub fn new(name: &str) -> Result<Self> {
        let netns = Self::with_lo_down(name)?;
        netns.ip(["link set lo up"])?;
        Ok(netns)
    }

    /// Makes the namespace `name` as the kernel gives it: loopback down.
    pub fn with_lo_down(name: &str) -> Result<Self> {
        let _making = making();
        run(Command::new("ip").args(["netns", "add", name]))?;
        Ok(Self {
            name: name.to_owned(),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A file of it, as `setns` wants one.
    pub fn path(&self) -> PathBuf {
        Path::new(NETNS_DIR).join(&self.name)
    }

    /// Runs `ip` commands (without the word `ip`) in the namespace, one process for all.
    pub fn ip<S: AsRef<str>>(&self, commands: impl IntoIterator<Item = S>) -> Result<()> {
        let mut script = String::new();
        for command in commands {
            script.push_str(command.as_ref());
            script.push('\n');
        }
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("`ip` does not start; the Debian package `iproute2` has it")?;
        let mut stdin = child.stdin.take().context("the pipe to `ip` is missing")?;
        stdin
            .write_all(script.as_bytes())
            .context("cannot write to `ip`")?;
        drop(stdin);
        let output = child.wait_with_output().context("cannot wait for `ip`")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!(
                "ip -n {} -batch failed: {}\n{script}",
                self.name,
                said.trim()
            );
        }
        Ok(())
    }

    /// Adds a routing rule for IPv6, which no batch of [`Self::ip`] can.
    pub fn rule6(&self, rule: &str) -> Result<()> {
        let words = rule.split(' ');
        run(Command::new("ip")
            .args(["-n", &self.name, "-6", "rule", "add"])
            .args(words))
    }

    /// Sets a value below `/proc/sys/net` of the namespace.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<()> {
        let script = format!("echo {value} > /proc/sys/net/{path}");
        run(Command::new("ip").args(["netns", "exec", &self.name, "sh", "-c", &script]))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _making = making();
        if let Err(error) = remove(&self.name) {
            eprintln!("testbed: {error:#}");
        }
    }
}

/// Removes the namespace `name` if it is there.
pub(crate) fn remove(name: &str) -> Result<()> {
    if !Path::new(NETNS_DIR).join(name).exists() {
        return Ok(());
    }
    run(Command::new("ip").args(["netns", "del", name]))
}

/// Runs a command to its end; what it said is in the error if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{} does not start", command.get_program().display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed ({}): {}", output.status, said.trim());
    }
    Ok(())
}
