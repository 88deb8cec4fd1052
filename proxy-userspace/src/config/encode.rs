//! Objects as canonical documents: defaults filled in, one spelling for each
//! value. Whatever is written here, `decode` must read back to the same object.
//!
//! A document is written straight from its object; must never copy one first,
//! for a node has a hundred thousand of them.

mod inventory;
mod rules;

use serde::{Serialize, Serializer};
use serde_json::Value;

use self::inventory::{ServiceSpec, WorkloadSpec};
use self::rules::{EgressSpec, MeshSpec, RouteSpec};
use super::object::{Labels, Object};
use super::store::ResourceVersion;

/// The canonical document of an object.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    object: &'a Object,
    version: Option<ResourceVersion>,
}

impl<'a> Document<'a> {
    /// That of `object`, with its `metadata.resourceVersion` if it has one.
    pub fn new(object: &'a Object, version: Option<ResourceVersion>) -> Self {
        Self { object, version }
    }

    /// As a value.
    ///
    /// # Panics
    /// Never: it would if a key were no text.
    pub fn to_value(self) -> Value {
        serde_json::to_value(self).expect("every key of a document is text")
    }

    fn with<S: Serializer>(&self, spec: impl Serialize, serializer: S) -> Result<S::Ok, S::Error> {
        let kind = self.object.kind();
        let name = self.object.name();
        Envelope {
            api_version: kind.api_version(),
            kind: kind.as_str(),
            metadata: Metadata {
                name: name.name(),
                namespace: name.namespace(),
                labels: self.object.labels(),
                resource_version: self.version.map(|version| version.to_string()),
            },
            spec,
        }
        .serialize(serializer)
    }
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.object {
            Object::Service(object) => self.with(ServiceSpec::of(object), serializer),
            Object::Workload(object) => self.with(WorkloadSpec::of(object), serializer),
            Object::RouteRule(object) => self.with(RouteSpec::of(object), serializer),
            Object::EgressRule(object) => self.with(EgressSpec::of(object), serializer),
            Object::MeshConfig(object) => self.with(MeshSpec::of(object), serializer),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a, T> {
    api_version: &'a str,
    kind: &'a str,
    metadata: Metadata<'a>,
    spec: T,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    name: &'a str,
    namespace: &'a str,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    labels: &'a Labels,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_version: Option<String>,
}
