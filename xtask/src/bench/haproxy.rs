//! HAProxy as a sidecar: its configuration, and the redirect into it.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use testbed::{Netns, Pod, Proc};

use super::peer::{BULK_PORT, ECHO_PORT, HTTP_PORT};
use super::row::{SERVICE_HTTP_PORT, VIRTUAL_ADDRESS};
use crate::{process, workspace};

/// HAProxy's own ports are these much above the service's.
const OFFSET: u16 = 10_000;
const IPTABLES_LIMIT: Duration = Duration::from_secs(20);

/// Starts HAProxy in `client`'s network namespace, in front of `server`, and
/// redirects the service's ports into it.
pub(super) fn start(client: &Pod, server: IpAddr, threads: usize, dir: &Path) -> Result<Proc> {
    let file: PathBuf = dir.join("haproxy.cfg");
    fs::write(&file, config(server, threads))
        .with_context(|| format!("{} cannot be written", file.display()))?;
    let program = workspace::command_path("haproxy").context("haproxy is missing")?;
    let file = file
        .to_str()
        .context("the testbed's directory is plain text")?;
    // In the foreground: one process, whose CPU time is the proxy's.
    let process = client.spawn(&program, &["-db", "-f", file])?;
    for port in [SERVICE_HTTP_PORT, ECHO_PORT, BULK_PORT] {
        redirect(client.netns(), Some(port), port + OFFSET)?;
    }
    Ok(process)
}

/// Sends what the namespace dials at the virtual address (on `port`, if given)
/// to a port of its own.
pub(super) fn redirect(netns: &Netns, port: Option<u16>, to: u16) -> Result<()> {
    let mut command = std::process::Command::new("ip");
    command.args([
        "netns",
        "exec",
        netns.name(),
        "iptables",
        "-t",
        "nat",
        "-A",
        "OUTPUT",
    ]);
    command.args(["-p", "tcp", "-d", &VIRTUAL_ADDRESS.to_string()]);
    if let Some(port) = port {
        command.args(["--dport", &port.to_string()]);
    }
    command.args(["-j", "REDIRECT", "--to-ports", &to.to_string()]);
    process::capture(&mut command, IPTABLES_LIMIT).map(drop)
}

/// As fast as HAProxy goes: connections reused, no log, no statistics.
fn config(server: IpAddr, threads: usize) -> String {
    let global = format!(
        "global
    nbthread {threads}
    maxconn 8192
defaults
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    http-reuse always
"
    );
    let ports = [
        ("http", SERVICE_HTTP_PORT, HTTP_PORT),
        ("tcp", ECHO_PORT, ECHO_PORT),
        ("tcp", BULK_PORT, BULK_PORT),
    ];
    let sections = ports.map(|(mode, listen, dial)| {
        let listen = listen + OFFSET;
        format!(
            "listen port-{listen}
    mode {mode}
    bind :{listen}
    server one {server}:{dial}
"
        )
    });
    global + &sections.concat()
}
