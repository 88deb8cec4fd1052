//! What the control side asks of the data plane, and what it hears back.
//!
//! Owns the shapes that `explain`, `status` and `workloads` are reported in;
//! their JSON is a promise (docs/admin-api.md). Must never reach into the data
//! plane by another way than the trait.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use proxy_common::{Port, Transport};
use serde::{Deserialize, Serialize};

use crate::config::{ObjectName, Objects, Warning};

/// The half of weir that decides on connections and carries them.
///
/// Called from one thread, one call at a time; a call may block for
/// milliseconds, never for longer than an operator would wait.
pub trait Dataplane: Send + 'static {
    /// Compiles `objects` and puts them in force, all or nothing: when it
    /// returns `Ok` every new connection and request sees them. On `Err` the
    /// former state holds, or what it concerns is closed. What cannot be had
    /// (a Workload whose netns is gone) is left out with a warning.
    fn install(
        &mut self,
        objects: &Objects,
        generation: u64,
        revision: u64,
    ) -> Result<Vec<Warning>, InstallError>;

    /// Whether `objects` fit: what a dry run asks. Changes nothing.
    fn check(&mut self, objects: &Objects) -> Result<(), InstallError>;

    /// Closes the connections that a workload dialled before it was enrolled;
    /// tells how many.
    fn reset_older(&mut self, name: &ObjectName) -> Result<usize, InstallError>;

    /// What would happen to a connection or request now.
    fn explain(&self, query: &ExplainQuery) -> Result<Explanation, ExplainError>;

    /// The state of the kernel half and the listeners.
    fn status(&self) -> DataplaneStatus;

    /// Every workload of this node.
    fn workloads(&self) -> Vec<WorkloadStatus>;
}

/// Why a configuration could not be put in force.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The objects ask for more than the tables hold, or for something the
    /// node cannot do. Another configuration would go in.
    #[error("{0}")]
    Refused(String),
    /// The kernel refused what should have worked; the former state holds.
    #[error("{0}; the former configuration is still in force")]
    Failed(String),
    /// Writing failed half-way and so did the way back: what it concerns is closed.
    #[error(
        "{0}; the way back failed too, so the workloads concerned are closed until an apply succeeds"
    )]
    Closed(String),
}

/// A host as a person names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A service (`name` or `name.namespace`) or a host name, in lower case.
    Name(String),
}

/// `ADDRESS[:PORT]` or `NAME[:PORT]`, for UDP with `/udp` behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Who is dialled.
    pub host: Host,
    /// On which port; absent: the only port there is.
    pub port: Option<Port>,
    /// Over what.
    pub transport: Transport,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (text, transport) = match text.rsplit_once('/') {
            Some((rest, "udp")) => (rest, Transport::Udp),
            Some((rest, "tcp")) => (rest, Transport::Tcp),
            _ => (text, Transport::Tcp),
        };
        let with_port = |host, port| Self {
            host,
            port,
            transport,
        };
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return Ok(with_port(Host::Address(addr.ip()), Some(Port(addr.port()))));
        }
        let bare = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
            .unwrap_or(text);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(with_port(Host::Address(ip), None));
        }
        let (name, port) = match text.split_once(':') {
            None => (text, None),
            Some((name, port)) => {
                let port = port.parse::<u16>().ok().filter(|port| *port != 0);
                let port = port.ok_or_else(|| {
                    format!("{text:?} has no port from 1 to 65535 after the colon")
                })?;
                (name, Some(Port(port)))
            }
        };
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if name.is_empty() || name.len() > 253 || !name.chars().all(known) {
            return Err(format!("{text:?} is no address, service or host name"));
        }
        Ok(with_port(
            Host::Name(name.trim_end_matches('.').to_ascii_lowercase()),
            port,
        ))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.port) {
            (Host::Address(ip), Some(port)) => SocketAddr::new(*ip, port.0).fmt(f),
            (Host::Address(ip), None) => ip.fmt(f),
            (Host::Name(name), Some(port)) => write!(f, "{name}:{port}"),
            (Host::Name(name), None) => f.write_str(name),
        }?;
        match self.transport {
            Transport::Tcp => Ok(()),
            Transport::Udp => f.write_str("/udp"),
        }
    }
}

/// What `weir explain` asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainQuery {
    /// The workload that connects.
    pub workload: ObjectName,
    /// Whom it dials.
    pub destination: Target,
    /// Method of the request; `GET` where a rule asks and none is given.
    pub method: Option<String>,
    /// Path and query of the request; `/` where a rule asks and none is given.
    pub path: Option<String>,
    /// Headers of the request, names in lower case.
    pub headers: Vec<(String, String)>,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The workload is not known, or not one of this node.
    #[error("{0}")]
    UnknownWorkload(String),
    /// The destination cannot be told from the question.
    #[error("{0}")]
    UnclearDestination(String),
}

