//! `metadata`, labels and references: what the kinds have in common.

use super::super::name::{is_label, is_label_key, is_label_value, is_subdomain};
use super::super::object::{Labels, ObjectName};
use super::super::store::ResourceVersion;
use super::At;

/// Labels that an object or a selector may have.
const LABELS_MAX: usize = 64;

const LABEL: &str = "a name of at most 63 lower-case letters, digits and `-` (RFC 1123 label)";
const SUBDOMAIN: &str = "a name of lower-case letters, digits, `-` and `.` (RFC 1123 subdomain)";

/// What the metadata of a kind may say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Labels, and a name that is one DNS label: a Service.
    Label,
    /// Labels: a Workload.
    Labelled,
    /// No labels: a rule is found by its name alone.
    Rule,
    /// No labels and no namespace: a MeshConfig is named after one.
    Node,
}

pub(super) struct Metadata {
    pub(super) name: ObjectName,
    pub(super) labels: Labels,
    pub(super) version: Option<ResourceVersion>,
}

pub(super) fn metadata(at: &At<'_>, scope: Scope) -> Option<Metadata> {
    let mut fields = at.fields()?;
    let one_label = matches!(scope, Scope::Label | Scope::Node);
    let expected = if one_label { LABEL } else { SUBDOMAIN };
    let name = fields.required("name", expected).and_then(|at| {
        at.text(expected, |text| {
            if one_label {
                is_label(text)
            } else {
                is_subdomain(text)
            }
            .then_some(text)
        })
    });
    let namespace = match fields.optional("namespace") {
        None => Some("default"),
        Some(at) if scope == Scope::Node => at.text(
            "`default`: a MeshConfig is named after the namespace it is for, and lives in none",
            |text| (text == "default").then_some(text),
        ),
        Some(at) => namespace(&at),
    };
    let labels = match fields.optional("labels") {
        None => Some(Labels::new()),
        Some(at) if matches!(scope, Scope::Rule | Scope::Node) => {
            at.warn("labels of a rule have no meaning to weir, left out");
            Some(Labels::new())
        }
        Some(at) => labels(&at),
    };
    let version = match fields.optional("resourceVersion") {
        None => Some(None),
        Some(at) => at.text(
            "a decimal number in quotes, as `weir get` shows it",
            |text| text.parse().ok().map(Some),
        ),
    };
    fields.ignore(
        &[
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
        ],
        "metadata",
    );
    fields.finish();
    Some(Metadata {
        name: ObjectName::new(namespace?, name?),
        labels: labels?,
        version: version?,
    })
}

pub(super) fn namespace<'a>(at: &At<'a>) -> Option<&'a str> {
    at.text(LABEL, |text| is_label(text).then_some(text))
}

/// The name of a Service that a rule speaks of.
pub(super) fn service_name<'a>(at: &At<'a>) -> Option<&'a str> {
    at.text(LABEL, |text| is_label(text).then_some(text))
}

pub(super) fn labels(at: &At<'_>) -> Option<Labels> {
    let entries = at.entries()?;
    if entries.len() > LABELS_MAX {
        return at.wrong(format!("at most {LABELS_MAX} labels"));
    }
    let mut labels = Labels::new();
    let mut whole = true;
    for (key, at) in entries {
        if !is_label_key(key) {
            at.wrong::<()>("a label key of letters, digits, `-`, `_` and `.`, with a `domain/` before it or not");
            whole = false;
        }
        let expected = "a label value of at most 63 letters, digits, `-`, `_` and `.`";
        match at.text(expected, |text| is_label_value(text).then_some(text)) {
            Some(value) => drop(labels.insert(key.to_owned(), value.to_owned())),
            None => whole = false,
        }
    }
    whole.then_some(labels)
}
