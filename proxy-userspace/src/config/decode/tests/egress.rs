//! Egress rules.

use proxy_common::Port;

use super::super::super::object::{EgressProtocol, EgressTarget};
use super::{Kind, Object, accepted, refuses};

#[test]
fn egress_rules() {
    let ports = "ports: [{port: 80, protocol: http}]";
    let to = |service: &str| format!("{{destination: {{service: '{service}'}}, {ports}}}");
    for (service, expected) in [
        ("httpbin.org", EgressTarget::Host("httpbin.org".into())),
        ("HTTPBin.org.", EgressTarget::Host("httpbin.org".into())),
        ("*.foo.com", EgressTarget::Wildcard("foo.com".into())),
        ("10.0.0.1", EgressTarget::Net([10, 0, 0, 1].into(), 32)),
        (
            "::ffff:10.0.0.1",
            EgressTarget::Net([10, 0, 0, 1].into(), 32),
        ),
        ("10.0.0.0/8", EgressTarget::Net([10, 0, 0, 0].into(), 8)),
        ("0.0.0.0/0", EgressTarget::Net([0, 0, 0, 0].into(), 0)),
    ] {
        let (object, _) = accepted(Kind::EgressRule, &to(service));
        assert!(
            matches!(object, Object::EgressRule(rule) if rule.target == expected),
            "{service}"
        );
    }
    for (service, expected) in [
        (
            "*",
            "expected a destination; to allow all of them use `egress: allow` of a MeshConfig",
        ),
        ("*foo.com", "expected a host name, `*.` and a domain"),
        ("foo.*.com", "expected a host name, `*.` and a domain"),
        ("10.0.0", "expected a host name, `*.` and a domain"),
        ("http://foo.com", "expected a host name, `*.` and a domain"),
        ("10.0.0.1/33", "expected a prefix length from 0 to 32"),
        ("10.0.0.1/+8", "expected a prefix length from 0 to 32"),
        (
            "10.1.2.3/8",
            "expected the first address of the network: 10.0.0.0/8",
        ),
        (
            "fd00::1",
            "expected an IPv4 destination; IPv6: it comes with a later version",
        ),
        (
            "fd00::/8",
            "expected an IPv4 destination; IPv6: it comes with a later version",
        ),
        (
            "::/0",
            "expected an IPv4 destination; IPv6: it comes with a later version",
        ),
        (
            "127.0.0.1",
            "expected an external destination; a pod reaches itself without a rule",
        ),
        ("0.0.0.0", "expected an external destination"),
    ] {
        refuses(
            Kind::EgressRule,
            &[(
                &to(service),
                &format!("spec.destination.service: \"{service}\": {expected}"),
            )],
        );
    }
}

#[test]
fn egress_protocols() {
    let spec = |service: &str, protocol: &str| {
        format!(
            "{{destination: {{service: '{service}'}}, ports: [{{port: 443, protocol: {protocol}}}]}}"
        )
    };
    for (service, protocol, expected) in [
        ("10.0.0.1", "http", EgressProtocol::Http),
        ("foo.com", "HTTP", EgressProtocol::Http),
        ("10.0.0.0/8", "tcp", EgressProtocol::Tcp),
        ("10.0.0.1", "https", EgressProtocol::Tcp),
        ("10.0.0.1", "tls", EgressProtocol::Tcp),
    ] {
        let (object, _) = accepted(Kind::EgressRule, &spec(service, protocol));
        assert!(
            matches!(object, Object::EgressRule(rule) if rule.ports == [(Port(443), expected)]),
            "{protocol}"
        );
    }
    for (service, protocol, expected) in [
        (
            "foo.com",
            "https",
            "expected `http` for a host name: `https` and `tls` by name come with a later version",
        ),
        (
            "*.foo.com",
            "tls",
            "expected `http` for a host name: `https` and `tls` by name come with a later version",
        ),
        (
            "foo.com",
            "tcp",
            "expected `http` for a host name: bytes carry no name",
        ),
        (
            "10.0.0.1",
            "udp",
            "expected one of `http`, `https`, `tls`, `tcp`: UDP is not governed in this version",
        ),
        (
            "10.0.0.1",
            "grpc",
            "expected one of `http`, `https`, `tls`, `tcp`",
        ),
    ] {
        let place = format!("spec.ports[0].protocol: \"{protocol}\": {expected}");
        refuses(Kind::EgressRule, &[(&spec(service, protocol), &place)]);
    }
}

#[test]
fn egress_fields() {
    let to = "destination: {service: 10.0.0.1}";
    let ports = "ports: [{port: 80, protocol: http}]";
    for (spec, expected) in [
        (
            format!("{{{ports}}}"),
            "spec.destination: absent: expected a map with `service`",
        ),
        (
            format!("{{{to}}}"),
            "spec.ports: absent: expected a list of port and protocol",
        ),
        (
            format!("{{{to}, ports: []}}"),
            "spec.ports: []: expected at least one port",
        ),
        (
            format!("{{{to}, ports: [{{port: 80}}]}}"),
            "spec.ports[0].protocol: absent: expected one of `http`",
        ),
        (
            format!("{{{to}, ports: [{{port: 80, protocol: http}}, {{port: 80, protocol: tcp}}]}}"),
            "spec.ports: […]: expected each port once, with one protocol; 80 is there twice",
        ),
        (
            format!("{{destination: {{service: 10.0.0.1, labels: {{a: b}}}}, {ports}}}"),
            "spec.destination.labels: {…}: expected no `labels`: an external destination is given by `service` alone",
        ),
        (
            format!("{{{to}, {ports}, source: {{name: a}}}}"),
            "spec.source.name: \"a\": expected no field of this name",
        ),
        (
            format!("{{{to}, {ports}, useEgressProxy: true}}"),
            "spec.useEgressProxy: true: expected false: there is no",
        ),
    ] {
        refuses(Kind::EgressRule, &[(&spec, expected)]);
    }
    accepted(
        Kind::EgressRule,
        &format!("{{{to}, {ports}, useEgressProxy: false, source: {{namespace: b}}}}"),
    );
}
