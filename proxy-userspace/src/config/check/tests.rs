//! Objects that contradict each other, and those that are only odd.

use crate::config::{Kind, ObjectName, Objects, Source, parse};

/// The set that this YAML, in flow style and one object a line, makes up.
fn objects(lines: &[&str]) -> Objects {
    let text = lines
        .iter()
        .map(|line| document(line))
        .collect::<Vec<_>>()
        .join("\n---\n");
    let parsed = parse(&[Source::new("f", text)]).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let mut objects = Objects::default();
    for object in parsed.objects {
        objects.upsert(object);
    }
    objects
}

/// From `Service ns/name {spec}` or, with labels, `Workload ns/name {labels} {spec}`.
fn document(line: &str) -> String {
    let (kind, rest) = line.split_once(' ').unwrap();
    let (name, rest) = rest.split_once(' ').unwrap();
    let (namespace, name) = name.split_once('/').unwrap();
    let (labels, spec) = rest
        .split_once("} {")
        .map_or(("{}".into(), rest.to_owned()), |(labels, spec)| {
            (format!("{labels}}}"), format!("{{{spec}"))
        });
    let version = kind.parse::<Kind>().unwrap().api_version();
    let meta = format!("{{namespace: {namespace}, name: {name}, labels: {labels}}}");
    format!("{{apiVersion: {version}, kind: {kind}, metadata: {meta}, spec: {spec}}}")
}

fn mistakes(lines: &[&str]) -> Vec<String> {
    match objects(lines).check(&Objects::default()) {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes.mistakes.iter().map(ToString::to_string).collect(),
    }
}

