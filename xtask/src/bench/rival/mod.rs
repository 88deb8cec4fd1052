//! Other proxies as sidecars: each with a configuration that is as fast as it
//! goes, and an iptables redirect into it.
//!
//! Must never give one of them less than the others: as many threads, upstream
//! connections kept, no log, no statistics that can be switched off.

mod envoy;
mod haproxy;
mod nginx;

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use testbed::{Netns, Pod, Proc};

use super::peer::{BULK_PORT, ECHO_PORT, HTTP_PORT, OPAQUE_PORT};
use super::row::{SERVICE_HTTP_PORT, VIRTUAL_ADDRESS};
use crate::process;

/// A proxy's own ports are these much above the service's.
const OFFSET: u16 = 10_000;
const IPTABLES_LIMIT: Duration = Duration::from_secs(20);

/// Which proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rival {
    Haproxy,
    Nginx,
    Envoy,
}

/// What is proxied: HTTP on one port, bytes on the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Http,
    Bytes,
}

/// A port of the proxy, and where it leads.
#[derive(Clone, Copy, Debug)]
struct Port {
    mode: Mode,
    listen: u16,
    dial: u16,
}

/// Mode, port of the service, port of the server.
const PORTS: [(Mode, u16, u16); 4] = [
    (Mode::Http, SERVICE_HTTP_PORT, HTTP_PORT),
    (Mode::Bytes, OPAQUE_PORT, OPAQUE_PORT),
    (Mode::Bytes, ECHO_PORT, ECHO_PORT),
    (Mode::Bytes, BULK_PORT, BULK_PORT),
];

fn ports() -> [Port; PORTS.len()] {
    PORTS.map(|(mode, service, dial)| Port {
        mode,
        listen: service + OFFSET,
        dial,
    })
}

impl Rival {
    /// Starts it in `client`'s network namespace, in front of `server`, and
    /// redirects the service's ports into it.
    pub(super) fn start(
        self,
        client: &Pod,
        server: IpAddr,
        threads: usize,
        dir: &Path,
    ) -> Result<Proc> {
        let (name, config) = match self {
            Self::Haproxy => ("haproxy.cfg", haproxy::config(server, threads)),
            Self::Nginx => ("nginx.conf", nginx::config(server, threads, dir)),
            Self::Envoy => ("envoy.json", envoy::config(server)),
        };
        let file = dir.join(name);
        fs::write(&file, config)
            .with_context(|| format!("{} cannot be written", file.display()))?;
        let file = file
            .to_str()
            .context("the testbed's directory is plain text")?;
        let process = match self {
            Self::Haproxy => haproxy::spawn(client, file)?,
            Self::Nginx => nginx::spawn(client, file)?,
            Self::Envoy => envoy::spawn(client, file, threads)?,
        };
        for (_, service, _) in PORTS {
            redirect(client.netns(), Some(service), service + OFFSET)?;
        }
        Ok(process)
    }
}

/// Sends what the namespace dials at the virtual address (on `port`, if given)
/// to a port of its own.
pub(super) fn redirect(netns: &Netns, port: Option<u16>, to: u16) -> Result<()> {
    let mut command = Command::new("ip");
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
