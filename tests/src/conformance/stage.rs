//! What the suite stands on: the peer, and pods that run cases.
//!
//! Must never judge what a case saw.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::compare::Seen;
use super::{Run, Targets, Way};
use crate::docs::service;
use crate::{Netns, Node, Pod, Proc, Weir, eventually, tool_binary};

/// Longer than any case takes, whose every call is bounded.
const CASE_LIMIT: Duration = Duration::from_secs(30);
/// No route leads there from a pod.
const UNREACHABLE: [&str; 2] = ["203.0.113.1", "2001:db8:113::1"];
/// The node loses every packet to it.
const BLACKHOLE: [&str; 2] = ["192.0.2.1", "2001:db8:2::1"];

/// A node that answers for every lost datagram, with the peer and a black hole.
pub struct Stage {
    /// The node.
    pub node: Node,
    /// The peer's pod.
    pub peer: Pod,
    socket: PathBuf,
    _process: Proc,
}

impl Stage {
    /// Sets it up.
    pub fn new() -> Result<Self> {
        let node = Node::new()?;
        let lost = BLACKHOLE.map(|address| format!("route add blackhole {address}"));
        node.netns().ip(lost)?;
        node.netns().sysctl("ipv4/conf/all/rp_filter", "0")?;
        unlimited_errors(node.netns())?;
        let peer = node.pod("peer")?;
        // Fast Open for every listener, without being asked.
        peer.netns().sysctl("ipv4/tcp_fastopen", "1027")?;
        unlimited_errors(peer.netns())?;
        let socket = node.dir().join("peer.sock");
        let path = socket.display().to_string();
        let args = ["conformance", "peer", &path];
        let process = peer.spawn(&tool_binary()?, &args)?;
        eventually("the peer listens", Duration::from_secs(5), || {
            if socket.exists() {
                Ok(())
            } else {
                Err(process.log())
            }
        });
        Ok(Self {
            node,
            peer,
            socket,
            _process: process,
        })
    }

    /// A pod for the cases of one way. Its `index` gives it ports of the peer, and
    /// virtual addresses, of its own; at first it dials addresses of Workloads.
    pub fn client(&self, name: &str, way: Way, index: u8) -> Result<Client> {
        let pod = self.node.pod(name)?;
        let (other_own, other_own6) = self.node.second_home(&pod)?;
        let netns = pod.netns();
        netns.ip([
            "route add throw 203.0.113.0/24",
            "route add throw 2001:db8:113::/48",
            "route add unreachable default table 7",
            "route add unreachable ::/0 table 7",
            "rule add fwmark 7 table 7",
        ])?;
        netns.rule6("fwmark 7 table 7")?;
        // Answers to one device's address may come in on the other.
        for device in ["all", "eth0", "eth1"] {
            netns.sysctl(&format!("ipv4/conf/{device}/rp_filter"), "0")?;
        }
        // Listeners in the pod may give out cookies of Fast Open: weir's does.
        netns.sysctl("ipv4/tcp_fastopen", "3")?;
        let port = 7000 + 10 * u16::from(index);
        let at = |ip: IpAddr| SocketAddr::new(ip, port);
        let [unreachable, unreachable6] = at_both(UNREACHABLE, port)?;
        let [blackhole, blackhole6] = at_both(BLACKHOLE, port)?;
        let targets = Targets {
            live: at(self.peer.ip()),
            live6: at(self.peer.ip6()),
            unreachable,
            unreachable6,
            blackhole,
            blackhole6,
            denied: blackhole,
            denied6: blackhole6,
            peer_at: at(self.peer.ip()),
            peer_at6: at(self.peer.ip6()),
            peer: self.socket.clone(),
            own: pod.ip(),
            own6: pod.ip6(),
            other_own,
            other_own6,
        };
        Ok(Client {
            pod,
            way,
            index,
            targets,
        })
    }
}

/// The dead ends as Workloads of another node: endpoints of services, and known addresses.
pub fn dead_ends() -> String {
    let elsewhere = |(name, [four, six]): (&str, [&str; 2])| {
        format!(
            "---\napiVersion: weir.dev/v1\nkind: Workload\nmetadata: {{name: {name}, labels: \
             {{app: {name}}}}}\nspec: {{addresses: [{four}, '{six}'], node: elsewhere}}\n"
        )
    };
    let both = [("unreachable", UNREACHABLE), ("blackhole", BLACKHOLE)];
    both.into_iter().map(elsewhere).collect()
}

