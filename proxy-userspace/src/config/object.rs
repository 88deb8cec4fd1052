//! The kinds as the rest of weir sees them: parsed, typed, defaults filled in.
//!
//! Owns the meaning of every field. Must never hold a value that was not
//! checked: whoever has one of these may use it without looking again.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proxy_common::{Acceleration, EgressDefault, OnProxyDown, Port};

use super::Kind;
use super::encode::Document;
pub use super::matching::StringMatch;

/// Labels of an object, or those that a selector asks for.
pub type Labels = BTreeMap<String, String>;

/// Whether `labels` holds every pair of `selector`. An empty selector picks all.
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

/// Namespace and name; what identifies an object within its kind. A node has
/// hundreds of thousands, each named in a dozen tables: a copy shares the text, and
/// two of them are compared at one go.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// Both, with [`BETWEEN`] between them.
    text: Arc<str>,
    /// Bytes of the namespace.
    namespace: usize,
}

/// Before every other character: names are in the order of their namespaces first.
const BETWEEN: char = '\0';

impl ObjectName {
    /// The name `name` in `namespace`.
    pub fn new(namespace: &str, name: &str) -> Self {
        let mut text = String::with_capacity(namespace.len() + BETWEEN.len_utf8() + name.len());
        text.push_str(namespace);
        text.push(BETWEEN);
        text.push_str(name);
        Self {
            text: text.into(),
            namespace: namespace.len(),
        }
    }

    /// `metadata.namespace`, `default` if absent.
    pub fn namespace(&self) -> &str {
        &self.text[..self.namespace]
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        &self.text[self.namespace + BETWEEN.len_utf8()..]
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace(), self.name())
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How the bytes behind a service port are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AppProtocol {
    /// Not declared: the first bytes tell.
    Detect,
    /// `http`: HTTP/1.1, request by request.
    Http,
    /// `tcp`, `tls`, and in this version `http2` and `grpc`: bytes, by connection.
    Tcp,
    /// `protocol: UDP`: datagrams, by socket.
    Udp,
}

/// `spec.ports[].targetPort` of a Service: a number. Named ports are refused
/// on apply, because a Workload declares no port names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// `name`, if given.
    pub name: Option<String>,
    /// `port`: what clients dial on the virtual address.
    pub port: Port,
    /// `targetPort`: what the endpoints listen on; `port` if absent.
    pub target_port: Port,
    /// From `protocol`, and for TCP from `appProtocol` or the prefix of `name`.
    pub protocol: AppProtocol,
}

