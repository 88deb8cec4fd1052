//! Objects as the files hold them: documents with their versions.

use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

use super::Versions;
use crate::config::{Document, Kind, Objects};

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
        let mut documents = serializer.serialize_seq(None)?;
        for kind in Kind::ALL.into_iter().filter(|kind| (self.wanted)(*kind)) {
            let of_kind = self.versions.get(&kind);
            for object in self.objects.list(kind) {
                let version = of_kind.and_then(|of_kind| of_kind.get(object.name()));
                documents.serialize_element(&Document::new(&object, version.copied()))?;
            }
        }
        documents.end()
    }
}
