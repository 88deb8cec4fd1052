//! The set of all objects. Owns who is in it; what the objects say of each
//! other is `check`'s.

use std::sync::Arc;

use imbl::OrdMap;

use super::index::Index;
use super::object::{EgressRule, MeshConfig, Object, ObjectName, RouteRule, Service, Workload};
use super::{Kind, Mistakes, Warning, check};

/// Every object in force, or about to be. A copy shares everything with its
/// original, and a change of the copy costs no more than what it changes.
/// Changed by [`Self::upsert`], [`Self::remove`] and [`Self::replace_rules`]
/// alone, which keep the index in step.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Inventory.
    pub services: OrdMap<ObjectName, Arc<Service>>,
    /// Inventory.
    pub workloads: OrdMap<ObjectName, Arc<Workload>>,
    /// Rules.
    pub route_rules: OrdMap<ObjectName, Arc<RouteRule>>,
    /// Rules.
    pub egress_rules: OrdMap<ObjectName, Arc<EgressRule>>,
    /// Rules.
    pub mesh_configs: OrdMap<ObjectName, Arc<MeshConfig>>,
    index: Index,
}

/// What [`Objects::upsert`] found in the place of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Former {
    /// There was none of this kind and name.
    Nothing,
    /// It already said this, and stays.
    Same(Object),
    /// It was different.
    Other(Object),
}

impl Objects {
    /// Adds `object`, or puts it in the place of the one of its kind and name.
    pub fn upsert(&mut self, object: Object) -> Former {
        let former = match self.get(object.kind(), object.name()) {
            None => Former::Nothing,
            // The old one stays, so that whoever compares by pointer sees no change.
            Some(old) if old == object => return Former::Same(old),
            Some(old) => {
                self.remove(object.kind(), object.name());
                Former::Other(old)
            }
        };
        let name = object.name().clone();
        match object {
            Object::Service(object) => {
                self.index.add_service(&object);
                self.services.insert(name, object);
            }
            Object::Workload(object) => {
                self.index.add_workload(&object);
                self.workloads.insert(name, object);
            }
            Object::RouteRule(object) => {
                self.index.add_route_rule(&object);
                self.route_rules.insert(name, object);
            }
            Object::EgressRule(object) => {
                self.index.add_egress_rule(&object);
                self.egress_rules.insert(name, object);
            }
            Object::MeshConfig(object) => drop(self.mesh_configs.insert(name, object)),
        }
        former
    }

    /// How many there are, of all kinds.
    pub fn len(&self) -> usize {
        self.services.len()
            + self.workloads.len()
            + self.route_rules.len()
            + self.egress_rules.len()
            + self.mesh_configs.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is asked for other than by name.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Takes an object out.
    pub fn remove(&mut self, kind: Kind, name: &ObjectName) -> Option<Object> {
        let removed = match kind {
            Kind::Service => self.services.remove(name).map(Object::Service),
            Kind::Workload => self.workloads.remove(name).map(Object::Workload),
            Kind::RouteRule => self.route_rules.remove(name).map(Object::RouteRule),
            Kind::EgressRule => self.egress_rules.remove(name).map(Object::EgressRule),
            Kind::MeshConfig => self.mesh_configs.remove(name).map(Object::MeshConfig),
        };
        match &removed {
            Some(Object::Service(old)) => self.index.remove_service(old),
            Some(Object::Workload(old)) => self.index.remove_workload(old),
            Some(Object::RouteRule(old)) => self.index.remove_route_rule(old),
            Some(Object::EgressRule(old)) => self.index.remove_egress_rule(old),
            Some(Object::MeshConfig(_)) | None => {}
        }
        removed
    }

    /// The object of this kind and name.
    pub fn get(&self, kind: Kind, name: &ObjectName) -> Option<Object> {
        match kind {
            Kind::Service => self.services.get(name).cloned().map(Object::Service),
            Kind::Workload => self.workloads.get(name).cloned().map(Object::Workload),
            Kind::RouteRule => self.route_rules.get(name).cloned().map(Object::RouteRule),
            Kind::EgressRule => self.egress_rules.get(name).cloned().map(Object::EgressRule),
            Kind::MeshConfig => self.mesh_configs.get(name).cloned().map(Object::MeshConfig),
        }
    }

    /// All objects of a kind, by name.
    pub fn list(&self, kind: Kind) -> Vec<Object> {
        match kind {
            Kind::Service => self
                .services
                .values()
                .cloned()
                .map(Object::Service)
                .collect(),
            Kind::Workload => self
                .workloads
                .values()
                .cloned()
                .map(Object::Workload)
                .collect(),
            Kind::RouteRule => self
                .route_rules
                .values()
                .cloned()
                .map(Object::RouteRule)
                .collect(),
            Kind::EgressRule => self
                .egress_rules
                .values()
                .cloned()
                .map(Object::EgressRule)
                .collect(),
            Kind::MeshConfig => self
                .mesh_configs
                .values()
                .cloned()
                .map(Object::MeshConfig)
                .collect(),
        }
    }

    /// Puts the rules of `other` in the place of these; the inventory stays.
    /// This is what undo does.
    pub fn replace_rules(&mut self, other: &Self) {
        self.route_rules.clone_from(&other.route_rules);
        self.egress_rules.clone_from(&other.egress_rules);
        self.mesh_configs.clone_from(&other.mesh_configs);
        self.index.replace_rules(&other.index);
    }

    /// Whether the objects fit each other, and what is odd about them. `former`
    /// was checked before: what is the same in both is not looked at again.
    pub fn check(&self, former: &Self) -> Result<Vec<Warning>, Mistakes> {
        check::check(self, former)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Source, parse};
    use super::*;

    fn config(egress: &str) -> Object {
        let text = format!(
            "{{apiVersion: weir.dev/v1, kind: MeshConfig, metadata: {{name: default}}, spec: {{egress: {egress}}}}}"
        );
        parse(&[Source::new("f", text)]).unwrap().objects.remove(0)
    }

    #[test]
    fn upsert_says_what_changed() {
        let mut objects = Objects::default();
        assert_eq!(objects.upsert(config("deny")), Former::Nothing);
        let kept = Arc::clone(&objects.mesh_configs[config("deny").name()]);
        let same = Former::Same(config("deny"));
        assert_eq!(objects.upsert(config("deny")), same);
        assert!(
            Arc::ptr_eq(&kept, &objects.mesh_configs[&kept.name]),
            "an unchanged object stays the same"
        );
        let other = Former::Other(config("deny"));
        assert_eq!(objects.upsert(config("allow")), other);
        assert_eq!(objects.list(Kind::MeshConfig), [config("allow")]);
        assert_eq!(
            objects.remove(Kind::MeshConfig, &kept.name),
            Some(config("allow"))
        );
        assert_eq!(objects.remove(Kind::MeshConfig, &kept.name), None);
        assert_eq!(objects.get(Kind::MeshConfig, &kept.name), None);
    }
}
