//! What holds for every object and every text: a document of an object is
//! that object again, in JSON and in YAML, and no input makes weir panic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proxy_common::{Acceleration, EgressDefault, OnProxyDown, Port};
use serde_json::{Map, Value, json};

use super::object::{
    AppProtocol, EgressProtocol, EgressRule, EgressSource, EgressTarget, Labels, LocalPod,
    MeshConfig, RequestField, Route, RouteRule, Service, ServicePort, SourceMatch, StringMatch,
    Workload,
};
use super::{Object, ObjectName, Source, name, parse, parse_value, to_yaml};

/// One label of a name; words that YAML has other ideas about included.
fn label() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]([-a-z0-9]{0,8}[a-z0-9])?",
        Just("null".into()),
        Just("true".into()),
        Just("1e3".into()),
        Just("0".into())
    ]
}

fn object_name() -> impl Strategy<Value = ObjectName> {
    (label(), label()).prop_map(|(namespace, name)| ObjectName::new(&namespace, &name))
}

fn labels() -> impl Strategy<Value = Labels> {
    btree_map(
        "([a-z]{1,5}\\.io/)?[A-Za-z]([-A-Za-z0-9_.]{0,5}[A-Za-z0-9])?",
        "([A-Za-z0-9]([-A-Za-z0-9_.]{0,5}[A-Za-z0-9])?)?",
        0..4,
    )
}

/// Addresses that hosts can have.
fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = (0x0100_0000_u32..0x7f00_0000).prop_map(|bits| Ipv4Addr::from_bits(bits).into());
    let v6 = (0x2000_u128 << 112..0x4000 << 112).prop_map(|bits| Ipv6Addr::from_bits(bits).into());
    prop_oneof![v4, v6]
}

fn addresses() -> impl Strategy<Value = Vec<IpAddr>> {
    btree_set(address(), 1..4).prop_map(|set| set.into_iter().collect())
}

fn port() -> impl Strategy<Value = Port> {
    (1_u16..).prop_map(Port)
}

fn network() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), label()]
}

fn service() -> impl Strategy<Value = Object> {
    let protocol = prop_oneof![
        Just(AppProtocol::Detect),
        Just(AppProtocol::Http),
        Just(AppProtocol::Tcp)
    ];
    let ports = btree_map((port(), any::<bool>()), (port(), protocol), 0..4).prop_map(|ports| {
        let port = |(index, ((port, is_udp), (target_port, protocol)))| ServicePort {
            // No word that tells a protocol, and each name once.
            name: (index > 0).then(|| format!("x{index}")),
            port,
            target_port,
            protocol: if is_udp { AppProtocol::Udp } else { protocol },
        };
        ports.into_iter().enumerate().map(port).collect()
    });
    (
        object_name(),
        labels(),
        prop_oneof![Just(Vec::new()), addresses()],
        network(),
        ports,
        labels(),
    )
        .prop_map(|(name, labels, cluster_ips, network, ports, selector)| {
            Object::Service(Arc::new(Service {
                name,
                labels,
                cluster_ips,
                network,
                ports,
                selector,
            }))
        })
}

fn workload() -> impl Strategy<Value = Object> {
    let local = ("/[a-z ]{1,9}", "(/[a-zä:#]{1,5}){1,3}", any::<bool>()).prop_map(
        |(netns, cgroup, enrolled)| LocalPod {
            netns: PathBuf::from(netns),
            cgroup: PathBuf::from(cgroup),
            enrolled,
        },
    );
    (
        object_name(),
        labels(),
        addresses(),
        any::<bool>(),
        network(),
        option::of(label()),
        option::of((local, option::of(acceleration()))),
    )
        .prop_map(|(name, labels, addresses, ready, network, node, local)| {
            let (local, accelerate) = local.unzip();
            Object::Workload(Arc::new(Workload {
                name,
                labels,
                addresses,
                ready,
                network,
                node,
                local,
                accelerate: accelerate.flatten(),
            }))
        })
}

