//! The rows: a node of its own each, with a client pod, a server pod, and
//! whatever stands between the two.
//!
//! All rows stand at the same time and idle while another one is measured.
//! Must never let one row see another.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use testbed::{Node, Pod, Proc, Weir, WeirOptions};

use super::acceleration::{self, Verdict};
use super::peer::{BULK_PORT, ECHO_PORT, HTTP_PORT, OPAQUE_PORT, client_in, program_in, serve_in};
use super::rival::{Rival, redirect};
use crate::process;
use crate::release::Variant;

/// The service's virtual address: only a proxy knows it.
pub(super) const VIRTUAL_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 20);
/// The service's HTTP port; the others are the same on both sides.
pub(super) const SERVICE_HTTP_PORT: u16 = 80;
/// Where weir listens in the pod for what iptables redirects.
const REDIRECT_PORT: u16 = 15_001;
const READY_LIMIT: Duration = Duration::from_secs(15);
const TRY_LIMIT: Duration = Duration::from_secs(12);

/// What stands between client and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Kind {
    /// Nothing.
    NoMesh,
    /// An iptables REDIRECT into HAProxy.
    Haproxy,
    /// An iptables REDIRECT into nginx.
    Nginx,
    /// An iptables REDIRECT into Envoy.
    Envoy,
    /// An iptables REDIRECT into weir's proxy.
    Redirect,
    /// weir.
    Weir,
    /// weir with its access log on.
    WeirLogged,
    /// weir, with acceleration forced.
    Accelerated,
    /// weir, which balances in `connect()`: no proxy.
    Balance,
    /// The same, with acceleration forced.
    BalanceAccelerated,
}

impl Kind {
    const fn rival(self) -> Option<Rival> {
        match self {
            Self::Haproxy => Some(Rival::Haproxy),
            Self::Nginx => Some(Rival::Nginx),
            Self::Envoy => Some(Rival::Envoy),
            _ => None,
        }
    }

    /// Its name in a table.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::NoMesh => "no mesh",
            Self::Haproxy => "iptables → HAProxy",
            Self::Nginx => "iptables → nginx",
            Self::Envoy => "iptables → Envoy",
            Self::Redirect => "iptables → weir",
            Self::Weir => "weir",
            Self::WeirLogged => "weir, access log on",
            Self::Accelerated => "weir, accelerated",
            Self::Balance => "weir, balanced",
            Self::BalanceAccelerated => "weir, balanced, accelerated",
        }
    }

    /// Its name in JSON.
    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::NoMesh => "noMesh",
            Self::Haproxy => "iptablesHaproxy",
            Self::Nginx => "iptablesNginx",
            Self::Envoy => "iptablesEnvoy",
            Self::Redirect => "iptablesWeir",
            Self::Weir => "weir",
            Self::WeirLogged => "weirAccessLog",
            Self::Accelerated => "weirAccelerated",
            Self::Balance => "weirBalance",
            Self::BalanceAccelerated => "weirBalanceAccelerated",
        }
    }

    /// Whether there is a proxy.
    pub(super) const fn has_proxy(self) -> bool {
        !matches!(
            self,
            Self::NoMesh | Self::Balance | Self::BalanceAccelerated
        )
    }

    const fn is_balanced(self) -> bool {
        matches!(self, Self::Balance | Self::BalanceAccelerated)
    }

    /// Whether it is measured under `--accelerate force`.
    pub(super) const fn is_accelerated(self) -> bool {
        matches!(self, Self::Accelerated | Self::BalanceAccelerated)
    }
}

/// What every row is made with.
pub(super) struct Plan {
    /// Threads of each proxy.
    pub(super) threads: usize,
    /// weir, built with the feature that accepts redirected connections.
    pub(super) redirect_binary: PathBuf,
    /// What the self-test of acceleration found, if it was run.
    pub(super) verdict: Option<Verdict>,
}

impl Plan {
    /// A thread for each CPU.
    pub(super) fn new(verdict: Option<Verdict>) -> Result<Self> {
        Ok(Self {
            threads: std::thread::available_parallelism()?.get(),
            redirect_binary: Variant::Redirect.program(),
            verdict,
        })
    }
}

/// A row, ready for any load. Everything goes on drop.
pub(super) struct Row<'a> {
    // In the order in which they have to go.
    between: Between<'a>,
    _server: Proc,
    client: Pod,
    server: Pod,
    cgroup: PathBuf,
}

enum Between<'a> {
    Nothing,
    Rival(Proc),
    Weir(Box<Weir<'a>>),
}

