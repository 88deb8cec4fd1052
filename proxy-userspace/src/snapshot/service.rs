//! A service port with its rules and endpoints, compiled for the hot path.
//!
//! Owns the choice of each endpoint's address and the carrying over of turns: a rule with the same weights, and a set of
//! endpoints with the same labels, go on where they were.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use proxy_common::{Port, ServiceId};

use super::{Endpoint, RuleView, ServiceView, Subset, Turns};
use crate::balance::Cycle;
use crate::config::Objects;
use crate::config::object::{Labels, RouteRule, Service, ServicePort, Workload, selects};
use crate::socket::Reach;

/// The view of `port` of `service`; `former` is what it was so far.
pub(super) fn view(
    objects: &Objects,
    service: &Service,
    port: &ServicePort,
    id: ServiceId,
    former: Option<&ServiceView>,
) -> ServiceView {
    let ready: Vec<Ready<'_>> = objects
        .index()
        .inventory
        .members(service)
        .filter(|workload| workload.ready)
        .map(|workload| Ready::new(workload, port.target_port))
        .collect();
    let mut rules: Vec<&Arc<RouteRule>> = objects.index().rules.rules_for(&service.name).collect();
    // They come in the order of their names, and the sort is stable.
    rules.sort_by_key(|rule| std::cmp::Reverse(rule.precedence));
    let select = |labels: &Labels, former: Option<&Subset>| {
        let picked = ready
            .iter()
            .filter(|ready| selects(labels, &ready.workload.labels));
        subset(labels, picked, former)
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
        all: select(&Labels::new(), former.map(|former| &former.all)),
    }
}

/// A ready workload, as the endpoint that it is in each family.
struct Ready<'a> {
    workload: &'a Workload,
    v4: Option<Arc<Endpoint>>,
    v6: Option<Arc<Endpoint>>,
}

impl<'a> Ready<'a> {
    /// By its first address of each family.
    fn new(workload: &'a Workload, port: Port) -> Self {
        let endpoint = |family: fn(&IpAddr) -> bool| {
            let ip = workload.addresses.iter().copied().find(family)?;
            let version = workload.labels.get("version");
            Some(Arc::new(Endpoint {
                workload: workload.name.clone(),
                addr: SocketAddr::new(ip, port.0),
                reach: match workload.local {
                    Some(_) => Reach::Node,
                    None => Reach::Beyond,
                },
                version: version.map_or("", String::as_str).into(),
            }))
        };
        Self {
            workload,
            v4: endpoint(IpAddr::is_ipv4),
            v6: endpoint(IpAddr::is_ipv6),
        }
    }
}

/// The endpoints that the labels picked; turns go on where `former` was.
fn subset<'a>(
    labels: &Labels,
    picked: impl Iterator<Item = &'a Ready<'a>> + Clone,
    former: Option<&Subset>,
) -> Subset {
    let mut v4: Vec<_> = picked
        .clone()
        .filter_map(|ready| ready.v4.clone())
        .collect();
    let mut v6: Vec<_> = picked.filter_map(|ready| ready.v6.clone()).collect();
    if v4.is_empty() {
        v4.clone_from(&v6);
    } else if v6.is_empty() {
        v6.clone_from(&v4);
    }
    let same = v4.len() == v6.len()
        && v4
            .iter()
            .zip(&v6)
            .all(|(one, other)| one.workload == other.workload);
    let places = former.map_or_else(Arc::default, |former| Arc::clone(&former.v4.places));
    let own = former.filter(|former| !Arc::ptr_eq(&former.v4.places, &former.v6.places));
    Subset {
        labels: labels.clone(),
        v6: Turns {
            endpoints: v6,
            places: if same {
                Arc::clone(&places)
            } else {
                own.map_or_else(Arc::default, |former| Arc::clone(&former.v6.places))
            },
        },
        v4: Turns {
            endpoints: v4,
            places,
        },
    }
}

fn rule_view(
    rule: &RouteRule,
    select: &impl Fn(&Labels, Option<&Subset>) -> Subset,
    former: Option<&ServiceView>,
) -> Option<RuleView> {
    let weights: Vec<u32> = rule.routes.iter().map(|route| route.weight).collect();
    // The parser only lets through weights that sum to 100.
    let cycle = Cycle::new(&weights).ok()?;
    let old = former.and_then(|former| former.rules.iter().find(|old| old.name == rule.name));
    let places = old
        .filter(|old| old.weights == weights)
        .map_or_else(Arc::default, |old| Arc::clone(&old.places));
    let subset = |labels: &Labels| {
        let same = |old: &'_ RuleView| old.subsets.iter().position(|old| old.labels == *labels);
        let former = old.and_then(|old| Some(&old.subsets[same(old)?]));
        select(labels, former)
    };
    Some(RuleView {
        name: rule.name.clone(),
        label: rule.name.to_string().into(),
        source: rule.source.clone(),
        request: rule.request.clone(),
        cycle,
        places,
        subsets: rule
            .routes
            .iter()
            .map(|route| subset(&route.labels))
            .collect(),
        weights,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::object::ObjectName;

    fn workload(name: &str, addresses: &[&str]) -> Workload {
        Workload {
            name: ObjectName::new("default", name),
            labels: Labels::new(),
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
            ready: true,
            network: String::new(),
            node: None,
            local: None,
            accelerate: None,
        }
    }

    fn compiled(workloads: &[Workload], former: Option<&Subset>) -> Subset {
        let ready: Vec<_> = workloads
            .iter()
            .map(|workload| Ready::new(workload, Port(80)))
            .collect();
        subset(&Labels::new(), ready.iter(), former)
    }

    fn addresses(turns: &Turns) -> Vec<String> {
        let endpoints = turns.endpoints.iter();
        endpoints
            .map(|endpoint| endpoint.addr.to_string())
            .collect()
    }

    #[test]
    fn equal_families_share_their_turns_and_others_do_not() {
        let both = workload("a", &["10.0.0.1", "fd00::1", "fd00::2"]);
        let one = workload("b", &["10.0.0.2"]);
        let shared = compiled(std::slice::from_ref(&both), None);
        assert_eq!(addresses(&shared.v4), ["10.0.0.1:80"]);
        assert_eq!(addresses(&shared.v6), ["[fd00::1]:80"]);
        assert!(Arc::ptr_eq(&shared.v4.places, &shared.v6.places));
        let apart = compiled(&[both.clone(), one.clone()], Some(&shared));
        assert_eq!(addresses(&apart.v4), ["10.0.0.1:80", "10.0.0.2:80"]);
        assert_eq!(addresses(&apart.v6), ["[fd00::1]:80"]);
        assert!(!Arc::ptr_eq(&apart.v4.places, &apart.v6.places));
        assert!(Arc::ptr_eq(&apart.v4.places, &shared.v4.places));
        let later = compiled(&[both, one.clone()], Some(&apart));
        assert!(Arc::ptr_eq(&later.v6.places, &apart.v6.places));
        // None of the family: the other's, and its turns.
        let other = compiled(&[one], Some(&later));
        assert_eq!(addresses(&other.v6), ["10.0.0.2:80"]);
        assert!(Arc::ptr_eq(&other.v4.places, &other.v6.places));
    }
}
