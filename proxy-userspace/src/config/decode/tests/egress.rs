//! Egress rules.

use proxy_common::Port;

use super::{Kind, Object, accepted, refuses, refuses_in};
use crate::config::object::{EgressProtocol, EgressTarget};

#[test]
fn destinations() {
    let spec = "{destination: {service: '@'}, ports: [{port: 80, protocol: http}]}";
    let v6 = |text: &str| text.parse().unwrap();
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
        ("FD00::0:1", EgressTarget::Net(v6("fd00::1"), 128)),
        ("fd00::/8", EgressTarget::Net(v6("fd00::"), 8)),
        ("::/0", EgressTarget::Net(v6("::"), 0)),
    ] {
        let (object, warnings) = accepted(Kind::EgressRule, &spec.replace('@', service));
        assert!(
            matches!(object, Object::EgressRule(rule) if rule.target == expected),
            "{service}"
        );
        assert_eq!(
            warnings.len(),
            usize::from(service.starts_with("::ffff")),
            "{warnings:?}"
        );
    }
    let place = "spec.destination.service: ";
    refuses_in(
        Kind::EgressRule,
        spec,
        place,
        r#"
* => "*": expected a destination; to allow all of them use `egress: allow` of a MeshConfig
*foo.com => "*foo.com": expected a host name, `*.` and a domain
foo.*.com => "foo.*.com": expected a host name, `*.` and a domain
10.0.0 => "10.0.0": expected a host name, `*.` and a domain
http://foo.com => "http://foo.com": expected a host name, `*.` and a domain
10.0.0.1/33 => "10.0.0.1/33": expected a prefix length from 0 to 32
10.0.0.1/+8 => "10.0.0.1/+8": expected a prefix length from 0 to 32
10.1.2.3/8 => "10.1.2.3/8": expected the first address of the network: 10.0.0.0/8
fd00::1/8 => "fd00::1/8": expected the first address of the network: fd00::/8
fd00::/129 => "fd00::/129": expected a prefix length from 0 to 128
[fd00::1] => "[fd00::1]": expected a host name, `*.` and a domain
fe80::1%eth0 => "fe80::1%eth0": expected a host name, `*.` and a domain
::ffff:10.0.0.0/104 => "::ffff:10.0.0.0/104": expected the IPv4 network as such: 10.0.0.0/8
::1 => "::1": expected an external destination; a pod reaches itself without a rule
:: => "::": expected an external destination
127.0.0.1 => "127.0.0.1": expected an external destination; a pod reaches itself without a rule
0.0.0.0 => "0.0.0.0": expected an external destination
"#,
    );
}

#[test]
fn protocols() {
    for (service, protocol, expected) in [
        ("10.0.0.1", "http", EgressProtocol::Http),
        ("foo.com", "HTTP", EgressProtocol::Http),
        ("10.0.0.0/8", "tcp", EgressProtocol::Tcp),
        ("10.0.0.1", "https", EgressProtocol::Tcp),
        ("10.0.0.1", "tls", EgressProtocol::Tcp),
        ("10.0.0.1", "udp", EgressProtocol::Udp),
    ] {
        let ports = format!("[{{port: 443, protocol: {protocol}}}]");
        let (object, _) = accepted(
            Kind::EgressRule,
            &format!("{{destination: {{service: {service}}}, ports: {ports}}}"),
        );
        assert!(
            matches!(object, Object::EgressRule(rule) if rule.ports == [(Port(443), expected)]),
            "{protocol}"
        );
    }
    let spec = "{destination: {service: '@}]}";
    let place = "spec.ports[0].protocol: ";
    refuses_in(
        Kind::EgressRule,
        spec,
        place,
        r#"
foo.com'}, ports: [{port: 443, protocol: https => "https": expected `http` for a host name: `https` and `tls` by name come with a later version
*.foo.com'}, ports: [{port: 443, protocol: tls => "tls": expected `http` for a host name: `https` and `tls` by name come with a later version
foo.com'}, ports: [{port: 443, protocol: tcp => "tcp": expected `http` for a host name: bytes carry no name to compare
foo.com'}, ports: [{port: 443, protocol: udp => "udp": expected `http` for a host name: bytes carry no name to compare
10.0.0.1'}, ports: [{port: 443, protocol: grpc => "grpc": expected one of `http`, `https`, `tls`, `tcp`, `udp`
"#,
    );
}

#[test]
fn fields() {
    refuses(
        Kind::EgressRule,
        r"
{ports: [{port: 80, protocol: http}]} => spec.destination: absent: expected a map with `service`
{destination: {service: a.b}} => spec.ports: absent: expected a list of port and protocol
{destination: {service: a.b}, ports: []} => spec.ports: []: expected at least one port
{destination: {service: a.b}, ports: [{port: 80}]} => spec.ports[0].protocol: absent: expected one of `http`
",
    );
    let spec = "{destination: {service: 10.0.0.1}, ports: [{port: 80, protocol: http}], @}";
    refuses_in(
        Kind::EgressRule,
        spec,
        "spec.source.",
        r#"
source: {name: a} => name: "a": expected no field of this name; known here: namespace, labels
source: {namespace: A} => namespace: "A": expected a name
source: {labels: a} => labels: "a": expected a map
"#,
    );
    refuses_in(
        Kind::EgressRule,
        spec,
        "spec.useEgressProxy: ",
        r"
useEgressProxy: true => true: expected false: there is no egress proxy but weir itself
",
    );
    accepted(
        Kind::EgressRule,
        &spec.replace('@', "useEgressProxy: false, source: {namespace: b}"),
    );
    let spec = "{destination: {service: 10.0.0.1, @}, ports: [{port: 80, protocol: http}]}";
    refuses_in(
        Kind::EgressRule,
        spec,
        "spec.destination.",
        r#"
labels: {a: b} => labels: {…}: expected no `labels`: an external destination is given by `service` alone
name: a => name: "a": expected no `name`: an external destination is given by `service` alone
"#,
    );
    let spec = "{destination: {service: 10.0.0.1}, ports: [{port: 80, protocol: http}, @]}";
    refuses_in(
        Kind::EgressRule,
        spec,
        "spec.ports",
        r"
{port: 80, protocol: udp}, {port: 80, protocol: udp} => : […]: expected each port once, with one protocol of TCP and one of UDP; 80 is there twice
{port: 80, protocol: tcp} => : […]: expected each port once, with one protocol of TCP and one of UDP; 80 is there twice
{port: 81, protocol: tcp, name: 1} => [1].name: 1: expected no field of this name; known here: port, protocol
",
    );
}
