//! Where connects are timed: a node with weir and its pods, or a pod without
//! weir whose firewall grows instead.
//!
//! Must never dial anything that is not on the node itself.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::NamedTempFile;
use testbed::{Netns, Node, Pod, Proc, Weir, WeirOptions};

use super::case::{Axis, Case};
use super::dial::Dialled;
use crate::bench::hook::Runs;
use crate::bench::peer::{ECHO_PORT, client_in, serve_in};
use crate::bench::row::VIRTUAL_ADDRESS;
use crate::process;

/// The hook that is measured.
const HOOK: &str = "weir_connect4";
/// Objects in one apply.
const CHUNK: u32 = 20_000;
/// A port of the outside server that no rule opens.
const CLOSED_PORT: u16 = 9_999;
/// A port of the service that is declared `tcp`.
const BALANCED_PORT: u16 = 5_432;
const PAUSE: Duration = Duration::from_secs(3);
const PAUSES_MAX: u32 = 10;
const DIAL_LIMIT: Duration = Duration::from_mins(1);
const RULES_LIMIT: Duration = Duration::from_mins(2);

/// A node on which connects are timed. Everything goes on drop.
pub(super) struct Site<'a> {
    // In the order in which they have to go.
    weir: Weir<'a>,
    _servers: [Proc; 2],
    server: Pod,
    node: &'a Node,
    client: Pod,
    bystander: Pod,
    outside: Pod,
    more: Vec<Netns>,
    size: u32,
}

impl<'a> Site<'a> {
    /// weir, an enrolled client, a pod that is not enrolled, a service, and a
    /// server outside the mesh.
    pub(super) fn new(node: &'a Node) -> Result<Self> {
        let [client, bystander, server] = node.pods(["client", "bystander", "server"])?;
        let outside = node.outside("outside")?;
        let servers = [serve_in(&server)?, serve_in(&outside)?];
        let weir = Weir::start_with(node, WeirOptions::default())?;
        weir.apply(&base(&server, &outside));
        weir.enroll(&client, &["app=client"]);
        Ok(Self {
            weir,
            _servers: servers,
            server,
            node,
            client,
            bystander,
            outside,
            more: Vec::new(),
            size: 1,
        })
    }

    /// Lets the configuration grow to `size` on `axis`; there is one of each from the start.
    pub(super) fn grow(&mut self, axis: Axis, size: u32) -> Result<()> {
        while self.size < size {
            let next = size.min(self.size + CHUNK);
            let mut documents = String::new();
            for index in self.size..next {
                documents += &match axis {
                    Axis::Rules => rule(index),
                    Axis::Services => service(index),
                    Axis::Workloads => self.workload(index)?,
                };
            }
            self.weir.apply(&documents);
            self.size = next;
        }
        Ok(())
    }

    /// Times connects of `case`: those of the callers, and of the hook.
    pub(super) fn dial(&self, case: Case) -> Result<(Dialled, Option<f64>)> {
        let (pod, to) = match case {
            Case::Unenrolled => (&self.bystander, self.outside.at(ECHO_PORT)),
            Case::Deny => (&self.client, self.outside.at(CLOSED_PORT)),
            Case::Balance => (&self.client, service_at(BALANCED_PORT)),
            Case::Proxy => (&self.client, service_at(80)),
            Case::Direct | Case::NoMesh | Case::Iptables | Case::Nftables => {
                (&self.client, self.outside.at(ECHO_PORT))
            }
        };
        let daemon = self.weir.id().context("weir has ended")?;
        let before = Runs::of(daemon, HOOK)?;
        let dialled = dial(pod, to)?;
        Ok((dialled, Runs::of(daemon, HOOK)?.mean_ns_since(before)))
    }

    /// Times connects that end at the server among the pods.
    pub(super) fn dial_pod(&self, case: Case) -> Result<Dialled> {
        match case {
            Case::Balance => dial(&self.client, service_at(BALANCED_PORT)),
            Case::Proxy => dial(&self.client, service_at(80)),
            Case::Unenrolled => dial(&self.bystander, self.server.at(ECHO_PORT)),
            _ => dial(&self.client, self.server.at(ECHO_PORT)),
        }
    }

    /// One more enrolled workload: a namespace whose wire leads nowhere, and a cgroup.
    fn workload(&mut self, index: u32) -> Result<String> {
        let name = format!("{}-more-{index}", self.node.name());
        let netns = Netns::new(&name)?;
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 200, 0, 0)) + index);
        netns.ip([
            "link add eth0 type veth peer name nowhere".to_owned(),
            "link set eth0 up".to_owned(),
            format!("addr add {address}/32 dev eth0"),
        ])?;
        let cgroup = self.node.pods_cgroup().join(&name);
        std::fs::create_dir(&cgroup).context("cannot make a cgroup")?;
        let document = format!(
            "---
apiVersion: weir.dev/v1
kind: Workload
metadata: {{ name: more-{index} }}
spec: {{ addresses: [{address}], netns: {}, cgroup: {} }}
",
            netns.path().display(),
            cgroup.display()
        );
        self.more.push(netns);
        Ok(document)
    }
}

