//! A node: a network namespace with bridges, a cgroup for its pods and one for
//! its daemon, a bpffs, and a directory for everything else.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use anyhow::{Context, Result, anyhow, ensure};
use nix::unistd::geteuid;

use crate::agent::Agent;
use crate::cgroup::{Cgroup, Controller};
use crate::mount::Bpffs;
use crate::netns::Netns;
use crate::pod::{Pod, PodSpec};
use crate::process::Place;
use crate::{names, sweep};

/// Which wire a pod hangs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    bridge: String,
    /// The first three bytes of its IPv4 addresses; [`Network::host6`] says the IPv6 ones.
    prefix: [u8; 3],
    /// Whether the node has the address `.1` on it and routes between it and others.
    routed: bool,
}

/// A node of its own, without pods at first. Everything goes on drop.
pub struct Node {
    // In the order in which they have to go.
    pods_cgroup: Cgroup,
    daemon_cgroup: Cgroup,
    tools_cgroup: Cgroup,
    root_cgroup: Cgroup,
    netns: Netns,
    bpffs: Bpffs,
    files: Files,
    name: String,
    next_host: AtomicU16,
    next_link: AtomicU32,
}

impl Node {
    /// Makes a node and its two routed networks, and sweeps what killed runs left.
    ///
    /// # Errors
    /// Says what is missing: root, cgroup v2, bpffs, iproute2.
    pub fn new() -> Result<Self> {
        ensure!(
            geteuid().is_root(),
            "the testbed needs root: network namespaces, cgroups and BPF"
        );
        sweep::on_signals()?;
        sweep::sweep()?;
        let name = names::fresh();
        let files = Files::new(names::files_root().join(&name))?;
        let root_cgroup = Cgroup::at_root(&name)?;
        let node = Self {
            pods_cgroup: root_cgroup.child("pods")?,
            daemon_cgroup: root_cgroup.child("daemon")?,
            tools_cgroup: root_cgroup.child("tools")?,
            root_cgroup,
            netns: Netns::new(&name)?,
            bpffs: Bpffs::new(files.0.join("bpf"))?,
            files,
            name,
            next_host: AtomicU16::new(2),
            next_link: AtomicU32::new(1),
        };
        node.netns.sysctl("ipv4/ip_forward", "1")?;
        node.netns.sysctl("ipv6/conf/all/forwarding", "1")?;
        // A bridge is a wire here. Where the kernel can run the node's firewall
        // on what it carries, that would count in every measurement.
        for firewall in ["iptables", "ip6tables", "arptables"] {
            let path = format!("bridge/bridge-nf-call-{firewall}");
            if Path::new("/proc/sys/net").join(&path).exists() {
                node.netns.sysctl(&path, "0")?;
            }
        }
        for network in [Self::pod_network(), Self::outside_network()] {
            node.add_bridge(&network)?;
        }
        Ok(node)
    }

    /// Where pods hang: 10.244.1.0/24 and `fd00:10:244:1::/64`.
    pub fn pod_network() -> Network {
        Network {
            bridge: "pods".to_owned(),
            prefix: [10, 244, 1],
            routed: true,
        }
    }

    /// The world outside the mesh: 198.51.100.0/24 and `fd00:198:51:100::/64`.
    pub fn outside_network() -> Network {
        Network {
            bridge: "outside".to_owned(),
            prefix: [198, 51, 100],
            routed: true,
        }
    }

    /// A wire of its own without a way out, 10.9.0.0/24 and `fd00:10:9:0::/64` on each of them.
    pub fn isolated_network(&self, name: &str) -> Result<Network> {
        let network = Network {
            bridge: name.to_owned(),
            prefix: [10, 9, 0],
            routed: false,
        };
        self.add_bridge(&network)?;
        Ok(network)
    }

    fn add_bridge(&self, network: &Network) -> Result<()> {
        let bridge = &network.bridge;
        // A bridge without an address of its own takes the lowest of its ports',
        // and so another one when a pod comes or goes: the other pods would
        // send to the one they remember, for seconds.
        let [a, b, c] = network.prefix;
        let mut commands = vec![
            format!("link add {bridge} address 02:00:00:{a:02x}:{b:02x}:{c:02x} type bridge"),
            format!("link set {bridge} up"),
        ];
        if network.routed {
            commands.push(format!("addr add {}/24 dev {bridge}", network.host(1)));
            let own = network.host6(1);
            commands.push(format!("addr add {own}/64 dev {bridge} nodad"));
        }
        self.netns.ip(commands)
    }

