//! What differs between two sets of objects.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::object::{Object, ObjectName};
use crate::config::{Kind, Objects};

/// An object that is not what it was.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) kind: Kind,
    pub(super) name: ObjectName,
    /// What it was; `None`: it is new.
    pub(super) before: Option<Object>,
    /// Whether it is still there.
    pub(super) after: bool,
}

pub(super) fn changed(old: &Objects, new: &Objects) -> Vec<Changed> {
    let mut out = Vec::new();
    compare(
        Kind::Service,
        &old.services,
        &new.services,
        Object::Service,
        &mut out,
    );
    compare(
        Kind::Workload,
        &old.workloads,
        &new.workloads,
        Object::Workload,
        &mut out,
    );
    compare(
        Kind::RouteRule,
        &old.route_rules,
        &new.route_rules,
        Object::RouteRule,
        &mut out,
    );
    compare(
        Kind::EgressRule,
        &old.egress_rules,
        &new.egress_rules,
        Object::EgressRule,
        &mut out,
    );
    compare(
        Kind::MeshConfig,
        &old.mesh_configs,
        &new.mesh_configs,
        Object::MeshConfig,
        &mut out,
    );
    out
}

fn compare<T>(
    kind: Kind,
    old: &BTreeMap<ObjectName, Arc<T>>,
    new: &BTreeMap<ObjectName, Arc<T>>,
    object: fn(Arc<T>) -> Object,
    out: &mut Vec<Changed>,
) {
    let object = |of: &Arc<T>| object(Arc::clone(of));
    for (name, after) in new {
        let before = match old.get(name) {
            None => None,
            Some(before) if Arc::ptr_eq(before, after) || object(before) == object(after) => {
                continue;
            }
            Some(before) => Some(object(before)),
        };
        out.push(Changed {
            kind,
            name: name.clone(),
            before,
            after: true,
        });
    }
    for (name, before) in old.iter().filter(|(name, _)| !new.contains_key(*name)) {
        out.push(Changed {
            kind,
            name: name.clone(),
            before: Some(object(before)),
            after: false,
        });
    }
}
