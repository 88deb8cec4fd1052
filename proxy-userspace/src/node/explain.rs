//! `weir explain`: the same `decide` and the same routes as the data path, asked
//! without sending anything.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use proxy_common::{
    Addr, Decision, Destination, EgressDefault, Port, Reason, RuleId, Transport, Verdict, decide,
};

use crate::config::object::{AppProtocol, ObjectName};
use crate::control::{ExplainError, ExplainQuery, ExplainedEndpoint, Explanation, Host, Target};
use crate::egress::host::HostName;
use crate::snapshot::{Endpoint, Request, RuleView, ServiceView, Snapshot, Source, Subset};

/// Answers `query` by `snapshot`.
pub fn explain(snapshot: &Snapshot, query: &ExplainQuery) -> Result<Explanation, ExplainError> {
    let source = snapshot
        .sources
        .values()
        .find(|source| source.name == query.workload)
        .ok_or_else(|| {
            ExplainError::UnknownWorkload(format!(
                "{} is no enrolled workload of this node: see `weir workloads`",
                query.workload
            ))
        })?;
    let mut explanation = Explanation {
        workload: source.text.to_string(),
        generation: snapshot.generation,
        ..Explanation::default()
    };
    match destination(snapshot, source, &query.destination)? {
        Asked::Address(addr) => by_address(snapshot, source, addr, query, &mut explanation)?,
        Asked::Name(name, port) => {
            let transport = query.destination.transport;
            by_name(snapshot, source, &name, (port, transport), &mut explanation);
        }
    }
    Ok(explanation)
}

/// What the question is about.
enum Asked {
    Address(SocketAddr),
    Name(HostName, Port),
}

/// A service's name stands for its virtual address; any other name is external.
fn destination(
    snapshot: &Snapshot,
    source: &Source,
    target: &Target,
) -> Result<Asked, ExplainError> {
    let unclear = |text: String| ExplainError::UnclearDestination(text);
    match &target.host {
        Host::Address(ip) => {
            let only = || only_port_at(snapshot, *ip, target.transport);
            let port = target.port.or_else(only);
            let address = |port: Port| Asked::Address(SocketAddr::new(*ip, port.0));
            let bracketed = if ip.is_ipv6() {
                format!("[{ip}]")
            } else {
                ip.to_string()
            };
            port.map(address)
                .ok_or_else(|| unclear(format!("which port of {ip}? Write {bracketed}:PORT")))
        }
        Host::Name(name) => {
            let service = service_name(name, source.name.namespace());
            let ports: Vec<&ServiceView> = snapshot
                .services
                .values()
                .map(AsRef::as_ref)
                .filter(|view| {
                    view.name == service
                        && view.protocol.transport() == target.transport
                        && target.port.is_none_or(|port| port == view.port)
                })
                .collect();
            match (ports.as_slice(), target.port) {
                ([view], _) => address_of(snapshot, source, view)
                    .map(Asked::Address)
                    .ok_or_else(|| {
                        unclear(format!(
                            "service {service} has no clusterIP: it cannot be dialled"
                        ))
                    }),
                ([], Some(port)) => HostName::parse(name)
                    .map(|name| Asked::Name(name, port))
                    .map_err(|error| unclear(format!("{name}: {error}"))),
                ([], None) => Err(unclear(format!(
                    "{name} is no service; for a host name write {name}:PORT"
                ))),
                (_, _) => Err(unclear(format!(
                    "service {service} has several ports: write {name}:PORT"
                ))),
            }
        }
    }
}

fn service_name(name: &str, namespace: &str) -> ObjectName {
    let (name, namespace) = name.split_once('.').unwrap_or((name, namespace));
    ObjectName::new(namespace, name)
}

/// A virtual address, one that the source can dial if there is one.
fn address_of(snapshot: &Snapshot, source: &Source, view: &ServiceView) -> Option<SocketAddr> {
    let services = snapshot.tables.services.iter();
    let of_view = services.filter(|(_, entry)| entry.service == view.id);
    let addresses = of_view.map(|(key, _)| SocketAddr::new(key.addr.to_ip(), key.port.0));
    let unreachable = |addr: &SocketAddr| source.pod.face(addr.ip()).is_none();
    addresses.min_by_key(unreachable)
}

