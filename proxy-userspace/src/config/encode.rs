//! Objects as canonical documents: defaults filled in, one spelling for each
//! value. Whatever is written here, `decode` must read back to the same object.

use std::time::Duration;

use proxy_common::{EgressDefault, OnProxyDown};
use serde_json::{Map, Value, json};

use super::Kind;
use super::object::{
    AppProtocol, EgressProtocol, EgressRule, EgressTarget, Labels, MeshConfig, ObjectName, Route,
    RouteRule, Service, ServicePort, SourceMatch, StringMatch, Workload,
};

pub(super) fn service(service: &Service) -> Value {
    let Service {
        name,
        labels,
        cluster_ips,
        network,
        ports,
        selector,
    } = service;
    let mut spec = Map::new();
    if !cluster_ips.is_empty() {
        spec.insert("clusterIPs".into(), json!(cluster_ips));
    }
    put_network(&mut spec, network);
    spec.insert("ports".into(), ports.iter().map(service_port).collect());
    put_labels(&mut spec, "selector", selector);
    document(Kind::Service, name, labels, spec)
}

fn service_port(port: &ServicePort) -> Value {
    let ServicePort {
        name,
        port,
        target_port,
        protocol,
    } = port;
    let mut fields = Map::new();
    if let Some(name) = name {
        fields.insert("name".into(), json!(name));
    }
    fields.insert("port".into(), json!(port.0));
    fields.insert("targetPort".into(), json!(target_port.0));
    let declared = match protocol {
        AppProtocol::Detect => None,
        AppProtocol::Http => Some("http"),
        AppProtocol::Tcp => Some("tcp"),
        AppProtocol::Udp => {
            fields.insert("protocol".into(), json!("UDP"));
            None
        }
    };
    if let Some(declared) = declared {
        fields.insert("appProtocol".into(), json!(declared));
    }
    Value::Object(fields)
}

pub(super) fn workload(workload: &Workload) -> Value {
    let Workload {
        name,
        labels,
        addresses,
        ready,
        network,
        node,
        local,
        accelerate,
    } = workload;
    let mut spec = Map::new();
    spec.insert("addresses".into(), json!(addresses));
    spec.insert("ready".into(), json!(ready));
    put_network(&mut spec, network);
    if let Some(node) = node {
        spec.insert("node".into(), json!(node));
    }
    if let Some(local) = local {
        spec.insert("netns".into(), json!(local.netns.to_string_lossy()));
        spec.insert("cgroup".into(), json!(local.cgroup.to_string_lossy()));
        spec.insert("enrolled".into(), json!(local.enrolled));
    }
    if let Some(accelerate) = accelerate {
        spec.insert("accelerate".into(), json!(accelerate.name()));
    }
    document(Kind::Workload, name, labels, spec)
}

pub(super) fn route_rule(rule: &RouteRule) -> Value {
    let RouteRule {
        name,
        labels,
        destination,
        precedence,
        source,
        request,
        routes,
    } = rule;
    let mut spec = Map::new();
    spec.insert(
        "destination".into(),
        json!({ "namespace": destination.namespace, "name": destination.name }),
    );
    spec.insert("precedence".into(), json!(precedence));
    let mut condition = Map::new();
    if let Some(SourceMatch { service, labels }) = source {
        let mut fields = Map::new();
        if let Some(service) = service {
            fields.insert("name".into(), json!(service.name));
        }
        put_labels(&mut fields, "labels", labels);
        condition.insert("source".into(), Value::Object(fields));
    }
    if !request.is_empty() {
        let headers: Map<_, _> = request
            .iter()
            .map(|(field, value)| (field.to_string(), string_match(value)))
            .collect();
        condition.insert("request".into(), json!({ "headers": headers }));
    }
    if !condition.is_empty() {
        spec.insert("match".into(), Value::Object(condition));
    }
    spec.insert("route".into(), routes.iter().map(route).collect());
    document(Kind::RouteRule, name, labels, spec)
}

