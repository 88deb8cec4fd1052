//! One whole, validated, immutable configuration, as the proxy reads it.
//!
//! Owns what a service, a source and an egress rule are on the hot path. Must
//! never change once it is shared; counters that rounds of picking advance are
//! the only thing in it that moves, and they are carried from one snapshot to
//! the next.

mod balanced;
mod compile;
pub mod ids;
mod mesh;
mod policies;
mod route;
mod service;
mod standing;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use proxy_common::{Addr, NetworkId, Port, RuleId, ServiceId, WorkloadId};

use self::policies::Policies;
use crate::balance::{Cycle, Places};
use crate::config::Objects;
use crate::config::object::{
    AppProtocol, EgressTarget, Labels, ObjectName, RequestField, SourceMatch, StringMatch,
};
use crate::egress::host::HostPattern;
use crate::node::Pod;
use crate::socket::Reach;
use crate::tables::TableSet;

pub use compile::{Compiler, Input, Pods};
pub use route::{Pick, Request};
pub use standing::Standing;

/// The service number that the daemon's canary dials: reserved.
pub const CANARY: ServiceId = ServiceId(u32::MAX);

/// Everything in force.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Number of the rules in force.
    pub generation: u64,
    /// Number of the inventory in force.
    pub revision: u64,
    /// Service ports by their number.
    pub services: imbl::HashMap<ServiceId, Arc<ServiceView>>,
    /// Enrolled workloads by their number.
    pub sources: HashMap<WorkloadId, Arc<Source>>,
    /// Those that the one before had and this one has not: what they dialled before
    /// the kernel's tables forgot them arrives yet.
    pub leavers: HashMap<WorkloadId, Arc<Source>>,
    /// Egress rules by their number.
    pub egress: imbl::HashMap<RuleId, Arc<EgressView>>,
    /// Names of the route rules by their number.
    pub route_rules: imbl::HashMap<RuleId, Arc<str>>,
    /// What the kernel decides by.
    pub tables: TableSet,
    /// Endpoints that the one before had and this one has not.
    pub left: Arc<HashSet<SocketAddr>>,
    /// Whether a service with ports of UDP changed, or its endpoints did.
    pub touches_udp: bool,
    /// What the next one is made from.
    basis: Basis,
}

impl Snapshot {
    /// What it was made of.
    pub const fn objects(&self) -> &Objects {
        &self.basis.objects
    }

    /// Whose connection it is that this workload dialled.
    pub fn caller(&self, workload: WorkloadId) -> Option<&Arc<Source>> {
        let leaver = || self.leavers.get(&workload);
        self.sources.get(&workload).or_else(leaver)
    }
}

/// What a snapshot was compiled from, and what it would take long to work out
/// again: the next one shares all that stays the same.
#[derive(Debug, Default)]
struct Basis {
    objects: Objects,
    policies: Policies,
    /// Networks in which canaries can be sent.
    canaries: BTreeSet<NetworkId>,
    /// Balanced service ports whose rules tell sources apart.
    by_source: OrdMap<ServiceId, BySource>,
}

/// A balanced service port whose rules tell sources apart.
#[derive(Clone, Debug)]
struct BySource {
    view: Arc<ServiceView>,
    /// One virtual address of each family that it has.
    dialled: Vec<Addr>,
}

impl PartialEq for BySource {
    /// A view is made again whenever anything that it depends on changes.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.view, &other.view)
    }
}

/// An enrolled workload: who calls.
#[derive(Debug)]
pub struct Source {
    /// Its number.
    pub id: WorkloadId,
    /// Its name.
    pub name: ObjectName,
    /// Its name as text, for logs.
    pub text: Arc<str>,
    /// How metrics and the graph call it: the first service that it belongs to, else itself.
    pub label: Arc<str>,
    /// `metadata.labels`.
    pub labels: Labels,
    /// The services whose selectors pick it.
    pub services: BTreeSet<ObjectName>,
    /// Its namespace, sockets and limits.
    pub pod: Arc<Pod>,
    /// The rules on host names that hold for it.
    pub hosts: Arc<[Arc<EgressView>]>,
    /// Whether its requests are logged.
    pub access_log: bool,
    /// How long it may take to send a request head.
    pub header_timeout: Duration,
}

/// An egress rule: what may be reached.
#[derive(Debug)]
pub struct EgressView {
    /// Its number.
    pub id: RuleId,
    /// Its name, for logs, metrics and the graph.
    pub label: Arc<str>,
    /// Host, wildcard or addresses.
    pub target: EgressTarget,
    /// The host names that it stands for; `None` for addresses.
    pub hosts: Option<HostPattern>,
    /// The ports that it opens.
    pub ports: Vec<Port>,
}

/// One port of one service: who is called.
#[derive(Debug)]
pub struct ServiceView {
    /// Its number.
    pub id: ServiceId,
    /// The service's name.
    pub name: ObjectName,
    /// The name as text, for logs, metrics and the graph.
    pub label: Arc<str>,
    /// The service port.
    pub port: Port,
    /// How its bytes are treated.
    pub protocol: AppProtocol,
    /// The rules for it, highest precedence first.
    pub rules: Vec<RuleView>,
    /// Every ready endpoint: for requests that no rule matches.
    pub all: Subset,
}

/// One route rule of a service.
#[derive(Debug)]
pub struct RuleView {
    /// Its name.
    pub name: ObjectName,
    /// The name as text.
    pub label: Arc<str>,
    /// Who must call.
    pub source: Option<SourceMatch>,
    /// What the request must look like; empty: any request, and any connection.
    pub request: Vec<(RequestField, StringMatch)>,
    /// The order in which the subsets take turns.
    pub cycle: Cycle,
    /// Where in `cycle` the node is.
    pub places: Arc<Places>,
    /// Weights in percent, as configured.
    pub weights: Vec<u32>,
    /// Where the shares go.
    pub subsets: Vec<Subset>,
}

/// Endpoints that the same labels pick.
#[derive(Debug)]
pub struct Subset {
    /// The labels; empty: all of the service.
    pub labels: Labels,
    /// For who dialled an IPv4 address.
    pub v4: Turns,
    /// For who dialled an IPv6 address.
    pub v6: Turns,
}

/// Endpoints that take turns: those with an address of one family, or, where
/// there are none, all by their addresses of the other.
#[derive(Debug)]
pub struct Turns {
    /// Ready endpoints, ordered by workload name.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Whose turn it is. Both families share it where both have the same workloads.
    pub places: Arc<Places>,
}

impl Subset {
    /// The endpoints for who dialled `addr`.
    pub fn turns(&self, dialled: &Addr) -> &Turns {
        if dialled.is_v4() { &self.v4 } else { &self.v6 }
    }

    /// Those of them that the kernel can send a socket to: it cannot change its family.
    pub fn of_family(&self, dialled: &Addr) -> impl Iterator<Item = &Arc<Endpoint>> {
        let is_v4 = dialled.is_v4();
        let endpoints = self.turns(dialled).endpoints.iter();
        endpoints.filter(move |endpoint| Addr::from(endpoint.addr.ip()).is_v4() == is_v4)
    }

    /// Every address of every endpoint.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.v4.endpoints.iter().chain(&self.v6.endpoints)
    }
}

/// A ready workload behind a service port, by one of its addresses.
#[derive(Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name of the workload.
    pub workload: ObjectName,
    /// Where it listens.
    pub addr: SocketAddr,
    /// Whether that is on this node.
    pub reach: Reach,
    /// Its `version` label, or nothing.
    pub version: Arc<str>,
}
