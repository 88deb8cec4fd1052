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

#[cfg(test)]
mod tests {
    use super::super::{Source, parse};
    use super::*;

    fn rule(version: &str) -> Object {
        let text = format!(
            "{{apiVersion: weir.dev/v1, kind: RouteRule, metadata: {{name: r}},
              spec: {{destination: {{name: s}}, route: [{{labels: {{version: {version}}}}}]}}}}"
        );
        parse(&[Source::new("f", text)]).unwrap().objects.remove(0)
    }

    #[test]
    fn yaml_reads_as_people_write_it() {
        let expected = "\
apiVersion: weir.dev/v1
kind: RouteRule
metadata:
  name: r
  namespace: default
spec:
  destination:
    name: s
    namespace: default
  precedence: 0
  route:
  - labels:
      version: v1
    weight: 100
";
        assert_eq!(to_yaml(&rule("v1").to_json()), expected);
    }

    #[test]
    fn a_difference_is_shown_with_what_is_around_it() {
        let expected = "\
--- RouteRule default/r
+++ RouteRule default/r
@@ -10,5 +10,5 @@
   precedence: 0
   route:
   - labels:
-      version: v1
+      version: v2
     weight: 100
";
        assert_eq!(diff(Some(&rule("v1")), Some(&rule("v2"))), expected);
        assert_eq!(diff(Some(&rule("v1")), Some(&rule("v1"))), "");
        assert!(
            diff(None, Some(&rule("v1")))
                .starts_with("--- /dev/null\n+++ RouteRule default/r\n@@ -0,0 +1,14 @@\n")
        );
        assert!(
            diff(Some(&rule("v1")), None).starts_with("--- RouteRule default/r\n+++ /dev/null\n")
        );
    }
}
