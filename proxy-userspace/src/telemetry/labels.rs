//! The labels of each metric, from those of its series.

use std::borrow::Cow;

use super::series::{Key, OTHER};

/// Names and values, in the order in which they are shown.
pub(super) type LabelSet<'a> = Vec<(&'static str, Cow<'a, str>)>;

/// The labels that name both ends.
pub(super) fn ends(key: Key<'_>) -> LabelSet<'_> {
    let kind = if key.external { "external" } else { "service" };
    vec![
        ("source", key.source.into()),
        ("destination", key.destination.into()),
        ("destination_kind", kind.into()),
    ]
}

/// The labels of what went through the proxy.
pub(super) fn traffic(key: Key<'_>) -> LabelSet<'_> {
    let mut labels = ends(key);
    labels.extend([
        ("version", key.detail.into()),
        ("reason", key.reason.into()),
    ]);
    labels
}

pub(super) fn request(key: Key<'_>) -> LabelSet<'_> {
    let code = match key.code {
        0 => OTHER.into(),
        code => code.to_string().into(),
    };
    let mut labels = traffic(key);
    labels.push(("code", code));
    labels
}

pub(super) fn refused(key: Key<'_>) -> LabelSet<'_> {
    vec![
        ("source", key.source.into()),
        ("destination", key.destination.into()),
        ("rule", key.detail.into()),
        ("reason", key.reason.into()),
    ]
}

pub(super) fn with<'a>(
    mut labels: LabelSet<'a>,
    name: &'static str,
    value: &'static str,
) -> LabelSet<'a> {
    labels.push((name, value.into()));
    labels
}