/// A pod whose firewall has as many entries as weir has rules elsewhere.
pub(super) struct Walled {
    _server: Proc,
    client: Pod,
    outside: Pod,
}

impl Walled {
    /// A client and a server; no weir.
    pub(super) fn new(node: &Node) -> Result<Self> {
        let client = node.pod("client")?;
        let outside = node.outside("outside")?;
        Ok(Self {
            _server: serve_in(&outside)?,
            client,
            outside,
        })
    }

    /// Puts `size` entries into the firewall of `case`, in place of what was there.
    pub(super) fn wall(&self, case: Case, size: u32) -> Result<()> {
        let (program, text) = match case {
            Case::Iptables => ("iptables-restore", iptables(size)),
            _ => ("nft", nftables(size)),
        };
        let mut file = NamedTempFile::new().context("no temporary file")?;
        file.write_all(text.as_bytes())?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.client.netns().name(), program]);
        if case == Case::Nftables {
            command.arg("-f");
        }
        process::capture(command.arg(file.path()), RULES_LIMIT).map(drop)
    }

    /// Takes both firewalls away again.
    pub(super) fn clear(&self) -> Result<()> {
        for words in [&["iptables", "-F"][..], &["nft", "flush", "ruleset"]] {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", self.client.netns().name()]);
            process::capture(command.args(words), RULES_LIMIT)?;
        }
        Ok(())
    }

    /// Times connects past it.
    pub(super) fn dial(&self) -> Result<Dialled> {
        dial(&self.client, self.outside.at(ECHO_PORT))
    }
}

fn service_at(port: u16) -> SocketAddr {
    SocketAddr::new(VIRTUAL_ADDRESS.into(), port)
}

/// Dials from the pod. A machine that is still busy with what was before, as with the
/// sockets of a load, gets a few pauses to come to rest.
pub(super) fn dial(pod: &Pod, to: SocketAddr) -> Result<Dialled> {
    let mut pauses = 0;
    loop {
        let mut command = client_in(pod, pod.cgroup(), &["dial", &to.to_string()])?;
        let said = process::capture(&mut command, DIAL_LIMIT)?;
        let dialled: Dialled =
            serde_json::from_str(&said).context("the peer says something else")?;
        if dialled.is_answered() || pauses == PAUSES_MAX {
            return Ok(dialled);
        }
        pauses += 1;
        std::thread::sleep(PAUSE);
    }
}

/// The service that is dialled, and the rule that opens the outside server.
fn base(server: &Pod, outside: &Pod) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{ name: server }}
spec:
  clusterIPs: [{VIRTUAL_ADDRESS}]
  selector: {{ app: server }}
  ports:
    - {{ name: http, port: 80, targetPort: {ECHO_PORT} }}
    - {{ name: tcp, port: {BALANCED_PORT}, targetPort: {ECHO_PORT} }}
---
apiVersion: weir.dev/v1
kind: Workload
metadata: {{ name: server, labels: {{ app: server }} }}
spec: {{ addresses: [{}] }}
---
apiVersion: weir.dev/v1
kind: EgressRule
metadata: {{ name: outside }}
spec:
  destination: {{ service: {} }}
  ports: [{{ port: {ECHO_PORT}, protocol: tcp }}]
",
        server.ip(),
        outside.ip()
    )
}

/// The `index`th CIDR, of 16 addresses each.
fn cidr(index: u32) -> String {
    let first = u32::from(Ipv4Addr::new(100, 64, 0, 0)) + index * 16;
    format!("{}/28", Ipv4Addr::from(first))
}

fn rule(index: u32) -> String {
    format!(
        "---
apiVersion: weir.dev/v1
kind: EgressRule
metadata: {{ name: r{index} }}
spec: {{ destination: {{ service: {} }}, ports: [{{ port: 443, protocol: tcp }}] }}
",
        cidr(index)
    )
}

fn service(index: u32) -> String {
    let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 100, 0, 0)) + index);
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{ name: s{index} }}
spec: {{ clusterIPs: [{address}], selector: {{ app: s{index} }}, ports: [{{ name: http, port: 80 }}] }}
"
    )
}

fn iptables(size: u32) -> String {
    let mut text = String::from("*filter\n:OUTPUT ACCEPT [0:0]\n");
    for index in 0..size {
        writeln!(text, "-A OUTPUT -d {} -j DROP", cidr(index)).expect("a String takes everything");
    }
    text + "COMMIT\n"
}

fn nftables(size: u32) -> String {
    let elements: Vec<String> = (0..size).map(cidr).collect();
    format!(
        "flush ruleset
table ip wall {{
  set denied {{ type ipv4_addr; flags interval; elements = {{ {} }}; }}
  chain output {{ type filter hook output priority 0; ip daddr @denied drop; }}
}}
",
        elements.join(", ")
    )
}
