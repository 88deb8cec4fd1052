//! Objects as the files hold them: documents with their versions.

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::Versions;
use super::version::ResourceVersion;
use crate::config::{Kind, Object, Objects};

/// The canonical document of an object, with its version.
pub(super) fn with_version(object: &Object, version: Option<ResourceVersion>) -> Value {
    let mut document = object.to_json();
    if let Some(version) = version {
        document["metadata"]["resourceVersion"] = Value::from(version.to_string());
    }
    document
}

/// Every object of some kinds, made into documents as they are written.
pub(super) struct All<'a> {
    objects: &'a Objects,
    versions: &'a Versions,
    wanted: fn(Kind) -> bool,
}

impl<'a> All<'a> {
    pub(super) fn of(
        objects: &'a Objects,
        versions: &'a Versions,
        wanted: fn(Kind) -> bool,
    ) -> Self {
        Self {
            objects,
            versions,
            wanted,
        }
    }
}

impl Serialize for All<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kinds = Kind::ALL.into_iter().filter(|kind| (self.wanted)(*kind));
        let all = kinds.flat_map(|kind| self.objects.list(kind));
        serializer.collect_seq(all.map(|object| {
            let of_kind = self.versions.get(&object.kind());
            let version = of_kind.and_then(|of_kind| of_kind.get(object.name()));
            with_version(&object, version.copied())
        }))
    }
}