    /// A pod on the pods' network with the next free address.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        let host = self.next_host();
        self.pod_on(&Self::pod_network(), name, host)
    }

    /// A pod on `network` with the last byte of its address given.
    pub fn pod_on(&self, network: &Network, name: &str, host: u8) -> Result<Pod> {
        Pod::new(self.spec(network, name, host, self.pods_cgroup.child(name)?))
    }

    /// A pod as a kubelet makes one: its cgroup is at `path` below the pods', with a
    /// controller all the way down, and what runs in it is in `container` below that.
    pub fn nested_pod(
        &self,
        name: &str,
        path: &Path,
        container: &str,
        controller: &Controller,
    ) -> Result<Pod> {
        let cgroup = self.pods_cgroup.below(path)?;
        let to_pods = Path::new("pods");
        self.root_cgroup.control(&to_pods.join(path), controller)?;
        let container = cgroup.child(container)?;
        let host = self.next_host();
        Pod::new(PodSpec {
            container: Some(container),
            ..self.spec(&Self::pod_network(), name, host, cgroup)
        })
    }

    /// A machine outside the mesh: not below the pods' cgroup, on the outside network.
    pub fn outside(&self, name: &str) -> Result<Pod> {
        let host = self.next_host();
        let cgroup = self.tools_cgroup.child(name)?;
        Pod::new(self.spec(&Self::outside_network(), name, host, cgroup))
    }

    /// A second device for a pod, `eth1`, on the outside network, with a way
    /// through the node of its own; its addresses of IPv4 and IPv6.
    pub fn second_home(&self, pod: &Pod) -> Result<(IpAddr, IpAddr)> {
        let (network, host) = (Self::outside_network(), self.next_host());
        let (address, gateway) = (network.host(host), network.host(1));
        let (address6, gateway6) = (network.host6(host), network.host6(1));
        let link = format!("p{}", self.next_link.fetch_add(1, Ordering::Relaxed));
        let (bridge, netns) = (&network.bridge, pod.netns().name());
        self.netns.ip([
            format!("link add {link} type veth peer name eth1 netns {netns}"),
            format!("link set {link} master {bridge}"),
            format!("link set {link} up"),
        ])?;
        pod.netns().ip([
            format!("addr add {address}/24 dev eth1"),
            format!("addr add {address6}/64 dev eth1 nodad"),
            "link set eth1 up".to_owned(),
            format!("route add default via {gateway} dev eth1 metric 100"),
            // Behind the one over `eth0`, whose metric is the kernel's for IPv6.
            format!("route add default via {gateway6} dev eth1 metric 2048"),
        ])?;
        Ok((address.into(), address6.into()))
    }

    fn next_host(&self) -> u8 {
        let host = self.next_host.fetch_add(1, Ordering::Relaxed);
        u8::try_from(host).expect("a node has less than 250 pods")
    }

    fn spec<'a>(&'a self, network: &Network, name: &str, host: u8, cgroup: Cgroup) -> PodSpec<'a> {
        PodSpec {
            name: name.to_owned(),
            netns_name: format!("{}-{name}", self.name),
            address: network.host(host),
            gateway: network.routed.then(|| network.host(1)),
            address6: network.host6(host),
            gateway6: network.routed.then(|| network.host6(1)),
            bridge: network.bridge.clone(),
            link: format!("p{}", self.next_link.fetch_add(1, Ordering::Relaxed)),
            node_netns: &self.netns,
            cgroup,
            container: None,
            files: self.files.0.clone(),
        }
    }

    /// A helper process in the node's own namespace: for the node's side of a test.
    pub fn agent(&self) -> Result<Agent> {
        Agent::start(&self.place(&self.tools_cgroup))
    }

    /// A helper process in a pod's namespace, but not in its cgroup, nor in any pod's:
    /// as what a node's agent does inside a pod.
    pub fn intruder(&self, pod: &Pod) -> Result<Agent> {
        let cgroup = self.tools_cgroup.path().to_path_buf();
        let netns = pod.netns().path();
        Agent::start(&Place {
            netns,
            cgroup,
            hosts: None,
            without_sock_diag: false,
        })
    }

    /// Pods on the pods' network, one for each name.
    pub fn pods<const N: usize>(&self, names: [&str; N]) -> Result<[Pod; N]> {
        let pods: Vec<Pod> = names
            .iter()
            .map(|name| self.pod(name))
            .collect::<Result<_>>()?;
        pods.try_into()
            .map_err(|_| anyhow!("there is one pod for each name"))
    }

    /// The node's own network namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The parent of the pods' cgroups.
    pub fn pods_cgroup(&self) -> &Path {
        self.pods_cgroup.path()
    }

    /// The cgroup that the daemon runs in.
    pub fn daemon_cgroup(&self) -> &Path {
        self.daemon_cgroup.path()
    }

    /// The cgroup that holds all of the node's.
    pub fn root_cgroup(&self) -> &Path {
        self.root_cgroup.path()
    }

    /// Where the node's bpffs is mounted.
    pub fn bpffs(&self) -> &Path {
        self.bpffs.path()
    }

    /// The node's directory: state, sockets, logs.
    pub fn dir(&self) -> &Path {
        &self.files.0
    }

    /// Its name, and the prefix of all that belongs to it.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn daemon_place(&self) -> Place {
        self.place(&self.daemon_cgroup)
    }

    fn place(&self, cgroup: &Cgroup) -> Place {
        Place {
            netns: self.netns.path(),
            cgroup: cgroup.path().to_path_buf(),
            hosts: None,
            without_sock_diag: false,
        }
    }
}

impl Network {
    /// The address with this last byte.
    pub fn host(&self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.prefix;
        Ipv4Addr::new(a, b, c, last)
    }

    /// The IPv6 address that looks like it: `fd00:10:244:1::7` beside 10.244.1.7.
    pub fn host6(&self, last: u8) -> Ipv6Addr {
        // The decimal digits of a byte, read as hexadecimal ones.
        let digits = |byte: u8| {
            let byte = u16::from(byte);
            ((byte / 100) << 8) | ((byte / 10 % 10) << 4) | (byte % 10)
        };
        let [a, b, c] = self.prefix.map(digits);
        Ipv6Addr::new(0xfd00, a, b, c, 0, 0, 0, digits(last))
    }
}

/// The node's directory; removed on drop.
struct Files(PathBuf);

impl Files {
    fn new(path: PathBuf) -> Result<Self> {
        let _making = sweep::making();
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _making = sweep::making();
        if let Err(error) = sweep::remove_files(&self.0) {
            eprintln!("testbed: {error:#}");
        }
    }
}
