//! The configuration that a change leads to, and what the change does to each
//! object on the way. Must never touch the one in force.

use std::collections::BTreeSet;

use super::change::Changed;
use super::view::View;
use crate::admin::selector::Selector;
use crate::config::{Former, Kind, Object, ObjectName, Objects, Warning};

/// A configuration on its way.
pub(super) struct Plan {
    pub(super) next: Objects,
    pub(super) objects: Vec<Changed>,
    pub(super) warnings: Vec<Warning>,
}

impl Plan {
    pub(super) fn new(view: &View) -> Self {
        Self {
            next: view.objects.clone(),
            objects: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub(super) fn put(&mut self, objects: Vec<Object>) {
        let formers = self.next.upsert_all(objects.iter().cloned());
        let changes = objects.into_iter().zip(formers).map(|(object, former)| {
            let kind = object.kind();
            let (before, after, unchanged) = match former {
                Former::Nothing => (None, object, false),
                Former::Other(former) => (Some(former), object, false),
                Former::Same(former) => (Some(former.clone()), former, true),
            };
            Changed {
                kind,
                before,
                after: Some(after),
                unchanged,
            }
        });
        self.objects.extend(changes);
    }

    /// Whether there was something to take out.
    pub(super) fn remove(&mut self, kind: Kind, name: &ObjectName) -> bool {
        let before = self.next.remove(kind, name);
        let found = before.is_some();
        if found {
            self.objects.push(Changed {
                kind,
                before,
                after: None,
                unchanged: false,
            });
        }
        found
    }

    /// Takes out what carries the labels and is not of the request.
    pub(super) fn prune(&mut self, selector: &Selector) {
        let named: BTreeSet<_> = self
            .objects
            .iter()
            .map(|changed| (changed.kind, changed.name().clone()))
            .collect();
        for kind in Kind::ALL {
            for object in self.next.list(kind) {
                let name = object.name();
                if selector.selects(object.labels()) && !named.contains(&(kind, name.clone())) {
                    self.remove(kind, name);
                }
            }
        }
    }

    /// Puts these rules in the place of the present ones.
    pub(super) fn replace_rules(&mut self, rules: &Objects) {
        for kind in Kind::ALL.into_iter().filter(|kind| kind.is_rule()) {
            for object in self.next.list(kind) {
                if rules.get(kind, object.name()).is_none() {
                    self.remove(kind, object.name());
                }
            }
            let mut wanted = rules.list(kind);
            wanted.retain(|object| self.next.get(kind, object.name()).as_ref() != Some(object));
            self.put(wanted);
        }
    }
}
