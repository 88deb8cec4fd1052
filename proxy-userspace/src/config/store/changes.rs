//! What differs between two sets of objects.

use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use crate::config::object::{Object, ObjectName};
use crate::config::{Kind, Objects};

/// An object that is not what it was.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) kind: Kind,
    pub(super) name: ObjectName,
    /// What it was; `None`: it is new.
    pub(super) before: Option<Object>,
    /// What it is; `None`: it is gone.
    pub(super) after: Option<Object>,
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

fn compare<T: PartialEq>(
    kind: Kind,
    old: &OrdMap<ObjectName, Arc<T>>,
    new: &OrdMap<ObjectName, Arc<T>>,
    object: fn(Arc<T>) -> Object,
    out: &mut Vec<Changed>,
) {
    let object = |of: &Arc<T>| object(Arc::clone(of));
    for item in old.diff(new) {
        let (name, before, after) = match item {
            DiffItem::Add(name, after) => (name, None, Some(object(after))),
            DiffItem::Update { old, new } => (new.0, Some(object(old.1)), Some(object(new.1))),
            DiffItem::Remove(name, before) => (name, Some(object(before)), None),
        };
        if before != after {
            let name = name.clone();
            out.push(Changed {
                kind,
                name,
                before,
                after,
            });
        }
    }
}