fn acceleration() -> impl Strategy<Value = Acceleration> {
    prop_oneof![
        Just(Acceleration::Off),
        Just(Acceleration::Auto),
        Just(Acceleration::Force),
    ]
}

fn string_match() -> impl Strategy<Value = StringMatch> {
    prop_oneof![
        any::<String>().prop_map(StringMatch::Exact),
        "[ -~\\t\\n]{0,40}".prop_map(StringMatch::Prefix),
        "[a-z.]{0,5}(\\(x\\|y\\)|\\[0-9\\]|\\\\d)?\\*?[a-z]"
            .prop_filter_map("compiles", |text| StringMatch::regex(&text).ok()),
    ]
}

fn route_rule() -> impl Strategy<Value = Object> {
    let source = (option::of(label()), labels())
        .prop_filter("asks for something", |(name, labels)| {
            name.is_some() || !labels.is_empty()
        });
    let request = btree_map(
        "(uri|method|authority|scheme|[a-z]([-a-z0-9]{0,6}[a-z0-9])?)",
        string_match(),
        0..4,
    );
    let routes = vec((labels(), 0_u32..50), 1..4);
    (
        object_name(),
        option::of(object_name()),
        any::<i32>(),
        option::of(source),
        request,
        routes,
        labels(),
    )
        .prop_map(
            |(name, destination, precedence, source, request, routes, of_rule)| {
                let source = source.map(|(service, labels)| SourceMatch {
                    service: service.map(|service| ObjectName::new(name.namespace(), &service)),
                    labels,
                });
                let mut request: Vec<_> = request
                    .into_iter()
                    .map(|(field, value)| (request_field(&field), value))
                    .collect();
                request.sort_by(|(a, _), (b, _)| a.cmp(b));
                let mut routes: Vec<_> = routes
                    .into_iter()
                    .map(|(labels, weight)| Route {
                        labels,
                        weight: weight / 2,
                    })
                    .collect();
                let rest = 100 - routes.iter().skip(1).map(|route| route.weight).sum::<u32>();
                routes[0].weight = rest;
                let destination = destination.unwrap_or_else(|| name.clone());
                Object::RouteRule(Arc::new(RouteRule {
                    name,
                    labels: of_rule,
                    destination,
                    precedence,
                    source,
                    request,
                    routes,
                }))
            },
        )
}

fn request_field(name: &str) -> RequestField {
    match name {
        "uri" => RequestField::Uri,
        "method" => RequestField::Method,
        "authority" => RequestField::Authority,
        "scheme" => RequestField::Scheme,
        other => RequestField::Header(other.to_owned()),
    }
}

fn egress_rule() -> impl Strategy<Value = Object> {
    let host = "[a-z]{1,5}(\\.[a-z]{2,5}){0,2}";
    let net = (address(), 0_u8..=128).prop_map(|(addr, length)| {
        let length = if addr.is_ipv4() { length % 33 } else { length };
        EgressTarget::Net(name::network(addr, length), length)
    });
    let target = prop_oneof![
        host.prop_map(EgressTarget::Host),
        host.prop_map(EgressTarget::Wildcard),
        net
    ];
    let protocol = prop_oneof![
        Just(EgressProtocol::Http),
        Just(EgressProtocol::Tcp),
        Just(EgressProtocol::Udp)
    ];
    let ports = btree_map(port(), protocol, 1..4);
    (object_name(), labels(), target, ports, option::of(label()), labels())
        .prop_filter("0.0.0.0 alone is no destination", |(_, _, target, ..)| {
            !matches!(target, EgressTarget::Net(addr, 32) if addr.is_unspecified())
        })
        .prop_map(|(name, of_rule, target, ports, namespace, labels)| {
            let protocol = |protocol| match target {
                EgressTarget::Net(..) => protocol,
                _ => EgressProtocol::Http,
            };
            let ports = ports.into_iter().map(|(port, of)| (port, protocol(of))).collect();
            let source = EgressSource { namespace, labels };
            Object::EgressRule(Arc::new(EgressRule { name, labels: of_rule, target, ports, source }))
        })
}