fn at_both(addresses: [&str; 2], port: u16) -> Result<[SocketAddr; 2]> {
    let [four, six] = addresses;
    let at = |ip: &str| Ok::<_, anyhow::Error>(SocketAddr::new(ip.parse()?, port));
    Ok([at(four)?, at(six)?])
}

/// The kernel answers only so many lost datagrams a second; the cases lose more.
fn unlimited_errors(netns: &Netns) -> Result<()> {
    for limit in ["ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"] {
        netns.sysctl(limit, "0")?;
    }
    Ok(())
}

/// A pod with two devices, whose routes know a dead end, a mark that leads
/// nowhere, and a way through a router.
pub struct Client {
    pod: Pod,
    way: Way,
    index: u8,
    /// Whom its cases dial.
    pub targets: Targets,
}

impl Client {
    /// Has it dial virtual addresses.
    pub fn dial_services(&mut self) {
        let virtual_at = |host: u8| {
            let port = self.targets.live.port();
            let six = [0xfd00, 0x96, u16::from(self.index), 0, 0, 0, 0, host.into()];
            let four = IpAddr::from([10, 96, self.index, host]);
            [four, IpAddr::from(six)].map(|ip| SocketAddr::new(ip, port))
        };
        let [live, unreachable, blackhole] = [1, 2, 3].map(virtual_at);
        [self.targets.live, self.targets.live6] = live;
        [self.targets.unreachable, self.targets.unreachable6] = unreachable;
        [self.targets.blackhole, self.targets.blackhole6] = blackhole;
    }

    /// Has weir capture it; `spec` is what else its Workload says.
    ///
    /// # Panics
    /// If weir refuses.
    pub fn enroll(&self, weir: &Weir<'_>, spec: &str) {
        let (pod, to) = (&self.pod, &self.targets);
        weir.apply(&format!(
            "apiVersion: weir.dev/v1\nkind: Workload\nmetadata: {{name: {}, labels: {{app: c}}}}\n\
             spec: {{addresses: [{}, '{}', {}, '{}'], netns: {}, cgroup: {}{spec}}}\n",
            pod.name(),
            to.own,
            to.own6,
            to.other_own,
            to.other_own6,
            pod.netns().path().display(),
            pod.cgroup().display(),
        ));
    }

    /// What makes the addresses that it dials those of services, on ports whose names
    /// begin with `prefix`.
    pub fn services(&self, prefix: &str) -> String {
        let named = |name: &str, app: &str, [four, six]: [SocketAddr; 2], ports: u16| {
            let ports: Vec<String> = (four.port()..four.port() + ports)
                .flat_map(|port| {
                    [
                        format!("name: {prefix}-{port}, port: {port}"),
                        format!("name: udp-{port}, port: {port}, protocol: UDP"),
                    ]
                })
                .collect();
            let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
            let addresses = format!("{}, '{}'", four.ip(), six.ip());
            let name = format!("{prefix}-{name}-{}", four.port());
            service(&name, addresses, app, &ports)
        };
        let to = &self.targets;
        let unreachable = [to.unreachable, to.unreachable6];
        let blackhole = [to.blackhole, to.blackhole6];
        [
            // The live, the second and the closed one.
            named("live", "peer", [to.live, to.live6], 3),
            named("unreachable", "unreachable", unreachable, 1),
            named("blackhole", "blackhole", blackhole, 1),
        ]
        .concat()
    }

    /// Runs those of the cases that are its way's; what each saw, and which did
    /// not come to their end.
    pub fn run(&self, runs: impl Iterator<Item = Run>) -> (Seen, BTreeMap<String, String>) {
        let (mut seen, mut failed) = (Seen::new(), BTreeMap::new());
        for run in runs.filter(|run| run.way == self.way) {
            let mut args = vec!["conformance".to_owned(), "case".to_owned(), run.name()];
            args.extend(self.targets.args());
            let said = self.pod.run(&args, CASE_LIMIT);
            let observations = said.and_then(|said| Ok(serde_json::from_str(&said)?));
            match observations {
                Ok(observations) => drop(seen.insert(run.name(), observations)),
                Err(error) => drop(failed.insert(run.name(), format!("{error:#}"))),
            }
        }
        (seen, failed)
    }
}
