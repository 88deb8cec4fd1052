//! Where connects are timed: a node with weir and its pods, or a pod without
//! weir whose firewall grows instead.
//!
//! Must never dial anything that is not on the node itself.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::NamedTempFile;
use testbed::{Netns, Node, Pod, Proc, Weir, WeirOptions};

use super::case::{Axis, Case};
use super::dial::Dialled;
use super::documents::{
    self, BALANCED_PORT, CLOSED_PORT, ENDPOINTS, external, external6, service_at, service_at6,
};
use crate::bench::hook::Runs;
use crate::bench::peer::{ECHO_PORT, client_in, serve_in};
use crate::process;

/// Objects in one apply, about.
const CHUNK: u32 = 20_000;
/// Prefixes of both families, twice: what is about to be replaced counts too.
const EGRESS_LIMITS: [&str; 2] = ["egress=500000", "egressPorts=500000"];
/// The last byte of the first further address of the server; pods count from below.
const SIBLINGS: u32 = 230;
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
    _outside: Pod,
    more: Vec<Netns>,
    size: u32,
}

impl<'a> Site<'a> {
    /// weir, an enrolled client, a pod that is not enrolled, a service, and a
    /// server outside the mesh, amid the addresses that rules will open.
    pub(super) fn new(node: &'a Node) -> Result<Self> {
        let [client, bystander, server] = node.pods(["client", "bystander", "server"])?;
        let outside = outside(node)?;
        let servers = [serve_in(&server)?, serve_in(&outside)?];
        let options = WeirOptions {
            args: EGRESS_LIMITS
                .into_iter()
                .flat_map(|limit| ["--map-limit", limit])
                .map(str::to_owned)
                .collect(),
            ..WeirOptions::default()
        };
        let weir = Weir::start_with(node, options)?;
        weir.apply(&documents::base(&server));
        weir.enroll_found(&client, &["app=client"]);
        Ok(Self {
            weir,
            _servers: servers,
            server,
            node,
            client,
            bystander,
            _outside: outside,
            more: Vec::new(),
            size: 1,
        })
    }

    /// Lets the configuration grow to `size` on `axis`; there is one of each from the start.
    pub(super) fn grow(&mut self, axis: Axis, size: u32) -> Result<()> {
        while self.size < size {
            let next = size.min(self.size + CHUNK / documents::objects(axis));
            let mut documents = String::new();
            for index in self.size..next {
                documents += &match axis {
                    Axis::Rules => documents::rule(index),
                    Axis::Services => documents::service(index) + &self.sibling(index)?,
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
            Case::Unenrolled => (&self.bystander, (external(), ECHO_PORT).into()),
            Case::Deny => (&self.client, (external(), CLOSED_PORT).into()),
            Case::Balance => (&self.client, service_at(BALANCED_PORT)),
            Case::Balance6 => (&self.client, service_at6(BALANCED_PORT)),
            Case::Proxy => (&self.client, service_at(80)),
            Case::Direct6 => (&self.client, (external6(), ECHO_PORT).into()),
            Case::Direct | Case::NoMesh | Case::NoMesh6 | Case::Iptables | Case::Nftables => {
                (&self.client, (external(), ECHO_PORT).into())
            }
        };
        let hook = hook(case);
        let daemon = self.weir.id().context("weir has ended")?;
        let before = Runs::of(daemon, hook)?;
        let dialled = dial(pod, to)?;
        Ok((dialled, Runs::of(daemon, hook)?.mean_ns_since(before)))
    }

    /// Times connects that end at the server among the pods.
    pub(super) fn dial_pod(&self, case: Case) -> Result<Dialled> {
        match case {
            Case::Balance => dial(&self.client, service_at(BALANCED_PORT)),
            Case::Balance6 => dial(&self.client, service_at6(BALANCED_PORT)),
            Case::Direct6 => dial(&self.client, self.server.at6(ECHO_PORT)),
            Case::Proxy => dial(&self.client, service_at(80)),
            Case::Unenrolled => dial(&self.bystander, self.server.at(ECHO_PORT)),
            _ => dial(&self.client, self.server.at(ECHO_PORT)),
        }
    }

    /// One more endpoint of the service that is dialled, until it has as many as the
    /// others: the same server, by another address.
    fn sibling(&self, index: u32) -> Result<String> {
        if index >= ENDPOINTS {
            return Ok(String::new());
        }
        let last = u8::try_from(SIBLINGS + index).context("a network has 256 addresses")?;
        let network = Node::pod_network();
        let (address, address6) = (network.host(last), network.host6(last));
        self.server.netns().ip([
            format!("addr add {address}/32 dev eth0"),
            format!("addr add {address6}/128 dev eth0 nodad"),
        ])?;
        let name = format!("server-{index}");
        let (address, address6) = (address.into(), address6.into());
        Ok(documents::endpoint(&name, "server", address, address6))
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
    _outside: Pod,
}

impl Walled {
    /// A client and a server; no weir.
    pub(super) fn new(node: &Node) -> Result<Self> {
        let client = node.pod("client")?;
        let outside = outside(node)?;
        Ok(Self {
            _server: serve_in(&outside)?,
            client,
            _outside: outside,
        })
    }

    /// Puts `size` entries into the firewall of `case`, in place of what was there.
    pub(super) fn wall(&self, case: Case, size: u32) -> Result<()> {
        let (program, text) = match case {
            Case::Iptables => ("iptables-restore", documents::iptables(size)),
            _ => ("nft", documents::nftables(size)),
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
        dial(&self.client, (external(), ECHO_PORT).into())
    }
}

/// A machine outside the mesh that has the external addresses too.
fn outside(node: &Node) -> Result<Pod> {
    let outside = node.outside("outside")?;
    let (address, address6) = (external(), external6());
    outside.netns().ip([
        format!("addr add {address}/32 dev eth0"),
        format!("addr add {address6}/128 dev eth0 nodad"),
    ])?;
    node.netns().ip([
        format!("route add {address}/32 via {}", outside.ip()),
        format!("route add {address6}/128 via {}", outside.ip6()),
    ])?;
    Ok(outside)
}

/// The hook that is measured.
const fn hook(case: Case) -> &'static str {
    if case.is_v6() {
        "weir_connect6"
    } else {
        "weir_connect4"
    }
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
