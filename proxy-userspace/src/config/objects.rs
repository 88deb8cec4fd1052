//! The set of all objects. Owns who is in it; what the objects say of each
//! other is `check`'s.

use std::sync::Arc;

use imbl::OrdMap;

use super::index::{HasName, Index, InventoryIndex, RulesIndex};
use super::object::{EgressRule, MeshConfig, Object, ObjectName, RouteRule, Service, Workload};
use super::{Kind, Mistakes, Warning, check};
use crate::beside::both;

type Of<T> = OrdMap<ObjectName, Arc<T>>;

/// Every object in force, or about to be. A copy shares everything with its
/// original, and a change of the copy costs no more than what it changes.
/// Changed by [`Self::upsert`], [`Self::remove`] and [`Self::replace_rules`]
/// alone, which keep the index in step.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Inventory.
    pub services: Of<Service>,
    /// Inventory.
    pub workloads: Of<Workload>,
    /// Rules.
    pub route_rules: Of<RouteRule>,
    /// Rules.
    pub egress_rules: Of<EgressRule>,
    /// Rules.
    pub mesh_configs: Of<MeshConfig>,
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
        let (mut inventory, mut rules) = self.halves();
        match object {
            Object::Service(object) => inventory.service(&object),
            Object::Workload(object) => inventory.workload(&object),
            Object::RouteRule(object) => rules.route_rule(&object),
            Object::EgressRule(object) => rules.egress_rule(&object),
            Object::MeshConfig(object) => rules.mesh_config(&object),
        }
    }

    /// As [`Self::upsert`] of each, in order. The inventory and the rules share
    /// nothing and go side by side.
    pub fn upsert_all(&mut self, objects: impl IntoIterator<Item = Object>) -> Vec<Former> {
        let (mut services, mut workloads) = (Vec::new(), Vec::new());
        let (mut route_rules, mut egress_rules, mut mesh_configs) =
            (Vec::new(), Vec::new(), Vec::new());
        let mut all = 0;
        for (place, object) in objects.into_iter().enumerate() {
            all = place + 1;
            match object {
                Object::Service(object) => services.push((place, object)),
                Object::Workload(object) => workloads.push((place, object)),
                Object::RouteRule(object) => route_rules.push((place, object)),
                Object::EgressRule(object) => egress_rules.push((place, object)),
                Object::MeshConfig(object) => mesh_configs.push((place, object)),
            }
        }
        let (mut inventory, mut rules) = self.halves();
        let (of_rules, of_inventory) = both(
            || {
                let mut found = each(route_rules, |object| rules.route_rule(&object));
                found.extend(each(egress_rules, |object| rules.egress_rule(&object)));
                found.extend(each(mesh_configs, |object| rules.mesh_config(&object)));
                found
            },
            || {
                let mut found = each(services, |object| inventory.service(&object));
                found.extend(each(workloads, |object| inventory.workload(&object)));
                found
            },
        );
        let mut formers = vec![Former::Nothing; all];
        for (place, former) in of_inventory.into_iter().chain(of_rules) {
            formers[place] = former;
        }
        formers
    }

    fn halves(&mut self) -> (InventoryHalf<'_>, RulesHalf<'_>) {
        let inventory = InventoryHalf {
            services: &mut self.services,
            workloads: &mut self.workloads,
            index: &mut self.index.inventory,
        };
        let rules = RulesHalf {
            route_rules: &mut self.route_rules,
            egress_rules: &mut self.egress_rules,
            mesh_configs: &mut self.mesh_configs,
            index: &mut self.index.rules,
        };
        (inventory, rules)
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
            Some(Object::Service(old)) => self.index.inventory.remove_service(old),
            Some(Object::Workload(old)) => self.index.inventory.remove_workload(old),
            Some(Object::RouteRule(old)) => self.index.rules.remove_route_rule(old),
            Some(Object::EgressRule(old)) => self.index.rules.remove_egress_rule(old),
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
        self.index.rules.clone_from(&other.index.rules);
    }

    /// Whether the objects fit each other, and what is odd about them. `former`
    /// was checked before: what is the same in both is not looked at again.
    pub fn check(&self, former: &Self) -> Result<Vec<Warning>, Mistakes> {
        check::check(self, former)
    }
}

/// Services and workloads, to be changed.
struct InventoryHalf<'a> {
    services: &'a mut Of<Service>,
    workloads: &'a mut Of<Workload>,
    index: &'a mut InventoryIndex,
}

impl InventoryHalf<'_> {
    fn service(&mut self, object: &Arc<Service>) -> Former {
        put(self.services, object, Object::Service, |old, new| {
            old.inspect(|old| self.index.remove_service(old));
            self.index.add_service(new);
        })
    }

    fn workload(&mut self, object: &Arc<Workload>) -> Former {
        put(self.workloads, object, Object::Workload, |old, new| {
            old.inspect(|old| self.index.remove_workload(old));
            self.index.add_workload(new);
        })
    }
}

/// Rules, to be changed.
struct RulesHalf<'a> {
    route_rules: &'a mut Of<RouteRule>,
    egress_rules: &'a mut Of<EgressRule>,
    mesh_configs: &'a mut Of<MeshConfig>,
    index: &'a mut RulesIndex,
}

impl RulesHalf<'_> {
    fn route_rule(&mut self, object: &Arc<RouteRule>) -> Former {
        put(self.route_rules, object, Object::RouteRule, |old, new| {
            old.inspect(|old| self.index.remove_route_rule(old));
            self.index.add_route_rule(new);
        })
    }

    fn egress_rule(&mut self, object: &Arc<EgressRule>) -> Former {
        put(self.egress_rules, object, Object::EgressRule, |old, new| {
            old.inspect(|old| self.index.remove_egress_rule(old));
            self.index.add_egress_rule(new);
        })
    }

    fn mesh_config(&mut self, object: &Arc<MeshConfig>) -> Former {
        put(self.mesh_configs, object, Object::MeshConfig, |_, _| {})
    }
}

/// Puts an object in its place, and tells `index` if that changes anything.
fn put<T: HasName>(
    map: &mut Of<T>,
    object: &Arc<T>,
    kind: fn(Arc<T>) -> Object,
    index: impl FnOnce(Option<&Arc<T>>, &Arc<T>),
) -> Former {
    let name = object.object_name();
    let old = map.get(name).cloned();
    if let Some(old) = &old {
        let old = kind(Arc::clone(old));
        // The old one stays, so that whoever compares by pointer sees no change.
        if old == kind(Arc::clone(object)) {
            return Former::Same(old);
        }
    }
    index(old.as_ref(), object);
    map.insert(name.clone(), Arc::clone(object));
    old.map_or(Former::Nothing, |old| Former::Other(kind(old)))
}

fn each<T>(objects: Vec<(usize, T)>, mut upsert: impl FnMut(T) -> Former) -> Vec<(usize, Former)> {
    let objects = objects.into_iter();
    objects
        .map(|(place, object)| (place, upsert(object)))
        .collect()
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