/// A Service: virtual addresses and ports, and a selector for its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Identity.
    pub name: ObjectName,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `spec.clusterIPs` (and `clusterIP`); may be empty, then it is unreachable by address.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.network`, `""` if absent.
    pub network: String,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// `spec.selector`; an empty one picks nothing, as in Kubernetes.
    pub selector: Labels,
}

impl Service {
    /// Whether `workload` belongs to this service: same namespace, same network,
    /// and the selector picks it. Being ready is another question.
    pub fn owns(&self, workload: &Workload) -> bool {
        !self.selector.is_empty()
            && self.name.namespace() == workload.name.namespace()
            && self.network == workload.network
            && selects(&self.selector, &workload.labels)
    }
}

/// The parts of a Workload that only one of this node has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPod {
    /// `spec.netns`: a file of its network namespace.
    pub netns: PathBuf,
    /// `spec.cgroup`: its cgroup v2 directory.
    pub cgroup: PathBuf,
    /// `spec.enrolled`: whether weir decides on its connections; true if absent.
    pub enrolled: bool,
}

/// A Workload: a pod, or any group of processes with addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Identity.
    pub name: ObjectName,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `spec.addresses`.
    pub addresses: Vec<IpAddr>,
    /// `spec.ready`: whether it may get new work; true if absent.
    pub ready: bool,
    /// `spec.network`, `""` if absent.
    pub network: String,
    /// `spec.node`, if given.
    pub node: Option<String>,
    /// Present for a workload of this node.
    pub local: Option<LocalPod>,
    /// `spec.accelerate`; the daemon's own choice if absent.
    pub accelerate: Option<Acceleration>,
}

/// Which part of a request a match looks at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RequestField {
    /// `uri`: path and query.
    Uri,
    /// `method`.
    Method,
    /// `authority`: the Host header.
    Authority,
    /// `scheme`: always `http` in this version.
    Scheme,
    /// Any other header, name in lower case.
    Header(String),
}

/// As rules write it.
impl fmt::Display for RequestField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uri => "uri",
            Self::Method => "method",
            Self::Authority => "authority",
            Self::Scheme => "scheme",
            Self::Header(name) => name,
        })
    }
}

/// `match.source` of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceMatch {
    /// `name`: a service that the source workload belongs to (namespace of the rule).
    pub service: Option<ObjectName>,
    /// `labels` of the source workload.
    pub labels: Labels,
}

/// One of `spec.route`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Labels of the endpoints that get this share; empty: all of the service.
    pub labels: Labels,
    /// Share in percent; the weights of a rule sum to 100.
    pub weight: u32,
}

/// A `RouteRule`: which requests to a service go to which of its endpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteRule {
    /// Identity.
    pub name: ObjectName,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `spec.destination`: the service, in the rule's namespace unless it says another.
    pub destination: ObjectName,
    /// `spec.precedence`: higher first, ties by name.
    pub precedence: i32,
    /// `spec.match.source`, if given.
    pub source: Option<SourceMatch>,
    /// `spec.match.request.headers`; all must hold. Empty: every request, and every TCP connection.
    pub request: Vec<(RequestField, StringMatch)>,
    /// `spec.route`; never empty.
    pub routes: Vec<Route>,
}

/// `spec.destination.service` of an `EgressRule`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EgressTarget {
    /// A host name, lower case, no trailing dot.
    Host(String),
    /// `*.suffix`: any name with at least one label before `.suffix`; holds the suffix without the dot.
    Wildcard(String),
    /// An address (full length) or CIDR: network address and prefix length in its own family (0 to 32 for IPv4).
    Net(IpAddr, u8),
}

/// `protocol` of an egress port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EgressProtocol {
    /// Through the proxy, request by request.
    Http,
    /// `tcp`, and on an address `tls` and `https` too: bytes, straight from the pod.
    Tcp,
    /// Datagrams, straight from the pod.
    Udp,
}

/// `spec.source` of an `EgressRule`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct EgressSource {
    /// `namespace`; absent: that of the rule.
    pub namespace: Option<String>,
    /// `labels` of the workloads that the rule holds for; empty: all of the namespace.
    pub labels: Labels,
}

/// An `EgressRule`: an external destination that workloads may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressRule {
    /// Identity.
    pub name: ObjectName,
    /// `metadata.labels`.
    pub labels: Labels,
    /// What may be reached.
    pub target: EgressTarget,
    /// On which ports, in which way; never empty.
    pub ports: Vec<(Port, EgressProtocol)>,
    /// For whom.
    pub source: EgressSource,
}

impl EgressRule {
    /// The namespace whose workloads it is for.
    pub fn source_namespace(&self) -> &str {
        self.source
            .namespace
            .as_deref()
            .unwrap_or(self.name.namespace())
    }

    /// Whom it holds for.
    pub fn selector(&self) -> (String, Labels) {
        (
            self.source_namespace().to_owned(),
            self.source.labels.clone(),
        )
    }
}

/// A `MeshConfig`: defaults of the node (`default`) or of the namespace it is named after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshConfig {
    /// Identity; `default/default` is node-wide, any other name is a namespace.
    pub name: ObjectName,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `spec.egress`; absent: inherited, `deny` at the top.
    pub egress: Option<EgressDefault>,
    /// `spec.onProxyDown`; absent: inherited, `closed` at the top.
    pub on_proxy_down: Option<OnProxyDown>,
    /// `spec.accessLog`; absent: inherited, on at the top.
    pub access_log: Option<bool>,
    /// `spec.headerTimeout`; absent: inherited, 10 s at the top. How long a client may take to send a request head.
    pub header_timeout: Option<Duration>,
}

/// An object of any kind.
#[derive(Clone, Debug)]
pub enum Object {
    /// A [`Service`].
    Service(Arc<Service>),
    /// A [`Workload`].
    Workload(Arc<Workload>),
    /// A [`RouteRule`].
    RouteRule(Arc<RouteRule>),
    /// An [`EgressRule`].
    EgressRule(Arc<EgressRule>),
    /// A [`MeshConfig`].
    MeshConfig(Arc<MeshConfig>),
}

impl Object {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Service,
            Self::Workload(_) => Kind::Workload,
            Self::RouteRule(_) => Kind::RouteRule,
            Self::EgressRule(_) => Kind::EgressRule,
            Self::MeshConfig(_) => Kind::MeshConfig,
        }
    }

    /// Its identity within the kind.
    pub fn name(&self) -> &ObjectName {
        match self {
            Self::Service(object) => &object.name,
            Self::Workload(object) => &object.name,
            Self::RouteRule(object) => &object.name,
            Self::EgressRule(object) => &object.name,
            Self::MeshConfig(object) => &object.name,
        }
    }

    /// The labels of its metadata.
    pub fn labels(&self) -> &Labels {
        match self {
            Self::Service(object) => &object.labels,
            Self::Workload(object) => &object.labels,
            Self::RouteRule(object) => &object.labels,
            Self::EgressRule(object) => &object.labels,
            Self::MeshConfig(object) => &object.labels,
        }
    }

    /// The canonical document: defaults filled in, one spelling for each value.
    /// It parses back to the same object.
    pub fn to_json(&self) -> serde_json::Value {
        Document::new(self, None).to_value()
    }
}

/// `RouteRule default/reviews`, as messages name it.
impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}

/// Two objects that mean the same are equal.
impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Service(one), Self::Service(other)) => one == other,
            (Self::Workload(one), Self::Workload(other)) => one == other,
            (Self::EgressRule(one), Self::EgressRule(other)) => one == other,
            (Self::MeshConfig(one), Self::MeshConfig(other)) => one == other,
            // Headers are a map, and mean the same in any order.
            (Self::RouteRule(_), Self::RouteRule(_)) => self.to_json() == other.to_json(),
            _ => false,
        }
    }
}
