//! `EgressRule`.

use std::net::IpAddr;

use proxy_common::Port;

use super::super::name::{address, host, network};
use super::super::object::{EgressProtocol, EgressRule, EgressSource, EgressTarget, ObjectName};
use super::metadata::{labels, namespace};
use super::service::port_number;
use super::{At, LATER};

/// Ports of one rule.
const PORTS_MAX: usize = 256;

const TARGET: &str = "a host name, `*.` and a domain, an IPv4 address, or a CIDR";

pub(super) fn egress_rule(at: &At<'_>, name: ObjectName) -> Option<EgressRule> {
    let mut fields = at.fields()?;
    let target = fields
        .required("destination", "a map with `service`")
        .and_then(|at| destination(&at));
    let ports = fields
        .required("ports", "a list of port and protocol")
        .and_then(|at| ports(&at, target.as_ref()));
    let source = match fields.optional("source") {
        None => Some(EgressSource::default()),
        Some(at) => source(&at),
    };
    if let Some(at) = fields.optional("useEgressProxy")
        && at.boolean() == Some(true)
    {
        at.wrong::<()>("false: there is no egress proxy but weir itself");
    }
    fields.finish();
    Some(EgressRule {
        name,
        target: target?,
        ports: ports?,
        source: source?,
    })
}

fn destination(at: &At<'_>) -> Option<EgressTarget> {
    let mut fields = at.fields()?;
    let target = fields
        .required("service", TARGET)
        .and_then(|at| target(&at));
    for name in ["name", "namespace", "domain", "labels"] {
        fields.refuse(name, "an external destination is given by `service` alone");
    }
    fields.finish();
    target
}

fn target(at: &At<'_>) -> Option<EgressTarget> {
    let text = at.string()?;
    if let Some((addr, prefix)) = text.split_once('/') {
        return cidr(at, addr, prefix);
    }
    if let Some(addr) = address(text) {
        return external(at, addr, 32);
    }
    if text == "*" {
        return at.wrong("a destination; to allow all of them use `egress: allow` of a MeshConfig");
    }
    let found = match text.strip_prefix("*.") {
        Some(suffix) => host(suffix).map(EgressTarget::Wildcard),
        None => host(text).map(EgressTarget::Host),
    };
    found.or_else(|| at.wrong(TARGET))
}

fn cidr(at: &At<'_>, addr: &str, prefix: &str) -> Option<EgressTarget> {
    // The written family decides on the length: a mapped `/120` is no IPv4 one.
    let Ok(addr) = addr.parse::<IpAddr>() else {
        return at.wrong(TARGET);
    };
    let full = if addr.is_ipv4() { 32 } else { 128 };
    let digits = prefix.len() <= 3 && prefix.bytes().all(|byte| byte.is_ascii_digit());
    let prefix = digits
        .then(|| prefix.parse::<u8>().ok())
        .flatten()
        .filter(|prefix| *prefix <= full);
    let Some(prefix) = prefix else {
        return at.wrong(format!("a prefix length from 0 to {full}"));
    };
    let start = network(addr, prefix);
    if start != addr {
        return at.wrong(format!(
            "the first address of the network: {start}/{prefix}"
        ));
    }
    external(at, addr, prefix)
}

fn external(at: &At<'_>, addr: IpAddr, prefix: u8) -> Option<EgressTarget> {
    if addr.is_ipv6() {
        return at.wrong(format!("an IPv4 destination; IPv6: {LATER}"));
    }
    if addr.is_loopback() || (addr.is_unspecified() && prefix == 32) {
        return at.wrong("an external destination; a pod reaches itself without a rule");
    }
    Some(EgressTarget::Net(addr, prefix))
}

fn ports(at: &At<'_>, target: Option<&EgressTarget>) -> Option<Vec<(Port, EgressProtocol)>> {
    let items = at.items(PORTS_MAX)?;
    if items.is_empty() {
        return at.wrong("at least one port");
    }
    let mut ports: Vec<(Port, EgressProtocol)> = Vec::new();
    let mut whole = true;
    for at in items {
        match port(&at, target) {
            Some((port, _)) if ports.iter().any(|(other, _)| *other == port) => {
                at.wrong::<()>(format!(
                    "each port once, with one protocol; {port} is there twice"
                ));
                whole = false;
            }
            Some(port) => ports.push(port),
            None => whole = false,
        }
    }
    whole.then_some(ports)
}

fn port(at: &At<'_>, target: Option<&EgressTarget>) -> Option<(Port, EgressProtocol)> {
    let mut fields = at.fields()?;
    let port = fields
        .required("port", "a port number")
        .and_then(|at| port_number(&at));
    let protocol = fields
        .required("protocol", "one of `http`, `https`, `tls`, `tcp`")
        .and_then(|at| protocol(&at, target));
    fields.finish();
    Some((port?, protocol?))
}

fn protocol(at: &At<'_>, target: Option<&EgressTarget>) -> Option<EgressProtocol> {
    let by_name = matches!(
        target,
        Some(EgressTarget::Host(_) | EgressTarget::Wildcard(_))
    );
    match at.string()?.to_ascii_lowercase().as_str() {
        "http" => Some(EgressProtocol::Http),
        "https" | "tls" if by_name => at.wrong(
            "`http` for a host name: `https` and `tls` by name come with a later version, \
             this one does not look at the name in the TLS handshake; give the address instead",
        ),
        "tcp" if by_name => at.wrong(
            "`http` for a host name: bytes carry no name to compare; give the address instead",
        ),
        "https" | "tls" | "tcp" => Some(EgressProtocol::Tcp),
        "udp" => {
            at.wrong("one of `http`, `https`, `tls`, `tcp`: UDP is not governed in this version")
        }
        _ => at.wrong("one of `http`, `https`, `tls`, `tcp`"),
    }
}

fn source(at: &At<'_>) -> Option<EgressSource> {
    let mut fields = at.fields()?;
    let namespace = match fields.optional("namespace") {
        None => Some(None),
        Some(at) => namespace(&at).map(|text| Some(text.to_owned())),
    };
    let labels = fields
        .optional("labels")
        .map_or(Some(Default::default()), |at| labels(&at));
    fields.finish();
    Some(EgressSource {
        namespace: namespace?,
        labels: labels?,
    })
}
