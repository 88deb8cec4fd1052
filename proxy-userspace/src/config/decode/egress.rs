//! `EgressRule`.

use std::net::IpAddr;

use proxy_common::Port;

use super::metadata::{Metadata, label, labels};
use super::service::{ip_address, port_number};
use super::{At, Read, Wrong};
use crate::config::name::{host, network};
use crate::config::object::{EgressProtocol, EgressRule, EgressSource, EgressTarget};

/// Ports of one rule.
const PORTS_MAX: usize = 256;

/// Bits of `::ffff:0:0/96`, which holds the IPv4 addresses in IPv6 form.
const MAPPED_LENGTH: u8 = 96;

const TARGET: &str = "a host name, `*.` and a domain, an IP address, or a CIDR";
const PROTOCOL: &str = "one of `http`, `https`, `tls`, `tcp`, `udp`";

pub(super) fn egress_rule(at: &At<'_>, metadata: Metadata) -> Read<EgressRule> {
    let Metadata { name, labels, .. } = metadata;
    let mut fields = at.fields()?;
    let target = fields.required("destination", "a map with `service`", destination);
    let ports = fields.required("ports", "a list of port and protocol", |at| {
        ports(at, target.as_ref())
    });
    let source = fields.optional("source", source);
    let proxied = fields.optional("useEgressProxy", |at| {
        if at.boolean()? {
            return at.wrong("false: there is no egress proxy but weir itself");
        }
        Ok(())
    });
    fields.finish();
    proxied?;
    Ok(EgressRule {
        name,
        labels,
        target: target?,
        ports: ports?,
        source: source?.unwrap_or_default(),
    })
}

fn destination(at: &At<'_>) -> Read<EgressTarget> {
    let mut fields = at.fields()?;
    let target = fields.required("service", TARGET, target);
    for name in ["name", "namespace", "domain", "labels"] {
        fields.refuse(name, "an external destination is given by `service` alone");
    }
    fields.finish();
    target
}

fn target(at: &At<'_>) -> Read<EgressTarget> {
    let text = at.string()?;
    if let Some((addr, prefix)) = text.split_once('/') {
        return cidr(at, addr, prefix);
    }
    if let Ok(addr) = text.parse() {
        let addr = ip_address(at, addr);
        return external(at, addr, full_length(addr));
    }
    if text == "*" {
        return at.wrong("a destination; to allow all of them use `egress: allow` of a MeshConfig");
    }
    let found = match text.strip_prefix("*.") {
        Some(suffix) => host(suffix).map(EgressTarget::Wildcard),
        None => host(text).map(EgressTarget::Host),
    };
    found.map_or_else(|| at.wrong(TARGET), Ok)
}

fn cidr(at: &At<'_>, addr: &str, prefix: &str) -> Read<EgressTarget> {
    let Ok(addr) = addr.parse::<IpAddr>() else {
        return at.wrong(TARGET);
    };
    let full = full_length(addr);
    let digits = prefix.len() <= 3 && prefix.bytes().all(|byte| byte.is_ascii_digit());
    let length = prefix
        .parse::<u8>()
        .ok()
        .filter(|length| digits && *length <= full);
    let Some(length) = length else {
        return at.wrong(format!("a prefix length from 0 to {full}"));
    };
    let first = network(addr, length);
    if first != addr {
        return at.wrong(format!(
            "the first address of the network: {first}/{length}"
        ));
    }
    if addr.to_canonical() != addr && length >= MAPPED_LENGTH {
        let (addr, length) = (addr.to_canonical(), length - MAPPED_LENGTH);
        return at.wrong(format!("the IPv4 network as such: {addr}/{length}"));
    }
    external(at, addr, length)
}

/// Bits of an address.
fn full_length(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

fn external(at: &At<'_>, addr: IpAddr, length: u8) -> Read<EgressTarget> {
    if addr.is_loopback() || (addr.is_unspecified() && length == full_length(addr)) {
        return at.wrong("an external destination; a pod reaches itself without a rule");
    }
    Ok(EgressTarget::Net(addr, length))
}

fn ports(at: &At<'_>, target: Result<&EgressTarget, &Wrong>) -> Read<Vec<(Port, EgressProtocol)>> {
    let ports = at.items(PORTS_MAX, |at| {
        let mut fields = at.fields()?;
        let port = fields.required("port", "a port number", port_number);
        let protocol = fields.required("protocol", PROTOCOL, |at| protocol(at, target));
        fields.finish();
        Ok((port?, protocol?))
    })?;
    if ports.is_empty() {
        return at.wrong("at least one port");
    }
    for (index, (port, protocol)) in ports.iter().enumerate() {
        let transport = protocol.transport();
        let is_same = |(other, protocol): &(Port, EgressProtocol)| {
            (*other, protocol.transport()) == (*port, transport)
        };
        if ports[..index].iter().any(is_same) {
            at.complain(format!(
                "each port once, with one protocol of TCP and one of UDP; {port} is there twice"
            ));
        }
    }
    Ok(ports)
}

fn protocol(at: &At<'_>, target: Result<&EgressTarget, &Wrong>) -> Read<EgressProtocol> {
    let by_name = matches!(
        target,
        Ok(EgressTarget::Host(_) | EgressTarget::Wildcard(_))
    );
    match at.string()?.to_ascii_lowercase().as_str() {
        "http" => Ok(EgressProtocol::Http),
        "https" | "tls" if by_name => at.wrong(
            "`http` for a host name: `https` and `tls` by name come with a later version, \
             this one does not look at the name in the TLS handshake; give the address instead",
        ),
        "tcp" | "udp" if by_name => at.wrong(
            "`http` for a host name: bytes carry no name to compare; give the address instead",
        ),
        "https" | "tls" | "tcp" => Ok(EgressProtocol::Tcp),
        "udp" => Ok(EgressProtocol::Udp),
        _ => at.wrong(PROTOCOL),
    }
}

fn source(at: &At<'_>) -> Read<EgressSource> {
    let mut fields = at.fields()?;
    let namespace = fields.optional("namespace", |at| label(at).map(str::to_owned));
    let labels = fields.optional("labels", labels);
    fields.finish();
    Ok(EgressSource {
        namespace: namespace?,
        labels: labels?.unwrap_or_default(),
    })
}
