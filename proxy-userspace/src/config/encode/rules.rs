//! The `spec` of rules.

use std::collections::BTreeMap;
use std::time::Duration;

use proxy_common::{EgressDefault, OnProxyDown};
use serde::{Serialize, Serializer};

use crate::config::object::{
    EgressProtocol, EgressRule, EgressSource, EgressTarget, Labels, MeshConfig, ObjectName, Route,
    RouteRule, SourceMatch, StringMatch,
};

#[derive(Serialize)]
pub(super) struct RouteSpec<'a> {
    destination: Destination<'a>,
    precedence: i32,
    #[serde(rename = "match", skip_serializing_if = "Match::is_empty")]
    condition: Match<'a>,
    route: Vec<Share<'a>>,
}

#[derive(Serialize)]
struct Destination<'a> {
    namespace: &'a str,
    name: &'a str,
}

#[derive(Serialize)]
struct Match<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Whom<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<RequestMatch<'a>>,
}

impl Match<'_> {
    fn is_empty(&self) -> bool {
        self.source.is_none() && self.request.is_none()
    }
}

#[derive(Serialize)]
struct Whom<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    labels: &'a Labels,
}

#[derive(Serialize)]
struct RequestMatch<'a> {
    headers: BTreeMap<String, BTreeMap<&'static str, &'a str>>,
}

#[derive(Serialize)]
struct Share<'a> {
    #[serde(skip_serializing_if = "Labels::is_empty")]
    labels: &'a Labels,
    weight: u32,
}

impl<'a> RouteSpec<'a> {
    pub(super) fn of(rule: &'a RouteRule) -> Self {
        let RouteRule {
            name: _,
            labels: _,
            destination,
            precedence,
            source,
            request,
            routes,
        } = rule;
        let headers = request
            .iter()
            .map(|(field, value)| (field.to_string(), string_match(value)));
        Self {
            destination: Destination {
                namespace: destination.namespace(),
                name: destination.name(),
            },
            precedence: *precedence,
            condition: Match {
                source: source.as_ref().map(|SourceMatch { service, labels }| Whom {
                    name: service.as_ref().map(ObjectName::name),
                    namespace: None,
                    labels,
                }),
                request: (!request.is_empty()).then(|| RequestMatch {
                    headers: headers.collect(),
                }),
            },
            route: routes
                .iter()
                .map(|Route { labels, weight }| Share {
                    labels,
                    weight: *weight,
                })
                .collect(),
        }
    }
}

fn string_match(value: &StringMatch) -> BTreeMap<&'static str, &str> {
    BTreeMap::from([value.as_written()])
}

#[derive(Serialize)]
pub(super) struct EgressSpec<'a> {
    destination: External<'a>,
    ports: Vec<OpenPort>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Whom<'a>>,
}

#[derive(Serialize)]
struct External<'a> {
    service: Text<'a, EgressTarget>,
}

#[derive(Serialize)]
struct OpenPort {
    port: u16,
    protocol: &'static str,
}

impl<'a> EgressSpec<'a> {
    pub(super) fn of(rule: &'a EgressRule) -> Self {
        let EgressRule {
            name: _,
            labels: _,
            target,
            ports,
            source: EgressSource { namespace, labels },
        } = rule;
        let ports = ports.iter().map(|(port, protocol)| OpenPort {
            port: port.0,
            protocol: match protocol {
                EgressProtocol::Http => "http",
                EgressProtocol::Tcp => "tcp",
                EgressProtocol::Udp => "udp",
            },
        });
        Self {
            destination: External {
                service: Text(target),
            },
            ports: ports.collect(),
            source: (namespace.is_some() || !labels.is_empty()).then_some(Whom {
                name: None,
                namespace: namespace.as_deref(),
                labels,
            }),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MeshSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    egress: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_proxy_down: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_log: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    header_timeout: Option<String>,
}

impl MeshSpec {
    pub(super) fn of(config: &MeshConfig) -> Self {
        let MeshConfig {
            name: _,
            labels: _,
            egress,
            on_proxy_down,
            access_log,
            header_timeout,
        } = config;
        Self {
            egress: egress.map(|egress| match egress {
                EgressDefault::Deny => "deny",
                EgressDefault::Allow => "allow",
                EgressDefault::Audit => "audit",
            }),
            on_proxy_down: on_proxy_down.map(|down| match down {
                OnProxyDown::Closed => "closed",
                OnProxyDown::Open => "open",
            }),
            access_log: *access_log,
            header_timeout: header_timeout.map(duration),
        }
    }
}

/// Whole seconds as `10s`, everything else as `1500ms`.
fn duration(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", duration.as_millis())
    }
}

/// A value as its text.
struct Text<'a, T>(&'a T);

impl<T: std::fmt::Display> Serialize for Text<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self.0)
    }
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
