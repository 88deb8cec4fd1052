//! An enrolled workload of this node, as a running thing: its namespace, its
//! cgroup, weir's listeners in it, and how much of weir it uses.
//!
//! Must never outlive its use silently: the namespace stays alive as long as a
//! connection or a listener of the pod does, and not longer.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use proxy_common::{Listener, Port};

use super::listen::{self, Place};
use crate::config::object::{LocalPod, ObjectName};
use crate::kernel::{Cgroup, KernelError};
use crate::socket::{LocalAddr, Netns};

/// Connections of one pod that weir serves at the same time: its own limit, so
/// that a pod that opens them without end harms nobody else.
pub const CONNECTIONS_MAX: usize = 16_384;

/// What the canary dials: the IPv4 dummy address (RFC 7600) and one that IPv6
/// discards (RFC 6666), never routed, so that a canary that is not captured
/// reaches nobody.
pub const CANARY_ADDRS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8)),
    IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 8)),
];

/// The port that goes with them.
pub const CANARY_PORT: Port = Port(9);

/// Why a workload cannot be enrolled.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// The netns file does not open.
    #[error("workload {name}: netns {path}: {cause}; is the pod still there?", path = path.display())]
    Netns {
        /// The workload.
        name: ObjectName,
        /// Its `spec.netns`.
        path: PathBuf,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// The cgroup does not open or cannot be fenced.
    #[error("workload {name}: cgroup: {cause}")]
    Cgroup {
        /// The workload.
        name: ObjectName,
        /// What the kernel half says.
        cause: Box<KernelError>,
    },
    /// The netns is the node's own.
    #[error("workload {name}: {path} is the node's own network namespace: enrolling it would capture the node's own services", path = path.display())]
    NodeNetns {
        /// The workload.
        name: ObjectName,
        /// Its `spec.netns`.
        path: PathBuf,
    },
    /// `lo` is down: connects to the listener would hang.
    #[error(
        "workload {name}: the loopback interface is down in its netns: run `ip -n NETNS link set lo up`"
    )]
    LoopbackDown {
        /// The workload.
        name: ObjectName,
    },
    /// No address to listen on.
    #[error("workload {name}: its netns has no address besides loopback and link-local ones")]
    NoAddress {
        /// The workload.
        name: ObjectName,
    },
    /// `spec.addresses` names one that the netns does not have.
    #[error("workload {name}: address {addr} is not configured in its netns (it has {found})")]
    ForeignAddress {
        /// The workload.
        name: ObjectName,
        /// The address.
        addr: IpAddr,
        /// What is configured.
        found: String,
    },
    /// The listener does not open.
    #[error("workload {name}: listening on {addr} in its netns: {cause}")]
    Listen {
        /// The workload.
        name: ObjectName,
        /// Where.
        addr: SocketAddr,
        /// The kernel's answer.
        cause: io::Error,
    },
}

/// What the canary found.
#[derive(Clone, Debug, Default)]
pub struct Enrolment {
    /// Whether the last canary came through.
    pub captured: bool,
    /// Why, or why not.
    pub why: String,
}

/// One enrolled workload of this node.
#[derive(Debug)]
pub struct Pod {
    name: ObjectName,
    spec: LocalPod,
    claimed: Vec<IpAddr>,
    netns: Netns,
    cgroup: Cgroup,
    local: Vec<LocalAddr>,
    listeners: Vec<Listener>,
    connections: AtomicUsize,
    enrolment: Mutex<Enrolment>,
}

impl Pod {
    /// One without sockets, for tests of what is made of workloads.
    ///
    /// # Panics
    /// The workload is not local.
    #[cfg(test)]
    pub fn hollow(workload: &crate::config::object::Workload) -> Self {
        Self {
            name: workload.name.clone(),
            spec: workload.local.clone().expect("it is local"),
            claimed: Vec::new(),
            netns: Netns::current().expect("there is one"),
            cgroup: Cgroup::hollow(),
            local: Vec::new(),
            listeners: Vec::new(),
            connections: AtomicUsize::new(0),
            enrolment: Mutex::default(),
        }
    }

