//! What objects are asked for other than by name: who belongs to whom, who has
//! which address, which egress rules speak of one port.
//!
//! Kept in step by [`super::Objects`] with every change of one object, and
//! shared between its copies like the objects themselves, so that a change
//! never costs a look at all of them. Must never decide anything.

mod inventory;
mod rules;

use std::cmp::Ordering;
use std::ops::Deref;
use std::sync::Arc;

pub use self::inventory::{InventoryIndex, Owner};
pub use self::rules::{EgressSelector, OpenedPort, RulesIndex};
use super::object::{EgressRule, MeshConfig, ObjectName, RouteRule, Service, Workload};

/// An object that sorts by its name.
#[derive(Debug)]
pub struct Named<T>(Arc<T>);

/// What has a name within its kind.
pub trait HasName {
    /// That name.
    fn object_name(&self) -> &ObjectName;
}

macro_rules! has_name {
    ($($kind:ty),*) => { $(
        impl HasName for $kind {
            fn object_name(&self) -> &ObjectName {
                &self.name
            }
        }
    )* };
}
has_name!(Service, Workload, RouteRule, EgressRule, MeshConfig);

impl<T> Clone for Named<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Named<T> {
    type Target = Arc<T>;

    fn deref(&self) -> &Arc<T> {
        &self.0
    }
}

impl<T: HasName> Ord for Named<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.object_name().cmp(other.0.object_name())
    }
}

impl<T: HasName> PartialOrd for Named<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: HasName> PartialEq for Named<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T: HasName> Eq for Named<T> {}

/// See the module. Its halves know nothing of each other.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// Of services and workloads.
    pub inventory: InventoryIndex,
    /// Of rules.
    pub rules: RulesIndex,
}