impl<'a> Row<'a> {
    /// Sets a row up on a node of its own, and waits until it carries traffic.
    pub(super) fn new(node: &'a Node, kind: Kind, plan: &Plan) -> Result<Self> {
        let client = node.pod("client")?;
        let server = node.pod("server")?;
        for pod in [&client, &server] {
            // A connection for each request takes many ports, again and again.
            pod.netns()
                .sysctl("ipv4/ip_local_port_range", "10240 65000")?;
            pod.netns().sysctl("ipv4/tcp_tw_reuse", "1")?;
        }
        let process = serve_in(&server)?;
        let mut cgroup = client.cgroup().to_path_buf();
        let between = match kind {
            Kind::NoMesh => Between::Nothing,
            Kind::Haproxy | Kind::Nginx | Kind::Envoy => {
                let rival = kind.rival().context("a row with a rival has one")?;
                Between::Rival(rival.start(&client, server.ip(), plan.threads, node.dir())?)
            }
            Kind::Weir | Kind::WeirLogged | Kind::Balance => {
                let weir = start_weir(node, kind, plan, WeirOptions::default())?;
                configure(&weir, &client, &server, kind);
                Between::Weir(Box::new(weir))
            }
            Kind::Accelerated | Kind::BalanceAccelerated => {
                let known = plan.verdict.as_ref();
                let options = acceleration::forced(node, known)?;
                let weir = start_weir(node, kind, plan, options)?;
                acceleration::await_verdict(&weir)?;
                configure(&weir, &client, &server, kind);
                Between::Weir(Box::new(weir))
            }
            Kind::Redirect => {
                // Not below the pods' cgroup: the redirect alone shall capture.
                cgroup = node.root_cgroup().join("redirected");
                fs::create_dir(&cgroup).context("cannot make a cgroup")?;
                let options = WeirOptions {
                    args: vec!["--redirect-listener".into(), REDIRECT_PORT.to_string()],
                    binary: Some(plan.redirect_binary.clone()),
                    ..WeirOptions::default()
                };
                let weir = start_weir(node, kind, plan, options)?;
                configure(&weir, &client, &server, kind);
                redirect(client.netns(), None, REDIRECT_PORT)?;
                Between::Weir(Box::new(weir))
            }
        };
        let row = Self {
            between,
            _server: process,
            client,
            server,
            cgroup,
        };
        row.await_traffic()
            .with_context(|| format!("the row `{}` carries no traffic", kind.title()))?;
        if let Between::Weir(weir) = &row.between
            && kind.is_accelerated()
        {
            let legs = if kind.is_balanced() { 1 } else { 2 };
            acceleration::ensure_in_force(weir, legs, || row.try_traffic())
                .with_context(|| format!("the row `{}`", kind.title()))?;
        }
        Ok(row)
    }

    /// A program as the client pod runs it.
    pub(super) fn command(&self, program: &Path) -> Result<Command> {
        program_in(&self.client, &self.cgroup, program)
    }

    /// One of our own clients, in the client pod.
    pub(super) fn peer(&self, args: &[&str]) -> Result<Command> {
        client_in(&self.client, &self.cgroup, args)
    }

    /// What the client dials to reach one of the server's ports.
    pub(super) fn destination(&self, port: u16) -> SocketAddr {
        match self.between {
            Between::Nothing => self.server.at(port),
            _ => SocketAddr::new(IpAddr::V4(VIRTUAL_ADDRESS), service_port(port)),
        }
    }

    /// The proxy's process, if there is one.
    pub(super) fn proxy(&self) -> Option<u32> {
        match &self.between {
            Between::Nothing => None,
            Between::Rival(process) => Some(process.id()),
            Between::Weir(weir) => weir.id(),
        }
    }

    /// The end of what the proxy said, for messages.
    pub(super) fn log(&self) -> String {
        let log = match &self.between {
            Between::Nothing => String::new(),
            Between::Rival(process) => process.log(),
            Between::Weir(weir) => weir.log(),
        };
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn await_traffic(&self) -> Result<()> {
        testbed::try_eventually("traffic", READY_LIMIT, || {
            self.try_traffic()
                .map_err(|error| format!("{error:#}\n{}", self.log()))
        })
    }

    /// One connection, with one request and its reply.
    fn try_traffic(&self) -> Result<()> {
        let to = self.destination(ECHO_PORT).to_string();
        let mut probe = self.peer(&["exchange", &to, "0"])?;
        process::capture(&mut probe, TRY_LIMIT).map(drop)
    }
}

fn service_port(port: u16) -> u16 {
    if port == HTTP_PORT {
        SERVICE_HTTP_PORT
    } else {
        port
    }
}

fn start_weir<'a>(
    node: &'a Node,
    kind: Kind,
    plan: &Plan,
    mut options: WeirOptions,
) -> Result<Weir<'a>> {
    options
        .args
        .extend(["--workers".into(), plan.threads.to_string()]);
    Weir::start_with(node, options).with_context(|| format!("the row `{}`", kind.title()))
}

/// The client enrolled, the server behind a virtual address, and known to be on
/// this node; enrolled too where both ends of a connection have to be. Byte ports
/// that declare no protocol go through the proxy; declared `tcp`, none of the ports
/// does.
fn configure(weir: &Weir<'_>, client: &Pod, server: &Pod, kind: Kind) {
    let log = kind == Kind::WeirLogged;
    let prefix = if kind.is_balanced() { "tcp-" } else { "" };
    let enrolled = kind.is_accelerated();
    let address = server.ip();
    let netns = server.netns().path();
    let (netns, cgroup) = (netns.display(), server.cgroup().display());
    weir.apply(&format!(
        "apiVersion: weir.dev/v1
kind: MeshConfig
metadata: {{ name: default }}
spec: {{ accessLog: {log} }}
---
apiVersion: v1
kind: Service
metadata: {{ name: server }}
spec:
  clusterIPs: [{VIRTUAL_ADDRESS}]
  selector: {{ app: server }}
  ports:
    - {{ name: {prefix}http, port: {SERVICE_HTTP_PORT}, targetPort: {HTTP_PORT} }}
    - {{ name: {prefix}opaque, port: {OPAQUE_PORT} }}
    - {{ name: {prefix}echo, port: {ECHO_PORT} }}
    - {{ name: {prefix}bulk, port: {BULK_PORT} }}
---
apiVersion: weir.dev/v1
kind: Workload
metadata: {{ name: server, labels: {{ app: server }} }}
spec: {{ addresses: [{address}], netns: {netns}, cgroup: {cgroup}, enrolled: {enrolled} }}
"
    ));
    weir.enroll(client, &["app=client"]);
}
