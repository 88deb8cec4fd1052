//! A service port with its rules and endpoints, compiled for the hot path.
//!
//! Owns the carrying over of turns: a rule with the same weights, and a set of
//! endpoints with the same labels, go on where they were.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use proxy_common::{Port, ServiceId};

use super::{Endpoint, RuleView, ServiceView, Subset};
use crate::balance::Cycle;
use crate::config::Objects;
use crate::config::object::{Labels, RouteRule, Service, ServicePort, Workload, selects};

/// The view of `port` of `service`; `former` is what it was so far.
pub(super) fn view(
    objects: &Objects,
    service: &Service,
    port: &ServicePort,
    id: ServiceId,
    former: Option<&ServiceView>,
) -> ServiceView {
    let endpoints: Vec<Arc<Endpoint>> = objects
        .index()
        .members(service)
        .filter(|workload| workload.ready)
        .filter_map(|workload| endpoint(workload, port.target_port))
        .collect();
    let mut rules: Vec<&Arc<RouteRule>> = objects.index().rules_for(&service.name).collect();
    // They come in the order of their names, and the sort is stable.
    rules.sort_by_key(|rule| std::cmp::Reverse(rule.precedence));
    let select = |labels: &Labels| -> Vec<Arc<Endpoint>> {
        let picked = |endpoint: &&Arc<Endpoint>| {
            objects
                .workloads
                .get(&endpoint.workload)
                .is_some_and(|workload| selects(labels, &workload.labels))
        };
        endpoints.iter().filter(picked).cloned().collect()
    };
    let rules = rules
        .into_iter()
        .filter_map(|rule| rule_view(rule, &select, former))
        .collect();
    ServiceView {
        id,
        label: service.name.to_string().into(),
        name: service.name.clone(),
        port: port.port,
        protocol: port.protocol,
        rules,
        all: Subset {
            labels: Labels::new(),
            position: former.map_or_else(Arc::default, |former| Arc::clone(&former.all.position)),
            endpoints,
        },
    }
}

fn endpoint(workload: &Workload, port: Port) -> Option<Arc<Endpoint>> {
    let ip = workload.addresses.iter().copied().find(IpAddr::is_ipv4)?;
    Some(Arc::new(Endpoint {
        workload: workload.name.clone(),
        addr: SocketAddr::new(ip, port.0),
        version: workload
            .labels
            .get("version")
            .map_or("", String::as_str)
            .into(),
    }))
}

fn rule_view(
    rule: &RouteRule,
    select: &impl Fn(&Labels) -> Vec<Arc<Endpoint>>,
    former: Option<&ServiceView>,
) -> Option<RuleView> {
    let weights: Vec<u32> = rule.routes.iter().map(|route| route.weight).collect();
    // The parser only lets through weights that sum to 100.
    let cycle = Cycle::new(&weights).ok()?;
    let old = former.and_then(|former| former.rules.iter().find(|old| old.name == rule.name));
    let position = old
        .filter(|old| old.weights == weights)
        .map_or_else(Arc::default, |old| Arc::clone(&old.position));
    let subset = |labels: &Labels| {
        let same = |old: &&RuleView| {
            old.subsets
                .iter()
                .find(|subset| subset.labels == *labels)
                .map(|subset| Arc::clone(&subset.position))
        };
        Subset {
            labels: labels.clone(),
            endpoints: select(labels),
            position: old.as_ref().and_then(same).unwrap_or_default(),
        }
    };
    Some(RuleView {
        name: rule.name.clone(),
        label: rule.name.to_string().into(),
        source: rule.source.clone(),
        request: rule.request.clone(),
        cycle,
        position,
        subsets: rule
            .routes
            .iter()
            .map(|route| subset(&route.labels))
            .collect(),
        weights,
    })
}