/// What happens to a connection, and on what grounds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// `namespace/name` of the workload that connects.
    pub workload: String,
    /// What it dials, with the address that was settled on.
    pub destination: String,
    /// `deny`, `direct`, `balance` or `proxy`.
    pub verdict: String,
    /// The stable name of the reason, as in logs and metrics.
    pub reason: String,
    /// The egress rule that spoke, as `namespace/name`; absent: the default did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The service that was dialled, as `namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// How the service port is treated: `http`, `tcp` or `detect`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The route rule that matches, as `namespace/name`; absent: all endpoints in turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_rule: Option<String>,
    /// The generation that is in force.
    pub generation: u64,
    /// Who may get the connection.
    pub endpoints: Vec<ExplainedEndpoint>,
    /// What else a person should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One endpoint of an [`Explanation`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedEndpoint {
    /// `namespace/name` of the workload.
    pub workload: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share of new requests or connections, in percent.
    pub share: f64,
}

/// The state of the data plane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataplaneStatus {
    /// The kernel programs.
    pub programs: Vec<ProgramStatus>,
    /// Programs of others on the same hooks, the first 100.
    #[serde(default)]
    pub others: Vec<OtherStatus>,
    /// How many more there are.
    #[serde(default)]
    pub others_omitted: u64,
    /// The kernel maps.
    pub maps: Vec<MapStatus>,
    /// The listeners inside the pods.
    pub listeners: Vec<ListenerStatus>,
    /// The counters of both halves, by name.
    pub counters: BTreeMap<String, u64>,
    /// Socket-to-socket acceleration.
    pub acceleration: AccelerationStatus,
    /// What becomes of UDP.
    pub udp: String,
}

/// Socket-to-socket acceleration: for whom, and why not for others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccelerationStatus {
    /// `auto`, `force` or `off`: what the daemon was started with.
    pub mode: String,
    /// For whom it is in force now.
    pub in_force_for: String,
    /// What the self-test said of this kernel.
    pub self_test: String,
    /// The cases that did not hold.
    pub broken: Vec<AccelerationCase>,
    /// Why the kernel half could not accelerate, if it was to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// A case of the self-test that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccelerationCase {
    /// Its name.
    pub name: String,
    /// What must hold.
    pub must: String,
    /// What was seen.
    pub seen: String,
}

/// One kernel program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgramStatus {
    /// Its name.
    pub name: String,
    /// Where it hangs, such as `cgroup/connect4`.
    pub hook: String,
    /// Whether it is attached now.
    pub attached: bool,
}

/// A program of somebody else that hangs where weir's do: on the pods' cgroups or above.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OtherStatus {
    /// The kernel's id of it.
    pub id: u32,
    /// Its name; empty where it has none.
    pub name: String,
    /// Where it hangs, such as `cgroup/connect4`.
    pub hook: String,
    /// The cgroup's directory.
    pub cgroup: String,
}

/// One kernel map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MapStatus {
    /// Its name.
    pub name: String,
    /// What `--map-limit` calls it; absent where its size is not chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map_limit: Option<String>,
    /// Entries in use; absent where the kernel cannot tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
    /// Entries that fit, of a ring bytes; 0: as many as there are sockets.
    pub capacity: u64,
    /// Memory that the kernel takes for it, in bytes; absent where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// One listener inside a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    /// `namespace/name` of the workload.
    pub workload: String,
    /// Where it listens, inside the pod.
    pub address: SocketAddr,
}

/// One workload of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadStatus {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The file of its network namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// Whether weir is asked to decide on its connections.
    pub enrolled: bool,
    /// Whether the canary found that it really does.
    pub captured: bool,
    /// Why it is captured or not.
    pub why: String,
    /// Connections on their way from `connect()` to the proxy.
    pub pending_flows: u64,
    /// Connections that the proxy carries.
    pub open_connections: u64,
    /// Connections that it dialled before it was enrolled, and that last:
    /// nobody decided on them.
    #[serde(default)]
    pub older_connections: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_told_apart() {
        let name = |name: &str| Host::Name(name.into());
        let address = |ip: &str| Host::Address(ip.parse().unwrap());
        for (text, host, port) in [
            ("10.0.0.1:80/tcp", address("10.0.0.1"), Some(80)),
            ("10.0.0.1:80", address("10.0.0.1"), Some(80)),
            ("10.0.0.1", address("10.0.0.1"), None),
            ("[fd00::1]:80", address("fd00::1"), Some(80)),
            ("[fd00::1]", address("fd00::1"), None),
            ("fd00::1", address("fd00::1"), None),
            ("svcb", name("svcb"), None),
            ("svcb.shop:8080", name("svcb.shop"), Some(8080)),
            ("API.example.com.:443", name("api.example.com"), Some(443)),
        ] {
            let wanted = Target {
                host,
                port: port.map(Port),
                transport: Transport::Tcp,
            };
            let target: Target = text.parse().unwrap();
            assert_eq!(target, wanted, "{text}");
            assert_eq!(target.to_string().parse(), Ok(wanted), "{text}");
            if !text.contains('/') {
                let target: Target = format!("{text}/udp").parse().unwrap();
                assert_eq!(target.transport, Transport::Udp, "{text}");
                assert_eq!(target.to_string().parse(), Ok(target), "{text}");
            }
        }
    }

    #[test]
    fn what_is_no_target_is_refused() {
        let texts = "|:80|svcb:|svcb:0|svcb:99999|a b|http://svcb/|svcb:80/sctp|/udp|fd00::1:x";
        for text in texts.split('|') {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
