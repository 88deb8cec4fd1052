//! Services and workloads.

use super::{Kind, Object, accepted, refuses, warns};
use crate::config::object::AppProtocol;

#[test]
fn a_service_tells_its_protocols() {
    for (port, expected, warning) in [
        ("{port: 80}", AppProtocol::Detect, None),
        ("{port: 80, name: web}", AppProtocol::Detect, None),
        ("{port: 80, name: http}", AppProtocol::Http, None),
        ("{port: 80, name: http-admin}", AppProtocol::Http, None),
        (
            "{port: 80, name: http3, protocol: UDP}",
            AppProtocol::Udp,
            None,
        ),
        (
            "{port: 80, name: http-x, protocol: UDP}",
            AppProtocol::Udp,
            None,
        ),
        ("{port: 80, name: httpfoo}", AppProtocol::Detect, None),
        (
            "{port: 80, name: tcp-x, appProtocol: HTTP}",
            AppProtocol::Http,
            None,
        ),
        ("{port: 80, name: tls}", AppProtocol::Tcp, None),
        ("{port: 80, appProtocol: https}", AppProtocol::Tcp, None),
        ("{port: 80, name: redis}", AppProtocol::Tcp, None),
        (
            "{port: 80, name: grpc-api}",
            AppProtocol::Tcp,
            Some("spec.ports[0]: http2 and grpc are balanced"),
        ),
        (
            "{port: 80, appProtocol: http2}",
            AppProtocol::Tcp,
            Some("spec.ports[0].appProtocol: http2 and grpc"),
        ),
        (
            "{port: 80, appProtocol: kubernetes.io/h2c}",
            AppProtocol::Tcp,
            Some("spec.ports[0].appProtocol: http2"),
        ),
        (
            "{port: 80, name: http, appProtocol: x.io/y}",
            AppProtocol::Http,
            Some("spec.ports[0].appProtocol: a protocol"),
        ),
    ] {
        let (object, warnings) = accepted(Kind::Service, &format!("{{ports: [{port}]}}"));
        let Object::Service(service) = object else {
            panic!("a Service")
        };
        assert_eq!(service.ports[0].protocol, expected, "{port}");
        assert_eq!(
            service.ports[0].target_port, service.ports[0].port,
            "{port}"
        );
        match warning {
            None => assert!(warnings.is_empty(), "{port}: {warnings:?}"),
            Some(text) => assert!(warnings[0].contains(text), "{port}: {warnings:?}"),
        }
    }
}

#[test]
fn services() {
    warns(
        Kind::Service,
        r"
{ports: [{port: 53, protocol: SCTP}]} => spec.ports[0]: only TCP and UDP are governed in this version
{sessionAffinity: ClientIP} => spec.sessionAffinity: session affinity is not kept
{ports: [{port: 80, nodePort: 30080}]} => spec.ports[0]: fields not used by weir, left out: `nodePort`
",
    );
    refuses(
        Kind::Service,
        r#"
{clusterIPs: ['fe80::1']} => spec.clusterIPs[0]: "fe80::1": expected an address that one host
{clusterIPs: ['::1']} => spec.clusterIPs[0]: "::1": expected an address that one host
{clusterIPs: ['ff02::1']} => spec.clusterIPs[0]: "ff02::1": expected an address that one host
{clusterIPs: ['fd00::1', 'FD00:0::1']} => spec.clusterIPs: […]: expected each address once; fd00::1
{clusterIPs: [10.0.0.1, '::ffff:10.0.0.1']} => spec.clusterIPs: […]: expected each address once; 10.0.0.1
{clusterIP: 127.0.0.1} => spec.clusterIP: "127.0.0.1": expected an address that one host
{clusterIPs: [10.0.0.300]} => spec.clusterIPs[0]: "10.0.0.300": expected an IP address
{clusterIPs: [10.0.0.1, 10.0.0.1]} => spec.clusterIPs: […]: expected each address once; 10.0.0.1
{clusterIP: 10.0.0.2, clusterIPs: [10.0.0.1]} => spec.clusterIP: "10.0.0.2": expected an address that is in
{ports: [{}]} => spec.ports[0].port: absent: expected a port number
{ports: [{port: 0}]} => spec.ports[0].port: 0: expected a whole number from 1 to 65535
{ports: [{port: '80'}]} => spec.ports[0].port: "80": expected a whole number
{ports: [{port: 80, targetPort: web}]} => spec.ports[0].targetPort: "web": expected a port number: a Work
{ports: [{port: 80, protocol: tcp}]} => spec.ports[0].protocol: "tcp": expected one of `TCP`, `UDP`
{ports: [{port: 80}, {port: 80, name: b}]} => spec.ports: […]: expected each port of TCP and of UDP once; 80 of tcp
{ports: [{port: 53, protocol: UDP, name: a}, {port: 53, protocol: UDP}]} => spec.ports: […]: expected each port of TCP and of UDP once; 53 of udp
{ports: [{port: 80, name: a}, {port: 81, name: a}]} => spec.ports: […]: expected each port name once; `a`
{ports: [{port: 80, name: A}]} => spec.ports[0].name: "A": expected a port name
{selector: {matchLabels: {a: b}}} => spec.selector.matchLabels: {…}: expected a string
{port: 80} => spec.port: 80: expected no field of this name; did you mean `ports`?
"#,
    );
    let (headless, warnings) = accepted(
        Kind::Service,
        "{clusterIP: None, clusterIPs: [None], ports: null}",
    );
    assert!(
        matches!(headless, Object::Service(service) if service.cluster_ips.is_empty())
            && warnings.is_empty()
    );
}

#[test]
fn workloads() {
    warns(
        Kind::Workload,
        r"
{addresses: ['::ffff:10.0.0.1', 'fd00::1']} => spec.addresses[0]: taken for the IPv4 address that it maps, 10.0.0.1
",
    );
    refuses(
        Kind::Workload,
        r#"
{} => spec: {}: expected addresses, or netns and cgroup of a workload of this node
{addresses: [10.0.0.1, 10.0.0.1]} => spec.addresses: […]: expected each address once
{addresses: [pod]} => spec.addresses[0]: "pod": expected an IP address
{addresses: [224.0.0.1]} => spec.addresses[0]: "224.0.0.1": expected an address that one host
{addresses: [10.0.0.1], ready: yes} => spec.ready: "yes": expected true or false
{addresses: [10.0.0.1], enrolled: false} => spec.enrolled: false: expected no `enrolled` without netns and
{netns: /run/netns/a} => spec.netns: "/run/netns/a": expected cgroup beside netns
{cgroup: /sys/fs/cgroup/a} => spec.cgroup: "/sys/fs/cgroup/a": expected netns beside cgroup
{netns: a, cgroup: /c} => spec.netns: "a": expected an absolute path
{netns: /a/../b, cgroup: /c} => spec.netns: "/a/../b": expected an absolute path without `..`
{addresses: [10.0.0.1], node: Node_1} => spec.node: "Node_1": expected a node's name
{addresses: [10.0.0.1], network: 'a b'} => spec.network: "a b": expected a name
{addresses: 10.0.0.1} => spec.addresses: "10.0.0.1": expected a list
"#,
    );
}
