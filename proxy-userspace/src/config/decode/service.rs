//! `Service`, as Kubernetes writes it.

use std::net::IpAddr;

use proxy_common::{Port, Transport};

use super::metadata::{Metadata, labels};
use super::{At, Read, workload};
use crate::config::name::is_label;
use crate::config::node::Node;
use crate::config::object::{AppProtocol, Service, ServicePort};

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

pub(super) fn service(at: &At<'_>, metadata: Metadata) -> Read<Service> {
    let mut fields = at.fields()?;
    let cluster_ips = addresses(fields.find("clusterIP"), fields.find("clusterIPs"));
    let network = fields.optional("network", workload::network);
    let ports = fields.optional("ports", ports);
    let selector = fields.optional("selector", labels);
    let affinity = fields.optional("sessionAffinity", |at| {
        if at.string()? != "None" {
            at.warn("session affinity is not kept by weir: requests are shared out one by one");
        }
        Ok(())
    });
    fields.ignore(UNUSED, "fields");
    fields.finish();
    affinity?;
    Ok(Service {
        name: metadata.name,
        labels: metadata.labels,
        cluster_ips: cluster_ips?,
        network: network?.unwrap_or_default(),
        ports: ports?.unwrap_or_default(),
        selector: selector?.unwrap_or_default(),
    })
}

/// `clusterIPs`, which holds `clusterIP` too where both are given.
fn addresses(one: Option<At<'_>>, list: Option<At<'_>>) -> Read<Vec<IpAddr>> {
    let first = one.as_ref().map_or(Ok(None), virtual_address);
    let Some(list) = list else {
        return Ok(first?.into_iter().collect());
    };
    let addresses = list.items(ADDRESSES_MAX, virtual_address);
    let addresses = distinct(&list, addresses?.into_iter().flatten());
    if let (Some(at), Some(first)) = (one, first?)
        && !addresses.contains(&first)
    {
        return at.wrong("an address that is in clusterIPs too");
    }
    Ok(addresses)
}

/// `None` for what Kubernetes writes where there is no address.
fn virtual_address(at: &At<'_>) -> Read<Option<IpAddr>> {
    match at.node.as_str() {
        Some("None" | "") => Ok(None),
        _ => host_address(at).map(Some),
    }
}

/// An IP address, aloud where an IPv4-mapped one is taken for what it maps.
pub(super) fn ip_address(at: &At<'_>, written: IpAddr) -> IpAddr {
    let address = written.to_canonical();
    if address != written {
        at.warn(format!(
            "taken for the IPv4 address that it maps, {address}"
        ));
    }
    address
}

/// An address that can be one end of a connection between hosts.
pub(super) fn host_address(at: &At<'_>) -> Read<IpAddr> {
    let written = at.text("an IP address", |text| text.parse().ok())?;
    let address = ip_address(at, written);
    let between_hosts = match address {
        IpAddr::V4(v4) => !v4.is_broadcast(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    };
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() || !between_hosts
    {
        return at.wrong("an address that one host can be reached at from another");
    }
    Ok(address)
}

/// The values, each once; reports those that come again.
pub(super) fn distinct(at: &At<'_>, addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut seen = Vec::new();
    for address in addresses {
        if seen.contains(&address) {
            at.complain(format!("each address once; {address} is there twice"));
        } else {
            seen.push(address);
        }
    }
    seen
}

fn ports(at: &At<'_>) -> Read<Vec<ServicePort>> {
    let ports: Vec<ServicePort> = at.items(PORTS_MAX, port)?.into_iter().flatten().collect();
    for (index, port) in ports.iter().enumerate() {
        let before = &ports[..index];
        if before.iter().any(|other| other.key() == port.key()) {
            let (port, transport) = port.key();
            at.complain(format!(
                "each port of TCP and of UDP once; {port} of {transport} is there twice"
            ));
        }
        if let Some(name) = &port.name
            && before.iter().any(|other| other.name == port.name)
        {
            at.complain(format!("each port name once; `{name}` is there twice"));
        }
    }
    Ok(ports)
}

/// `None` for a port that is neither TCP nor UDP: weir leaves it alone.
fn port(at: &At<'_>) -> Read<Option<ServicePort>> {
    let mut fields = at.fields()?;
    // Kubernetes writes an empty name where there is none.
    let name = fields.optional("name", |at| {
        at.text(
            "a port name of lower-case letters, digits and `-`",
            |text| (text.is_empty() || is_label(text)).then_some(text),
        )
    });
    let port = fields.required("port", "a port number", port_number);
    let target = fields.optional("targetPort", |at| match at.node {
        Node::String(_) => at.wrong("a port number: a Workload declares no port names"),
        _ => port_number(at),
    });
    let transport = fields.optional("protocol", |at| {
        at.word(&[
            ("TCP", Some(Transport::Tcp)),
            ("UDP", Some(Transport::Udp)),
            ("SCTP", None),
        ])
    });
    let declared = fields.optional("appProtocol", |at| {
        let protocol = protocol_word(at, &at.string()?.to_ascii_lowercase());
        if protocol.is_none() {
            at.warn("a protocol that weir does not know: the port's name tells, or else the first bytes do");
        }
        Ok(protocol)
    });
    fields.ignore(&["nodePort"], "fields");
    fields.finish();
    let name = name?.filter(|name| !name.is_empty());
    let (port, target_port, declared) = (port?, target?, declared?.flatten());
    let Some(transport) = transport?.unwrap_or(Some(Transport::Tcp)) else {
        at.warn("only TCP and UDP are governed in this version: port left out");
        return Ok(None);
    };
    // By its name up to the first dash, as in `http-admin`.
    let by_name = || name.and_then(|name| protocol_word(at, name.split('-').next()?));
    let protocol = match transport {
        Transport::Tcp => declared.or_else(by_name).unwrap_or(AppProtocol::Detect),
        // What is in a datagram makes no difference.
        Transport::Udp => AppProtocol::Udp,
    };
    Ok(Some(ServicePort {
        name: name.map(str::to_owned),
        port,
        target_port: target_port.unwrap_or(port),
        protocol,
    }))
}

pub(super) fn port_number(at: &At<'_>) -> Read<Port> {
    at.integer(1..=65_535).map(Port)
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