fn only_port_at(snapshot: &Snapshot, ip: IpAddr, transport: Transport) -> Option<Port> {
    let mut ports = snapshot
        .tables
        .services
        .keys()
        .filter(|key| key.addr.to_ip() == ip && key.is(transport))
        .map(|key| key.port);
    ports.next().filter(|_| ports.next().is_none())
}

fn by_address(
    snapshot: &Snapshot,
    source: &Source,
    addr: SocketAddr,
    query: &ExplainQuery,
    explanation: &mut Explanation,
) -> Result<(), ExplainError> {
    let netns = source.pod.netns().cookie();
    let Some(workload) = snapshot.tables.workloads.get(&netns) else {
        return Err(ExplainError::UnknownWorkload(format!(
            "{} is not enrolled any more",
            source.name
        )));
    };
    let transport = query.destination.transport;
    let dst = Destination::from(addr);
    let decision = decide(&snapshot.tables, workload, netns, transport, dst);
    explanation.destination = match transport {
        Transport::Tcp => addr.to_string(),
        Transport::Udp => format!("{addr}/udp"),
    };
    told(snapshot, &decision, explanation);
    if let Some(view) = snapshot.services.get(&decision.service) {
        routed(source, view, query, &Addr::from(addr.ip()), explanation)?;
    }
    if decision.reason == Reason::NoListener {
        explanation.notes.push("weir has no listener on an address of this family in the pod: connect() fails with ENETUNREACH; if the pod got its address after it was enrolled, enrol it again".into());
    }
    if decision.reason == Reason::EgressByName {
        explanation.notes.push("the proxy allows a request only if a rule names its host and the host's addresses contain this one; ask for NAME:PORT to see which rule that is".into());
    }
    Ok(())
}

fn told(snapshot: &Snapshot, decision: &Decision, explanation: &mut Explanation) {
    explanation.verdict = match decision.verdict {
        Verdict::Deny => "deny",
        Verdict::Direct => "direct",
        Verdict::Proxy => "proxy",
        Verdict::Balance => "balance",
    }
    .into();
    explanation.reason = decision.reason.name().into();
    let rule = snapshot
        .egress
        .get(&decision.rule)
        .filter(|_| decision.rule != RuleId::NONE);
    explanation.rule = rule.map(|rule| rule.label.to_string());
}

fn routed(
    source: &Source,
    view: &ServiceView,
    query: &ExplainQuery,
    dialled: &Addr,
    explanation: &mut Explanation,
) -> Result<(), ExplainError> {
    explanation.service = Some(view.label.to_string());
    let protocol = match view.protocol {
        AppProtocol::Detect => "detect",
        AppProtocol::Http => "http",
        AppProtocol::Tcp => "tcp",
        AppProtocol::Udp => "udp",
    };
    explanation.protocol = Some(protocol.into());
    let headers = headers(query)?;
    let authority = headers
        .get("host")
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let request = Request {
        method: query.method.as_deref().unwrap_or("GET"),
        uri: query.path.as_deref().unwrap_or("/"),
        authority: &authority,
        headers: &headers,
    };
    let request = (!view.protocol.is_balanced()).then_some(&request);
    let rule = view.matching(source, request);
    explanation.route_rule = rule.map(|rule| rule.label.to_string());
    explanation.endpoints = match rule {
        None => shares(view, &view.all, 100, dialled),
        Some(rule) => by_weight(view, rule, dialled),
    };
    let refused = match view.protocol {
        AppProtocol::Tcp => "the connect is refused",
        AppProtocol::Udp => "the call is refused",
        AppProtocol::Detect | AppProtocol::Http => "HTTP gets 503, bytes a reset",
    };
    let unserved = rule.map_or(0, |rule| unserved(view, rule, dialled));
    let which = if view.protocol.is_balanced() {
        " of the dialled family"
    } else {
        ""
    };
    if explanation.endpoints.is_empty() {
        let note = format!("{} has no ready endpoint{which}: {refused}", view.label);
        explanation.notes.push(note);
    } else if unserved > 0 {
        explanation.notes.push(format!(
            "no ready endpoint{which} has the labels of {unserved} % of the weights: for them {refused}"
        ));
    }
    Ok(())
}