    /// Enters the namespace and opens the listeners: one per local address
    /// and worker. The sockets come back in one list per worker. Waits for
    /// addresses that are still being probed, but not beyond `settled_by`.
    pub fn enrol(
        name: &ObjectName,
        spec: &LocalPod,
        addresses: &[IpAddr],
        home: &Netns,
        workers: usize,
        settled_by: Instant,
    ) -> Result<(Self, Vec<Vec<TcpListener>>), PodError> {
        let netns_error = |cause| PodError::Netns {
            name: name.clone(),
            path: spec.netns.clone(),
            cause,
        };
        let netns = Netns::open(&spec.netns).map_err(netns_error)?;
        if netns.cookie() == home.cookie() {
            return Err(PodError::NodeNetns {
                name: name.clone(),
                path: spec.netns.clone(),
            });
        }
        let cgroup = Cgroup::open(&spec.cgroup).map_err(|cause| PodError::Cgroup {
            name: name.clone(),
            cause: Box::new(cause),
        })?;
        let view = listen::settled(&netns, home, settled_by).map_err(netns_error)?;
        let loopback = view
            .loopback
            .ok_or_else(|| PodError::LoopbackDown { name: name.clone() })?;
        check_addresses(name, addresses, &view.addrs)?;
        let on = listen::addresses(&view.addrs, addresses);
        if on.is_empty() {
            return Err(PodError::NoAddress { name: name.clone() });
        }
        let place = Place {
            name,
            netns: &netns,
            home,
            loopback,
        };
        let (listeners, sockets) = place.listen(&on, workers)?;
        let pod = Self {
            name: name.clone(),
            spec: spec.clone(),
            claimed: addresses.to_vec(),
            netns,
            cgroup,
            local: view.addrs,
            listeners,
            connections: AtomicUsize::new(0),
            enrolment: Mutex::new(Enrolment {
                captured: false,
                why: "not verified yet".into(),
            }),
        };
        Ok((pod, sockets))
    }

    /// Its name.
    pub fn name(&self) -> &ObjectName {
        &self.name
    }

    /// What was enrolled.
    pub fn spec(&self) -> &LocalPod {
        &self.spec
    }

    /// The addresses that its Workload names.
    pub fn claimed(&self) -> &[IpAddr] {
        &self.claimed
    }

    /// Its network namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its cgroup.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Every address of its namespace.
    pub fn local(&self) -> &[LocalAddr] {
        &self.local
    }

    /// weir's listeners in it.
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// The address by which it is known in a family: `like` tells which.
    pub fn face(&self, like: IpAddr) -> Option<IpAddr> {
        self.listeners
            .iter()
            .map(|listener| listener.addr.to_ip())
            .find(|own| own.is_ipv4() == like.is_ipv4())
    }

    /// Connections that weir serves for it now.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Takes a place for one more connection; `None`: it has all that it may have.
    pub fn admit(self: &Arc<Self>) -> Option<Admission> {
        if self.connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Admission {
            pod: Arc::clone(self),
        })
    }

    /// What the last canary found.
    pub fn enrolment(&self) -> Enrolment {
        self.enrolment
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Notes what a canary found.
    pub fn set_enrolment(&self, enrolment: Enrolment) {
        *self
            .enrolment
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = enrolment;
    }
}

/// A connection's place among those of its pod; given back on drop.
#[derive(Debug)]
pub struct Admission {
    pod: Arc<Pod>,
}

impl Admission {
    /// Whose place it is.
    pub fn pod(&self) -> &Arc<Pod> {
        &self.pod
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.pod.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Addresses that a Workload claims must be its netns's own: else it would
/// speak for somebody else.
fn check_addresses(
    name: &ObjectName,
    claimed: &[IpAddr],
    found: &[LocalAddr],
) -> Result<(), PodError> {
    let missing = claimed
        .iter()
        .find(|addr| !found.iter().any(|local| local.ip == **addr));
    missing.map_or(Ok(()), |addr| {
        let found: Vec<String> = found
            .iter()
            .filter(|local| !local.loopback)
            .map(|local| local.ip.to_string())
            .collect();
        Err(PodError::ForeignAddress {
            name: name.clone(),
            addr: *addr,
            found: found.join(", "),
        })
    })
}
