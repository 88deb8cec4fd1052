//! `metadata`, labels and references: what the kinds have in common.

use super::{At, Read, all};
use crate::config::name::{is_label, is_label_key, is_label_value, is_subdomain};
use crate::config::object::{Labels, ObjectName};
use crate::config::store::ResourceVersion;

/// Labels that an object or a selector may have.
const LABELS_MAX: usize = 64;

const LABEL: &str = "a name of at most 63 lower-case letters, digits and `-` (RFC 1123 label)";
const SUBDOMAIN: &str = "a name of lower-case letters, digits, `-` and `.` (RFC 1123 subdomain)";

/// What kubectl and the servers it talks to write into metadata.
const SERVER_SIDE: &[&str] = &[
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generation",
    "managedFields",
    "ownerReferences",
    "selfLink",
    "uid",
];

/// What the metadata of a kind may say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// A name that is one DNS label: a `Service`.
    Label,
    /// A name of DNS labels: a `Workload` or a rule.
    Subdomain,
    /// As `Label`, and no namespace: a `MeshConfig` is named after one.
    Node,
}

pub(super) struct Metadata {
    pub(super) name: ObjectName,
    pub(super) labels: Labels,
    pub(super) version: Option<ResourceVersion>,
}

impl Metadata {
    /// Stands in for metadata that was wrong, while the rest is looked at.
    pub(super) fn nameless() -> Self {
        Self {
            name: ObjectName::new("default", ""),
            labels: Labels::new(),
            version: None,
        }
    }
}

pub(super) fn metadata(at: &At<'_>, scope: Scope) -> Read<Metadata> {
    let mut fields = at.fields()?;
    let name = match scope {
        Scope::Label | Scope::Node => fields.required("name", LABEL, label),
        Scope::Subdomain => fields.required("name", SUBDOMAIN, |at| {
            at.text(SUBDOMAIN, |text| is_subdomain(text).then_some(text))
        }),
    };
    let namespace = fields.optional("namespace", |at| match scope {
        Scope::Node => at.text(
            "`default`: a MeshConfig is named after the namespace it is for, and lives in none",
            |text| (text == "default").then_some(text),
        ),
        _ => label(at),
    });
    let labels = fields.optional("labels", labels);
    let version = fields.optional("resourceVersion", |at| {
        at.text(
            "a decimal number in quotes, as `weir get` shows it",
            |text| text.parse().ok(),
        )
    });
    fields.ignore(SERVER_SIDE, "metadata");
    fields.finish();
    Ok(Metadata {
        name: ObjectName::new(namespace?.unwrap_or("default"), name?),
        labels: labels?.unwrap_or_default(),
        version: version?,
    })
}

/// A namespace, or the name of a Service that a rule speaks of.
pub(super) fn label<'a>(at: &At<'a>) -> Read<&'a str> {
    at.text(LABEL, |text| is_label(text).then_some(text))
}

pub(super) fn labels(at: &At<'_>) -> Read<Labels> {
    let pairs = at.entries(LABELS_MAX)?.map(|(key, at)| {
        let known = is_label_key(key);
        if !known {
            at.complain("a label key of letters, digits, `-`, `_` and `.`, with a `domain/` before it or not");
        }
        let expected = "a label value of at most 63 letters, digits, `-`, `_` and `.`";
        let value = at.text(expected, |text| is_label_value(text).then(|| text.to_owned()))?;
        Ok((key.to_owned(), value))
    });
    // A wrong key was reported, which refuses the document as it is.
    all(pairs)
}