fn warnings(lines: &[&str]) -> Vec<String> {
    let warnings = objects(lines)
        .check(&Objects::default())
        .unwrap_or_else(|mistakes| panic!("{mistakes}"));
    warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn an_address_and_port_belong_to_one_service() {
    let a = "Service default/a {clusterIPs: [10.0.0.1], ports: [{port: 80}]}";
    assert_eq!(
        mistakes(&[
            a,
            "Service default/b {clusterIPs: [10.0.0.1], ports: [{port: 80}]}"
        ]),
        [
            "Service default/b: spec.clusterIPs: 10.0.0.1 port 80: expected an address and port of its own: Service default/a has both too"
        ]
    );
    for other in [
        "Service default/b {clusterIPs: [10.0.0.1], ports: [{port: 81}]}",
        "Service default/b {clusterIPs: [10.0.0.2], ports: [{port: 80}]}",
        "Service default/b {network: other, clusterIPs: [10.0.0.1], ports: [{port: 80}]}",
    ] {
        assert!(mistakes(&[a, other]).is_empty(), "{other}");
    }
}

#[test]
fn an_address_belongs_to_one_workload() {
    let a = "Workload default/a {addresses: [10.1.0.1]}";
    assert_eq!(
        mistakes(&[a, "Workload default/b {addresses: [10.1.0.2, 10.1.0.1]}"]),
        [
            "Workload default/b: spec.addresses: 10.1.0.1: expected an address of its own: Workload default/a has it too; put one in another `network`"
        ]
    );
    assert!(
        mistakes(&[
            a,
            "Workload default/b {network: other, addresses: [10.1.0.1]}"
        ])
        .is_empty()
    );
}

#[test]
fn a_virtual_address_is_no_workloads() {
    let pod = "Workload default/a {addresses: [10.1.0.1]}";
    assert_eq!(
        mistakes(&[pod, "Service default/s {clusterIPs: [10.1.0.1]}"]),
        [
            "Service default/s: spec.clusterIPs: 10.1.0.1: expected a virtual address: it is that of Workload default/a"
        ]
    );
    assert!(
        mistakes(&[
            pod,
            "Service default/s {network: other, clusterIPs: [10.1.0.1]}"
        ])
        .is_empty()
    );
}

#[test]
fn bytes_cannot_be_matched_as_requests() {
    let rule = "RouteRule default/r {destination: {name: s}, route: [{}], match: {request: {headers: {uri: {prefix: /}}}}}";
    let service =
        |ports: &str| format!("Service default/s {{clusterIPs: [10.0.0.1], ports: [{ports}]}}");
    let of = |ports: &str| mistakes(&[&service(ports), rule]);
    assert_eq!(
        of("{port: 80, name: tcp}, {port: 81, name: tls}"),
        [
            "RouteRule default/r: spec.match.request: Service default/s has ports for tcp, tls or UDP only: expected no match on the request, or a port that carries HTTP"
        ]
    );
    for ports in [
        "",
        "{port: 80}",
        "{port: 80, name: http}",
        "{port: 80, name: tcp}, {port: 81, name: http}",
    ] {
        assert!(of(ports).is_empty(), "{ports}");
    }
    assert!(
        mistakes(&[
            &service("{port: 80, name: tcp}"),
            "RouteRule default/r {destination: {name: s}, route: [{}]}"
        ])
        .is_empty()
    );
}

#[test]
fn an_external_address_and_port_has_one_protocol() {
    let rule = |place: &str, service: &str, port: u16, protocol: &str, source: &str| {
        format!(
            "EgressRule {place} {{destination: {{service: '{service}'}}, ports: [{{port: {port}, protocol: {protocol}}}], source: {source}}}"
        )
    };
    let http = rule("default/a", "10.0.0.0/8", 80, "http", "{}");
    for (other, conflict) in [
        (rule("default/b", "10.0.0.0/8", 80, "tcp", "{}"), true),
        (rule("default/b", "10.1.2.3", 80, "tcp", "{}"), true),
        (rule("default/b", "10.1.0.0/16", 80, "tls", "{}"), true),
        (rule("default/b", "0.0.0.0/0", 80, "tcp", "{}"), true),
        (rule("default/b", "10.0.0.0/8", 80, "http", "{}"), false),
        (rule("default/b", "10.0.0.0/8", 81, "tcp", "{}"), false),
        (rule("default/b", "11.0.0.0/8", 80, "tcp", "{}"), false),
        (rule("default/b", "foo.com", 80, "http", "{}"), false),
        (rule("other/b", "10.0.0.0/8", 80, "tcp", "{}"), false),
        (
            rule("other/b", "10.0.0.0/8", 80, "tcp", "{namespace: default}"),
            true,
        ),
        (
            rule("default/b", "10.0.0.0/8", 80, "tcp", "{labels: {app: b}}"),
            true,
        ),
    ] {
        assert_eq!(
            mistakes(&[&http, &other]).len(),
            usize::from(conflict),
            "{other}"
        );
    }
    let of_a = rule("default/a", "10.0.0.0/8", 80, "http", "{labels: {app: a}}");
    let of_b = rule("default/b", "10.0.0.0/8", 80, "tcp", "{labels: {app: b}}");
    assert!(
        mistakes(&[&of_a, &of_b]).is_empty(),
        "no workload has both labels"
    );
    assert_eq!(
        mistakes(&[&http, &rule("default/b", "10.1.2.3", 80, "tcp", "{}")]),
        [
            "EgressRule default/a: spec.ports: 10.0.0.0/8 port 80 as http: expected one protocol for an address and port: EgressRule default/b opens 10.1.2.3 port 80 as tcp"
        ]
    );
}

#[test]
fn prefixes_beside_each_other_do_not_meet() {
    let rule = |name: &str, service: &str, protocol: &str| {
        format!(
            "EgressRule default/{name} {{destination: {{service: '{service}'}}, ports: [{{port: 80, protocol: {protocol}}}]}}"
        )
    };
    // A sibling between the wide prefix and the narrow one it covers.
    let lines = [
        rule("a", "10.0.0.0/8", "http"),
        rule("b", "10.1.0.0/16", "http"),
        rule("c", "10.2.0.0/16", "tcp"),
    ];
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    let said = mistakes(&lines);
    assert_eq!(said.len(), 1);
    assert!(
        said[0].contains("10.0.0.0/8 port 80 as http")
            && said[0].contains("10.2.0.0/16 port 80 as tcp"),
        "{said:?}"
    );
}

const SERVICE: &str =
    "Service default/s {clusterIPs: [10.0.0.1], selector: {app: s}, ports: [{port: 80}]}";
const READY: &str = "Workload default/w1 {app: s, version: v1} {addresses: [10.1.0.1]}";

#[test]
fn a_route_to_nobody_is_warned_about() {
    let rule = |labels: &str| {
        format!("RouteRule default/r {{destination: {{name: s}}, route: [{{labels: {labels}}}]}}")
    };
    let of = |workload: &str, labels: &str| warnings(&[SERVICE, workload, &rule(labels)]);
    assert!(of(READY, "{version: v1}").is_empty());
    assert!(of(READY, "{}").is_empty());
    assert_eq!(
        of(READY, "{version: v2}"),
        [
            "RouteRule default/r: spec.route[0].labels: no ready endpoint of Service default/s has the labels version=v2: 100 % of what the rule matches gets 503, or is refused on a port for tcp, tls or UDP"
        ]
    );
    for other in [
        "Workload default/w1 {app: s, version: v1} {addresses: [10.1.0.1], ready: false}",
        "Workload other/w1 {app: s, version: v1} {addresses: [10.1.0.1]}",
        "Workload default/w1 {app: s, version: v1} {addresses: [10.1.0.1], network: other}",
        "Workload default/w1 {app: t, version: v1} {addresses: [10.1.0.1]}",
    ] {
        assert_eq!(of(other, "{version: v1}").len(), 1, "{other}");
    }
}

#[test]
fn oddities_are_warned_about() {
    for (lines, expected) in [
        (
            vec!["RouteRule default/r {destination: {name: gone}, route: [{}]}"],
            "RouteRule default/r: spec.destination: there is no Service default/gone; the rule waits for it",
        ),
        (
            vec!["Service default/s {selector: {app: s}}"],
            "Service default/s: spec.clusterIPs: no virtual address: nothing can be dialled to reach it through weir",
        ),
        (
            vec!["MeshConfig default/shop {egress: allow}"],
            "MeshConfig default/shop: metadata.name: nothing is in a namespace `shop`, which it is for",
        ),
        (
            vec![
                SERVICE,
                READY,
                "RouteRule default/a {destination: {name: s}, route: [{}]}",
                "RouteRule default/b {destination: {name: s}, route: [{}]}",
            ],
            "RouteRule default/b: spec.precedence: precedence 0 is that of RouteRule default/a too: by name that one is tried first",
        ),
    ] {
        assert_eq!(warnings(&lines), [expected]);
    }
    for fine in [
        "MeshConfig default/default {}",
        "MeshConfig default/shop {}",
    ] {
        assert!(
            warnings(&["Workload shop/w {addresses: [10.1.0.1]}", fine]).is_empty(),
            "{fine}"
        );
    }
}

#[test]
fn counts_are_bounded() {
    let mut all = objects(&[SERVICE]);
    let service = all.services.values().next().cloned().unwrap();
    for number in 0..super::SERVICES_MAX {
        let name = ObjectName::new("many", &format!("s{number}"));
        all.services.insert(name, service.clone());
    }
    assert_eq!(
        all.check(&Objects::default()).unwrap_err().to_string(),
        "services: 50001: expected at most 50000 on one node"
    );
}
