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
            // Both are in the order of the names: side by side no name is looked for.
            let mut versions = self.versions.get(&kind).into_iter().flatten().peekable();
            for object in self.objects.list(kind) {
                while versions
                    .next_if(|(name, _)| *name < object.name())
                    .is_some()
                {}
                let own = versions.next_if(|(name, _)| *name == object.name());
                let version = own.map(|(_, version)| *version);
                documents.serialize_element(&Document::new(&object, version))?;
            }
        }
        documents.end()
    }
}