fn mesh_config() -> impl Strategy<Value = Object> {
    let egress = prop_oneof![
        Just(EgressDefault::Deny),
        Just(EgressDefault::Allow),
        Just(EgressDefault::Audit)
    ];
    let down = prop_oneof![Just(OnProxyDown::Closed), Just(OnProxyDown::Open)];
    let timeout = (1_u64..=3_600_000).prop_map(Duration::from_millis);
    (
        label(),
        labels(),
        option::of(egress),
        option::of(down),
        option::of(any::<bool>()),
        option::of(timeout),
    )
        .prop_map(
            |(name, labels, egress, on_proxy_down, access_log, header_timeout)| {
                let name = ObjectName::new("default", &name);
                Object::MeshConfig(Arc::new(MeshConfig {
                    name,
                    labels,
                    egress,
                    on_proxy_down,
                    access_log,
                    header_timeout,
                }))
            },
        )
}

fn object() -> impl Strategy<Value = Object> {
    prop_oneof![
        service(),
        workload(),
        route_rule(),
        egress_rule(),
        mesh_config()
    ]
}

/// JSON of any shape, with weir's own words in it often enough to get somewhere.
fn json() -> impl Strategy<Value = Value> {
    let words = prop::sample::select(vec![
        "apiVersion",
        "kind",
        "metadata",
        "spec",
        "name",
        "namespace",
        "labels",
        "route",
        "weight",
        "match",
        "request",
        "headers",
        "uri",
        "exact",
        "regex",
        "destination",
        "service",
        "ports",
        "port",
        "protocol",
        "source",
        "addresses",
        "clusterIPs",
        "selector",
        "egress",
        "items",
        "weir.dev/v1",
        "v1",
        "config.istio.io/v1alpha2",
        "Service",
        "Workload",
        "RouteRule",
        "EgressRule",
        "MeshConfig",
        "List",
        "http",
        "10.0.0.1",
        "default",
        "(",
        "",
    ]);
    let word = prop_oneof![4 => words.prop_map(str::to_owned), 1 => any::<String>()];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::Array),
            vec((word.clone(), inner), 0..7)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #[test]
    fn a_document_of_an_object_is_that_object(object in object()) {
        let document = object.to_json();
        let from_json = parse_value("x", &document).map_err(|mistakes| TestCaseError::fail(mistakes.to_string()))?;
        prop_assert_eq!(&*from_json.objects, std::slice::from_ref(&object));
        prop_assert!(from_json.warnings.is_empty(), "canonical, so nothing is odd: {:?}", from_json.warnings);
        for text in [document.to_string(), to_yaml(&document)] {
            let parsed = parse(&[Source::new("x", &*text)]).map_err(|mistakes| TestCaseError::fail(format!("{mistakes}\n{text}")))?;
            prop_assert_eq!(&*parsed.objects, std::slice::from_ref(&object), "{}", text);
        }
    }

    #[test]
    fn any_tree_is_refused_or_taken_without_a_panic(kind in "(Service|Workload|RouteRule|EgressRule|MeshConfig|List|[A-Z])", value in json()) {
        let version = kind.parse::<super::Kind>().map_or("v1", super::Kind::api_version);
        let document = json!({ "apiVersion": version, "kind": kind, "metadata": { "name": "a" }, "spec": value, "items": [value] });
        for value in [&value, &document] {
            if let Ok(parsed) = parse_value("x", value) {
                for object in parsed.objects {
                    prop_assert_eq!(&parse_value("x", &object.to_json()).unwrap().objects, &[object]);
                }
            }
        }
    }

    #[test]
    fn any_text_is_refused_or_taken_without_a_panic(text in any::<String>(), yaml in "[a-z&*!|>%@:,?{}\\[\\]'\"#~. \n\t-]{0,80}", tree in json()) {
        let cut = to_yaml(&tree);
        let middle = cut.char_indices().nth(cut.chars().count() / 2).map_or(0, |(index, _)| index);
        for text in [&text, &yaml, &cut, &cut[middle..], &cut[..middle]] {
            let _either = parse(&[Source::new("x", text)]);
        }
    }
}
