//! A pod: a network namespace on a wire of its node, and a cgroup.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::agent::Agent;
use crate::binaries::tool_binary;
use crate::cgroup::Cgroup;
use crate::netns::Netns;
use crate::process::{Place, Proc};
use crate::wait::try_eventually;

/// What a pod is made from.
pub(crate) struct PodSpec<'a> {
    pub(crate) name: String,
    pub(crate) netns_name: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) address6: Ipv6Addr,
    pub(crate) gateway6: Option<Ipv6Addr>,
    pub(crate) bridge: String,
    pub(crate) link: String,
    pub(crate) node_netns: &'a Netns,
    pub(crate) cgroup: Cgroup,
    /// A cgroup in its own, for all that runs in it.
    pub(crate) container: Option<Cgroup>,
    pub(crate) files: PathBuf,
}

/// A pod. Its processes, its cgroup and its namespace go on drop.
pub struct Pod {
    // Before the cgroup: it ends its process in peace.
    agent: OnceLock<Agent>,
    container: Option<Cgroup>,
    cgroup: Cgroup,
    netns: Netns,
    name: String,
    address: Ipv4Addr,
    address6: Ipv6Addr,
    files: PathBuf,
}

impl Pod {
    pub(crate) fn new(spec: PodSpec<'_>) -> Result<Self> {
        let PodSpec {
            name,
            netns_name,
            address,
            gateway,
            address6,
            gateway6,
            bridge,
            link,
            node_netns,
            cgroup,
            container,
            files,
        } = spec;
        let netns = Netns::new(&netns_name)?;
        node_netns.ip([
            format!("link add {link} type veth peer name eth0 netns {netns_name}"),
            format!("link set {link} master {bridge}"),
            format!("link set {link} up"),
        ])?;
        let mut commands = vec![
            format!("addr add {address}/24 dev eth0"),
            format!("addr add {address6}/64 dev eth0 nodad"),
            "link set eth0 up".to_owned(),
        ];
        commands.extend(gateway.map(|gateway| format!("route add default via {gateway}")));
        commands.extend(gateway6.map(|gateway| format!("route add default via {gateway}")));
        netns.ip(commands)?;
        Ok(Self {
            agent: OnceLock::new(),
            container,
            cgroup,
            netns,
            name,
            address,
            address6,
            files,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its IPv4 address.
    pub fn ip(&self) -> IpAddr {
        IpAddr::V4(self.address)
    }

    /// A port on its IPv4 address.
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(), port)
    }

    /// Its IPv6 address.
    pub fn ip6(&self) -> IpAddr {
        IpAddr::V6(self.address6)
    }

    /// A port on its IPv6 address.
    pub fn at6(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip6(), port)
    }

    /// Its network namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its cgroup.
    pub fn cgroup(&self) -> &Path {
        self.cgroup.path()
    }

    /// The cgroup of what runs in it: its own, but for one that was made nested.
    pub fn container(&self) -> &Path {
        self.container.as_ref().unwrap_or(&self.cgroup).path()
    }

    /// The process in the pod that does what tests ask for; started when first asked.
    ///
    /// # Panics
    /// If it does not start: nothing can be tested then.
    pub fn agent(&self) -> &Agent {
        self.agent
            .get_or_init(|| self.new_agent().expect("an agent starts in a pod"))
    }

    /// One more such process, for what blocks while the first has to do something else.
    pub fn new_agent(&self) -> Result<Agent> {
        Agent::start(&self.place())
    }

    fn place(&self) -> Place {
        let hosts = self.hosts_path();
        Place {
            netns: self.netns.path(),
            cgroup: self.container().to_path_buf(),
            hosts: hosts.exists().then_some(hosts),
            without_sock_diag: false,
        }
    }

    fn hosts_path(&self) -> PathBuf {
        self.files.join(format!("{}.hosts", self.name))
    }

    /// What processes that are started from now on see as `/etc/hosts`.
    pub fn set_hosts(&self, names: &[(&str, IpAddr)]) -> Result<()> {
        let mut text = "127.0.0.1 localhost\n".to_owned();
        for (name, address) in names {
            text.extend([&address.to_string(), " ", name, "\n"]);
        }
        fs::write(self.hosts_path(), text).context("cannot write a hosts file")
    }

    /// Runs a program in the pod; its output goes to a log.
    pub fn spawn(&self, program: &Path, args: &[&str]) -> Result<Proc> {
        let mut command = self.place().command(program)?;
        command.args(args);
        Proc::start(command, &self.files.join(format!("{}.log", self.name)))
    }

    /// Runs the testbed's program in the pod to its end, which has to come
    /// within `limit` and be a good one; what it said.
    pub fn run(&self, args: &[String], limit: Duration) -> Result<String> {
        let mut command = self.place().command(&tool_binary()?)?;
        command.args(args);
        let log = self.files.join(format!("{}.run", self.name));
        // The file is appended to.
        match fs::remove_file(&log) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let mut process = Proc::start(command, &log)?;
        let status = process.wait(limit)?;
        ensure!(
            status.success(),
            "it ended with {status}: {}",
            process.log()
        );
        Ok(process.log())
    }

    /// Runs one of the demo's applications in the pod and waits until it listens on `port`.
    pub fn app(&self, args: &[&str], port: u16) -> Result<Proc> {
        let mut app = self.spawn(&tool_binary()?, args)?;
        let listening = format!("{} listens on port {port}", self.name);
        let probe = self.agent();
        try_eventually(&listening, Duration::from_secs(10), || {
            if let Ok(Some(status)) = app.ended() {
                return Err(format!("it ended with {status}: {}", app.log()));
            }
            let socket = probe.tcp4().map_err(|fault| fault.to_string())?;
            socket
                .connect(self.at(port))
                .map_err(|fault| fault.to_string())
        })?;
        Ok(app)
    }
}
