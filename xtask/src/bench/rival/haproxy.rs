//! HAProxy: one process with threads, in the foreground.

use std::net::IpAddr;

use anyhow::{Context, Result};
use testbed::{Pod, Proc};

use super::{Mode, Port, ports};
use crate::workspace;

/// Starts it.
pub(super) fn spawn(client: &Pod, file: &str) -> Result<Proc> {
    let program = workspace::command_path("haproxy").context("haproxy is missing")?;
    client.spawn(&program, &["-db", "-f", file])
}

/// Connections reused, no log, no statistics.
pub(super) fn config(server: IpAddr, threads: usize) -> String {
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
    let sections = ports().map(|Port { mode, listen, dial }| {
        let mode = match mode {
            Mode::Http => "http",
            Mode::Bytes => "tcp",
        };
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
