//! `Service`, as Kubernetes writes it.

use std::net::{IpAddr, Ipv4Addr};

use proxy_common::Port;

use super::super::name::{address, is_label};
use super::super::node::Node;
use super::super::object::{AppProtocol, Labels, Service, ServicePort};
use super::At;
use super::metadata::{Metadata, labels};

/// Virtual addresses of one Service.
const ADDRESSES_MAX: usize = 16;

/// Ports of one Service.
const PORTS_MAX: usize = 256;

/// What Kubernetes knows of a Service and weir has no use for.
const UNUSED: &[&str] = &[
    "allocateLoadBalancerNodePorts",
    "externalIPs",
    "externalName",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "internalTrafficPolicy",
    "ipFamilies",
    "ipFamilyPolicy",
    "loadBalancerClass",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "publishNotReadyAddresses",
    "sessionAffinityConfig",
    "trafficDistribution",
    "type",
];

pub(super) fn service(at: &At<'_>, metadata: Metadata) -> Option<Service> {
    let mut fields = at.fields()?;
    let cluster_ips = addresses(fields.optional("clusterIP"), fields.optional("clusterIPs"));
    let network = match fields.optional("network") {
        None => Some(String::new()),
        Some(at) => super::workload::network(&at),
    };
    let ports = match fields.optional("ports") {
        None => Some(Vec::new()),
        Some(at) => ports(&at),
    };
    let selector = match fields.optional("selector") {
        None => Some(Labels::new()),
        Some(at) => labels(&at),
    };
    if let Some(at) = fields.optional("sessionAffinity")
        && at.string().is_some_and(|text| text != "None")
    {
        at.warn("session affinity is not kept by weir: requests are shared out one by one");
    }
    fields.ignore(UNUSED, "fields");
    fields.finish();
    Some(Service {
        name: metadata.name,
        labels: metadata.labels,
        cluster_ips: cluster_ips?,
        network: network?,
        ports: ports?,
        selector: selector?,
    })
}

/// `clusterIPs`, which holds `clusterIP` too where both are given.
fn addresses(one: Option<At<'_>>, list: Option<At<'_>>) -> Option<Vec<IpAddr>> {
    let given = list.is_some();
    let mut whole = true;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for at in list.map_or(Some(Vec::new()), |at| at.items(ADDRESSES_MAX))? {
        match virtual_address(&at) {
            Some(Some(address)) if addresses.contains(&address) => {
                at.wrong::<()>("each address once");
                whole = false;
            }
            Some(address) => addresses.extend(address),
            None => whole = false,
        }
    }
    if let Some(at) = one {
        match virtual_address(&at)? {
            Some(address) if given && !addresses.contains(&address) => {
                at.wrong::<()>("an address that is in clusterIPs too");
                whole = false;
            }
            Some(address) if !given => addresses.push(address),
            _ => {}
        }
    }
    whole.then_some(addresses)
}

/// `Some(None)` for what Kubernetes writes where there is no address.
fn virtual_address(at: &At<'_>) -> Option<Option<IpAddr>> {
    if matches!(at.node.as_str(), Some("None" | "")) {
        return Some(None);
    }
    let address = at.text("an IPv4 address", address)?;
    ipv4(at, address).map(IpAddr::V4).map(Some)
}

/// The IPv4 address of one end of a connection.
pub(super) fn ipv4(at: &At<'_>, address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V4(v4) = address else {
        return at.wrong(format!("an IPv4 address; IPv6: {}", super::LATER));
    };
    if v4.is_loopback() || v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast() {
        return at.wrong("an address that one host can be reached at from another");
    }
    Some(v4)
}

fn ports(at: &At<'_>) -> Option<Vec<ServicePort>> {
    let mut ports: Vec<ServicePort> = Vec::new();
    let mut whole = true;
    for at in at.items(PORTS_MAX)? {
        match port(&at) {
            Some(Some(port)) => {
                if ports.iter().any(|other| other.port == port.port) {
                    at.wrong::<()>(format!("each port once; {} is there twice", port.port));
                    whole = false;
                }
                if port.name.is_some() && ports.iter().any(|other| other.name == port.name) {
                    at.wrong::<()>("each port name once");
                    whole = false;
                }
                ports.push(port);
            }
            Some(None) => {}
            None => whole = false,
        }
    }
    whole.then_some(ports)
}

/// `Some(None)` for a port that is not TCP: weir leaves it alone.
fn port(at: &At<'_>) -> Option<Option<ServicePort>> {
    let mut fields = at.fields()?;
    let name = match fields.optional("name") {
        None => Some(None),
        // Kubernetes writes an empty one where there is none.
        Some(at) => at.text(
            "a port name of lower-case letters, digits and `-`",
            |text| {
                (text.is_empty() || is_label(text))
                    .then(|| Some(text).filter(|text| !text.is_empty()))
            },
        ),
    };
    let port = fields
        .required("port", "a port number")
        .and_then(|at| port_number(&at));
    let target = match fields.optional("targetPort") {
        None => Some(None),
        Some(at) if matches!(at.node, Node::String(_)) => {
            at.wrong("a port number: a Workload declares no port names")
        }
        Some(at) => port_number(&at).map(Some),
    };
    let transport = match fields.optional("protocol") {
        None => Some(true),
        Some(at) => at.word(&[("TCP", true), ("UDP", false), ("SCTP", false)]),
    };
    let declared = fields.optional("appProtocol");
    let protocol = match &declared {
        None => Some(None),
        Some(at) => at.string().map(Some),
    };
    fields.ignore(&["nodePort"], "fields");
    fields.finish();
    let (name, port, target, protocol) = (name?, port?, target?, protocol?);
    if !transport? {
        at.warn("only TCP is governed in this version: port left out");
        return Some(None);
    }
    Some(Some(ServicePort {
        name: name.map(str::to_owned),
        port,
        target_port: target.unwrap_or(port),
        protocol: app_protocol(declared.as_ref().unwrap_or(at), protocol, name),
    }))
}

pub(super) fn port_number(at: &At<'_>) -> Option<Port> {
    at.integer(1..=65_535).map(Port)
}

/// `appProtocol` if it says something, else the port name up to its first dash.
fn app_protocol(at: &At<'_>, declared: Option<&str>, name: Option<&str>) -> AppProtocol {
    let by_name = name.and_then(|name| name.split('-').next());
    if let Some(word) = declared {
        if let Some(protocol) = protocol_word(at, &word.to_ascii_lowercase()) {
            return protocol;
        }
        at.warn(
            "a protocol that weir does not know: the port's name tells, or else the first bytes do",
        );
    }
    by_name
        .and_then(|word| protocol_word(at, word))
        .unwrap_or(AppProtocol::Detect)
}

fn protocol_word(at: &At<'_>, word: &str) -> Option<AppProtocol> {
    match word {
        "http" => Some(AppProtocol::Http),
        "http2" | "grpc" | "kubernetes.io/h2c" => {
            at.warn("http2 and grpc are balanced by connection in this version, as tcp is");
            Some(AppProtocol::Tcp)
        }
        "tcp" | "tls" | "https" | "mongo" | "mysql" | "redis" => Some(AppProtocol::Tcp),
        _ => None,
    }
}
