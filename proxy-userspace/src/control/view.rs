//! What is in force, for everybody to read without waiting.

use serde_json::Value;

use crate::config::{
    Document, Kind, Object, ObjectName, Objects, ResourceVersion, Versions, Warning,
};

/// One configuration that is in force. Never changes; the next one replaces it.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The objects.
    pub objects: Objects,
    /// The generation of the rules.
    pub generation: u64,
    /// The revision of the inventory.
    pub revision: u64,
    /// What is odd about it.
    pub warnings: Vec<Warning>,
    pub(super) versions: Versions,
}

impl View {
    /// The version of an object; `None` if there is no such object.
    pub fn version(&self, kind: Kind, name: &ObjectName) -> Option<ResourceVersion> {
        self.versions.get(&kind)?.get(name).copied()
    }

    /// The canonical document of one of these objects, with its version.
    pub fn document(&self, object: &Object) -> Value {
        let version = self.version(object.kind(), object.name());
        Document::new(object, version).to_value()
    }
}
