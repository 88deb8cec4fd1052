//! From what each document holds to one answer about all of them.
//!
//! Owns the rule that an object is given once, and the order in which mistakes
//! are told: that of the documents.

use hashbrown::HashTable;

use super::{Decoded, Parsed};
use crate::config::decode::Found;
use crate::config::mistake::{Mistake, Mistakes, Warnings};

#[derive(Default)]
pub(super) struct Collector<'s> {
    parsed: Parsed,
    pub(super) mistakes: Mistakes,
    warnings: Warnings,
    /// Source and document that each of the objects was found in.
    places: Vec<(&'s str, usize)>,
    /// The objects by their hash, beside which is their index.
    names: HashTable<(u64, usize)>,
}

impl<'s> Collector<'s> {
    /// Makes room for as many documents more.
    pub(super) fn expect(&mut self, documents: usize) {
        self.parsed.objects.reserve(documents);
        self.places.reserve(documents);
        self.names.reserve(documents, |(hash, _)| *hash);
    }

    /// Takes what `document`, a number from 1, of `source` holds.
    pub(super) fn take(&mut self, source: &'s str, document: usize, decoded: Decoded) {
        for found in decoded.objects {
            self.object(source, document, found);
        }
        if let Some(remarks) = decoded.remarks {
            let (mut mistakes, mut warnings) = *remarks;
            mistakes.place(source, document);
            warnings.place(source, document);
            self.mistakes.append(mistakes);
            self.warnings.append(warnings);
        }
    }

    fn object(&mut self, source: &'s str, document: usize, found: Found) {
        let Found {
            object,
            hash,
            version,
            path,
        } = found;
        let objects = &self.parsed.objects;
        let same = |(other, index): &(u64, usize)| {
            let is_same = || {
                let other = &objects[*index];
                (other.kind(), other.name()) == (object.kind(), object.name())
            };
            *other == hash && is_same()
        };
        if let Some((_, index)) = self.names.find(hash, same) {
            let (first, number) = self.places[*index];
            return self.mistakes.push(Mistake {
                source: Some(source.to_owned()),
                document: Some(document),
                object: None,
                path,
                value: Some(object.to_string()),
                expected: format!("each object once; it is in {first}, document {number} too"),
            });
        }
        self.names
            .insert_unique(hash, (hash, objects.len()), |(hash, _)| *hash);
        if let Some(version) = version {
            let key = (object.kind(), object.name().clone());
            self.parsed.versions.insert(key, version);
        }
        self.places.push((source, document));
        self.parsed.objects.push(object);
    }

    /// Says that a document, or the whole source, cannot be read.
    pub(super) fn refuse(
        &mut self,
        source: &str,
        document: Option<usize>,
        path: String,
        expected: String,
    ) {
        self.mistakes.push(Mistake {
            source: Some(source.to_owned()),
            document,
            object: None,
            path,
            value: None,
            expected,
        });
    }

    /// Every object, or every mistake.
    pub(super) fn finish(mut self) -> Result<Parsed, Mistakes> {
        self.parsed.warnings = self.warnings.into_vec();
        self.mistakes.or(self.parsed)
    }
}
