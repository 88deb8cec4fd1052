//! Changing part of an object: RFC 7396 and RFC 6902, on canonical documents.
//!
//! Owns the bounds of a patch. The result is a document like any other: it
//! must go through [`super::parse_value`] before it means anything.

use json_patch::PatchOperation;
use serde_json::Value;

/// How a patch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// `application/merge-patch+json`, RFC 7396.
    Merge,
    /// `application/json-patch+json`, RFC 6902.
    Json,
}

impl PatchType {
    /// Every type, as `Accept-Patch` lists them.
    pub const ACCEPTED: &str = "application/merge-patch+json, application/json-patch+json";

    /// The type that a `Content-Type` names, its parameters aside.
    pub fn from_content_type(value: &str) -> Option<Self> {
        let essence = value.split(';').next().unwrap_or_default().trim();
        [
            (Self::Merge, "application/merge-patch+json"),
            (Self::Json, "application/json-patch+json"),
        ]
        .into_iter()
        .find_map(|(kind, name)| essence.eq_ignore_ascii_case(name).then_some(kind))
    }
}

/// A patch that cannot be applied: the caller's fault each time.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// The body is not JSON, or not a list of operations.
    #[error("the patch cannot be read: {0}")]
    Malformed(#[source] serde_json::Error),
    /// More operations than an object has fields.
    #[error("the patch has {0} operations; at most {OPERATIONS_MAX} are taken")]
    TooMany(usize),
    /// An operation does not fit the object; none of them holds.
    #[error("operation {operation} of the patch, on `{path}`: {reason}")]
    Operation {
        /// Which one, from 1.
        operation: usize,
        /// The path it names.
        path: String,
        /// What does not fit; a failed `test` too.
        reason: String,
    },
    /// Copies of copies, and the like.
    #[error("the patched object would be larger than {} KiB", SIZE_MAX >> 10)]
    TooLarge,
}

/// Operations of one patch.
const OPERATIONS_MAX: usize = 1000;

/// What a patched object may take, about as many bytes as its JSON does.
const SIZE_MAX: usize = 1024 * 1024;

/// `current`, changed as `body` says.
///
/// # Errors
/// See [`PatchError`]; `current` is the caller's and stays as it is.
pub fn patch(current: &Value, kind: PatchType, body: &[u8]) -> Result<Value, PatchError> {
    let mut changed = current.clone();
    match kind {
        PatchType::Merge => {
            let patch: Value = serde_json::from_slice(body).map_err(PatchError::Malformed)?;
            json_patch::merge(&mut changed, &patch);
        }
        PatchType::Json => {
            let operations: Vec<PatchOperation> =
                serde_json::from_slice(body).map_err(PatchError::Malformed)?;
            if operations.len() > OPERATIONS_MAX {
                return Err(PatchError::TooMany(operations.len()));
            }
            // One by one: a few copies of copies would not fit into memory.
            for (index, operation) in operations.iter().enumerate() {
                json_patch::patch(&mut changed, std::slice::from_ref(operation)).map_err(
                    |error| PatchError::Operation {
                        operation: index + 1,
                        path: error.path.to_string(),
                        reason: error.kind.to_string(),
                    },
                )?;
                bounded(&changed)?;
            }
        }
    }
    bounded(&changed)?;
    Ok(changed)
}

fn bounded(value: &Value) -> Result<(), PatchError> {
    let mut left = SIZE_MAX;
    if fits(value, &mut left) {
        Ok(())
    } else {
        Err(PatchError::TooLarge)
    }
}

/// Takes the size of `value` off `left`; false at the first value too many.
fn fits(value: &Value, left: &mut usize) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => take(4, left),
        Value::String(text) => take(text.len() + 2, left),
        Value::Array(items) => take(2, left) && items.iter().all(|item| fits(item, left)),
        Value::Object(fields) => {
            let fit =
                |(key, field): (&String, &Value)| take(key.len() + 4, left) && fits(field, left);
            fields.iter().all(fit)
        }
    }
}

fn take(size: usize, left: &mut usize) -> bool {
    left.checked_sub(size).map(|rest| *left = rest).is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_merge_patch_sets_and_removes() {
        let current = json!({ "spec": { "a": 1, "b": 2 } });
        let patched = patch(&current, PatchType::Merge, br#"{"spec":{"a":null,"c":3}}"#).unwrap();
        assert_eq!(patched, json!({ "spec": { "b": 2, "c": 3 } }));
    }

    #[test]
    fn a_json_patch_holds_as_a_whole_or_not_at_all() {
        let current = json!({ "spec": { "weights": [50, 50] } });
        let good = br#"[{"op":"test","path":"/spec/weights/0","value":50},{"op":"replace","path":"/spec/weights/0","value":10}]"#;
        let patched = patch(&current, PatchType::Json, good).unwrap();
        assert_eq!(patched, json!({ "spec": { "weights": [10, 50] } }));
        let bad = br#"[{"op":"remove","path":"/spec"},{"op":"test","path":"/kind","value":"x"}]"#;
        let error = patch(&current, PatchType::Json, bad).unwrap_err();
        assert!(
            matches!(error, PatchError::Operation { operation: 2, .. }),
            "{error}"
        );
    }

    #[test]
    fn what_is_no_patch_is_malformed() {
        for (kind, body) in [
            (PatchType::Merge, "{"),
            (PatchType::Json, "{}"),
            (PatchType::Json, r#"[{"op":"frob"}]"#),
        ] {
            let error = patch(&json!({}), kind, body.as_bytes()).unwrap_err();
            assert!(matches!(error, PatchError::Malformed(_)), "{error}");
        }
    }

    #[test]
    fn copies_of_copies_end_at_the_bound() {
        let copies: Vec<_> = (0..60)
            .map(|number| json!({ "op": "copy", "from": "", "path": format!("/x{number}") }))
            .collect();
        let deep = patch(
            &json!({ "a": [1, 2, 3] }),
            PatchType::Json,
            &serde_json::to_vec(&copies).unwrap(),
        );
        assert!(matches!(deep, Err(PatchError::TooLarge)));
        let long = json!({ "text": "x".repeat(SIZE_MAX) }).to_string();
        let long = patch(&json!({}), PatchType::Merge, long.as_bytes());
        assert!(matches!(long, Err(PatchError::TooLarge)));
        let body = serde_json::to_vec(&vec![
            json!({ "op": "test", "path": "", "value": {} });
            OPERATIONS_MAX + 1
        ])
        .unwrap();
        assert!(matches!(
            patch(&json!({}), PatchType::Json, &body),
            Err(PatchError::TooMany(_))
        ));
    }

    #[test]
    fn content_types_name_the_patch() {
        assert_eq!(
            PatchType::from_content_type("Application/Merge-Patch+JSON; charset=utf-8"),
            Some(PatchType::Merge)
        );
        assert_eq!(
            PatchType::from_content_type("application/json-patch+json"),
            Some(PatchType::Json)
        );
        assert_eq!(
            PatchType::from_content_type("application/strategic-merge-patch+json"),
            None
        );
    }
}
