//! Where datagrams are measured: a node without weir and one with it, each with
//! a server among its pods and one outside.
//!
//! Must never send a datagram to what is not on these nodes.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use testbed::{Node, Pod, Proc, Weir, WeirOptions};

use super::{Case, Hook, Style, Way};
use crate::bench::hook::Runs;
use crate::bench::meter::Cpu;
use crate::bench::peer::{ECHO_PORT, client_in, serve_in};
use crate::bench::result::Measured;
use crate::bench::row::VIRTUAL_ADDRESS;
use crate::process;

/// The virtual address of the service whose endpoint no hook covers.
const REMOTE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 21);
/// How much longer than its time a load may take before it is ended.
const SLACK: Duration = Duration::from_secs(20);

/// A client, a server among the pods, and one outside.
struct Trio {
    _servers: [Proc; 2],
    client: Pod,
    server: Pod,
    outside: Pod,
}

impl Trio {
    fn new(node: &Node) -> Result<Self> {
        let [client, server] = node.pods(["client", "server"])?;
        let outside = node.outside("outside")?;
        Ok(Self {
            _servers: [serve_in(&server)?, serve_in(&outside)?],
            client,
            server,
            outside,
        })
    }
}

/// Both nodes. Everything goes on drop.
pub(super) struct Site<'a> {
    // In the order in which they have to go.
    weir: Weir<'a>,
    _remote_server: Proc,
    _remote: Pod,
    bystander: Pod,
    meshed: Trio,
    bare: Trio,
}

impl<'a> Site<'a> {
    /// Sets both up. `meshed` gets weir, an enrolled client, a pod that is not
    /// enrolled, and a workload that counts as one of another node.
    pub(super) fn new(bare: &Node, meshed: &'a Node) -> Result<Self> {
        let bare = Trio::new(bare)?;
        let trio = Trio::new(meshed)?;
        let bystander = meshed.pod("bystander")?;
        let remote = meshed.outside("remote")?;
        let remote_server = serve_in(&remote)?;
        let weir = Weir::start_with(meshed, WeirOptions::default())?;
        weir.apply(&documents(&trio, &remote));
        weir.enroll(&trio.client, &["app=client"]);
        Ok(Self {
            weir,
            _remote_server: remote_server,
            _remote: remote,
            bystander,
            meshed: trio,
            bare,
        })
    }

    /// Requests and replies for `time`, and what the machine used.
    pub(super) fn exchange(
        &self,
        way: Way,
        style: Style,
        time: Duration,
    ) -> Result<(Measured, Cpu)> {
        let (pod, to) = match way {
            Way::ToPod => (&self.bare.client, self.bare.server.at(ECHO_PORT)),
            Way::Balanced => (&self.meshed.client, service_at(VIRTUAL_ADDRESS)),
            Way::ToOutside => (&self.bare.client, self.bare.outside.at(ECHO_PORT)),
            Way::Allowed => (&self.meshed.client, self.meshed.outside.at(ECHO_PORT)),
        };
        let before = Cpu::now(None)?;
        let measured = run(pod, style.peer(), to, time)?;
        Ok((measured, Cpu::now(None)?.since(before)))
    }

    /// The mean run of each of `hooks` in nanoseconds, while a client lets the
    /// first of them run. The server is under no hook.
    pub(super) fn hooks(
        &self,
        case: Case,
        hooks: &[Hook],
        time: Duration,
    ) -> Result<Vec<(Hook, f64)>> {
        let (pod, to) = match case {
            Case::Unenrolled => (&self.bystander, self.meshed.outside.at(ECHO_PORT)),
            Case::Allowed => (&self.meshed.client, self.meshed.outside.at(ECHO_PORT)),
            Case::Balanced => (&self.meshed.client, service_at(REMOTE_ADDRESS)),
        };
        let daemon = self.weir.id().context("weir has ended")?;
        let read = || -> Result<Vec<Runs>> {
            let runs = hooks.iter().map(|hook| Runs::of(daemon, hook.program()));
            runs.collect()
        };
        let first = hooks.first().context("hooks are asked for")?;
        let before = read()?;
        run(pod, first.peer(), to, time)?;
        let means = read()?.into_iter().zip(before).zip(hooks);
        means
            .map(|((after, before), hook)| {
                let mean = after.mean_ns_since(before);
                Ok((
                    *hook,
                    mean.with_context(|| format!("{} never ran", hook.program()))?,
                ))
            })
            .collect()
    }
}

fn service_at(address: Ipv4Addr) -> SocketAddr {
    SocketAddr::new(address.into(), ECHO_PORT)
}

fn run(pod: &Pod, peer: &str, to: SocketAddr, time: Duration) -> Result<Measured> {
    let seconds = time.as_secs().to_string();
    let mut command = client_in(pod, pod.cgroup(), &[peer, &to.to_string(), &seconds])?;
    let said = process::capture(&mut command, time + SLACK)?;
    serde_json::from_str(&said).context("the peer says something else")
}

/// A service of a pod, one of a workload elsewhere, and the rule that opens the outside.
fn documents(trio: &Trio, remote: &Pod) -> String {
    let server = &trio.server;
    format!(
        "apiVersion: v1
kind: Service
metadata: {{ name: server }}
spec:
  clusterIPs: [{VIRTUAL_ADDRESS}]
  selector: {{ app: server }}
  ports: [{{ name: echo, port: {ECHO_PORT}, protocol: UDP }}]
---
apiVersion: weir.dev/v1
kind: Workload
metadata: {{ name: server, labels: {{ app: server }} }}
spec: {{ addresses: [{}], netns: {}, cgroup: {}, enrolled: false }}
---
apiVersion: v1
kind: Service
metadata: {{ name: remote }}
spec:
  clusterIPs: [{REMOTE_ADDRESS}]
  selector: {{ app: remote }}
  ports: [{{ name: echo, port: {ECHO_PORT}, protocol: UDP }}]
---
apiVersion: weir.dev/v1
kind: Workload
metadata: {{ name: remote, labels: {{ app: remote }} }}
spec: {{ addresses: [{}] }}
---
apiVersion: weir.dev/v1
kind: EgressRule
metadata: {{ name: outside }}
spec:
  destination: {{ service: {} }}
  ports: [{{ port: {ECHO_PORT}, protocol: udp }}]
",
        server.ip(),
        server.netns().path().display(),
        server.cgroup().display(),
        remote.ip(),
        trio.outside.ip(),
    )
}