/// The endpoints of a subset that who dialled an address like `dialled` may get.
fn reached<'a>(view: &ServiceView, subset: &'a Subset, dialled: &Addr) -> Vec<&'a Arc<Endpoint>> {
    if view.protocol.is_balanced() {
        subset.of_family(dialled).collect()
    } else {
        subset.turns(dialled).endpoints.iter().collect()
    }
}

/// The weight, in percent, of labels that no ready endpoint has.
fn unserved(view: &ServiceView, rule: &RuleView, dialled: &Addr) -> u32 {
    let shares = rule.subsets.iter().zip(&rule.weights);
    shares
        .filter(|(subset, _)| reached(view, subset, dialled).is_empty())
        .map(|(_, weight)| weight)
        .sum()
}

fn by_weight(view: &ServiceView, rule: &RuleView, dialled: &Addr) -> Vec<ExplainedEndpoint> {
    rule.subsets
        .iter()
        .zip(&rule.weights)
        .flat_map(|(subset, weight)| shares(view, subset, *weight, dialled))
        .collect()
}

fn shares(
    view: &ServiceView,
    subset: &Subset,
    percent: u32,
    dialled: &Addr,
) -> Vec<ExplainedEndpoint> {
    let endpoints = reached(view, subset, dialled);
    let count = u32::try_from(endpoints.len()).unwrap_or(u32::MAX);
    let share = |endpoint: &Arc<Endpoint>| ExplainedEndpoint {
        workload: endpoint.workload.to_string(),
        address: endpoint.addr,
        share: f64::from(percent) / f64::from(count),
    };
    endpoints.into_iter().map(share).collect()
}

fn headers(query: &ExplainQuery) -> Result<HeaderMap, ExplainError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &query.headers {
        let parsed = name
            .parse::<HeaderName>()
            .ok()
            .zip(value.parse::<HeaderValue>().ok());
        let (name, value) = parsed.ok_or_else(|| {
            ExplainError::UnclearDestination(format!("{name}: {value:?} is no header"))
        })?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// A host name: which rule on names would open it. Rules on addresses depend on
/// what the name resolves to, which is not asked here.
fn by_name(
    snapshot: &Snapshot,
    source: &Source,
    name: &HostName,
    (port, transport): (Port, Transport),
    explanation: &mut Explanation,
) {
    explanation.destination = match transport {
        Transport::Tcp => format!("{name}:{}", port.0),
        Transport::Udp => format!("{name}:{}/udp", port.0),
    };
    let rule = source.hosts.iter().find(|rule| {
        rule.ports.contains(&port) && rule.hosts.as_ref().is_some_and(|hosts| hosts.matches(name))
    });
    let workload = snapshot.tables.workloads.get(&source.pod.netns().cookie());
    let by_default = workload.map_or(EgressDefault::Deny, proxy_common::Workload::egress_default);
    let (verdict, reason) = match (by_default, rule) {
        (EgressDefault::Allow, _) => ("direct", Reason::EgressAllowed),
        (EgressDefault::Audit, _) => ("direct", Reason::EgressAudited),
        (EgressDefault::Deny, Some(_)) if transport == Transport::Udp => {
            ("deny", Reason::NameOverUdp)
        }
        (EgressDefault::Deny, Some(_)) => ("proxy", Reason::EgressByName),
        (EgressDefault::Deny, None) => ("deny", Reason::EgressDenied),
    };
    explanation.verdict = verdict.into();
    explanation.reason = reason.name().into();
    explanation.rule = rule.map(|rule| rule.label.to_string());
    explanation.notes.push(
        "only rules on host names were looked at; ask for an address to see the others".into(),
    );
}