fn string_match(value: &StringMatch) -> Value {
    let (key, text) = value.as_written();
    json!({ key: text })
}

fn route(route: &Route) -> Value {
    let Route { labels, weight } = route;
    let mut fields = Map::new();
    put_labels(&mut fields, "labels", labels);
    fields.insert("weight".into(), json!(weight));
    Value::Object(fields)
}

pub(super) fn egress_rule(rule: &EgressRule) -> Value {
    let EgressRule {
        name,
        labels,
        target,
        ports,
        source,
    } = rule;
    let ports: Value = ports
        .iter()
        .map(|(port, protocol)| {
            let protocol = match protocol {
                EgressProtocol::Http => "http",
                EgressProtocol::Tcp => "tcp",
                EgressProtocol::Udp => "udp",
            };
            json!({ "port": port.0, "protocol": protocol })
        })
        .collect();
    let mut spec = Map::new();
    spec.insert(
        "destination".into(),
        json!({ "service": target.to_string() }),
    );
    spec.insert("ports".into(), ports);
    let mut from = Map::new();
    if let Some(namespace) = &source.namespace {
        from.insert("namespace".into(), json!(namespace));
    }
    put_labels(&mut from, "labels", &source.labels);
    if !from.is_empty() {
        spec.insert("source".into(), Value::Object(from));
    }
    document(Kind::EgressRule, name, labels, spec)
}

pub(super) fn mesh_config(config: &MeshConfig) -> Value {
    let MeshConfig {
        name,
        labels,
        egress,
        on_proxy_down,
        access_log,
        header_timeout,
    } = config;
    let mut spec = Map::new();
    if let Some(egress) = egress {
        let word = match egress {
            EgressDefault::Deny => "deny",
            EgressDefault::Allow => "allow",
            EgressDefault::Audit => "audit",
        };
        spec.insert("egress".into(), json!(word));
    }
    if let Some(down) = on_proxy_down {
        let word = match down {
            OnProxyDown::Closed => "closed",
            OnProxyDown::Open => "open",
        };
        spec.insert("onProxyDown".into(), json!(word));
    }
    if let Some(access_log) = access_log {
        spec.insert("accessLog".into(), json!(access_log));
    }
    if let Some(timeout) = header_timeout {
        spec.insert("headerTimeout".into(), json!(duration(*timeout)));
    }
    document(Kind::MeshConfig, name, labels, spec)
}

/// Whole seconds as `10s`, everything else as `1500ms`.
fn duration(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", duration.as_millis())
    }
}

fn put_network(spec: &mut Map<String, Value>, network: &str) {
    if !network.is_empty() {
        spec.insert("network".into(), json!(network));
    }
}

fn put_labels(fields: &mut Map<String, Value>, key: &str, labels: &Labels) {
    if !labels.is_empty() {
        fields.insert(key.into(), json!(labels));
    }
}

fn document(kind: Kind, name: &ObjectName, labels: &Labels, spec: Map<String, Value>) -> Value {
    let mut metadata = Map::new();
    metadata.insert("name".into(), json!(name.name));
    metadata.insert("namespace".into(), json!(name.namespace));
    put_labels(&mut metadata, "labels", labels);
    let fields = [
        ("apiVersion", json!(kind.api_version())),
        ("kind", json!(kind.as_str())),
        ("metadata", Value::Object(metadata)),
        ("spec", Value::Object(spec)),
    ];
    fields
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

impl std::fmt::Display for EgressTarget {
    /// As `destination.service` writes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host(host) => f.write_str(host),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
            Self::Net(addr, prefix) => {
                let full = if addr.is_ipv4() { 32 } else { 128 };
                if *prefix == full {
                    write!(f, "{addr}")
                } else {
                    write!(f, "{addr}/{prefix}")
                }
            }
        }
    }
}
