//! Objects as text for people: YAML, and what differs between two of them.

use serde_json::Value;
use similar::TextDiff;

use super::Object;

/// Lines around a change that are shown.
const CONTEXT: usize = 3;

/// The canonical document of an object, or any other JSON, as YAML.
pub fn to_yaml(value: &Value) -> String {
    // Writing to memory fails only for values that JSON cannot hold.
    serde_saphyr::to_string(value).unwrap_or_else(|_| value.to_string())
}

/// What `new` changes about `old`, as a unified diff of YAML; empty if nothing.
/// An absent side is one that is created or deleted.
pub fn diff(old: Option<&Object>, new: Option<&Object>) -> String {
    let text = |object: Option<&Object>| {
        object.map_or_else(String::new, |object| to_yaml(&object.to_json()))
    };
    let title = |object: Option<&Object>| {
        object.map_or_else(|| "/dev/null".to_owned(), ToString::to_string)
    };
    let (before, after) = (text(old), text(new));
    if before == after {
        return String::new();
    }
    TextDiff::from_lines(&before, &after)
        .unified_diff()
        .context_radius(CONTEXT)
        .header(&title(old), &title(new))
        .to_string()
}
