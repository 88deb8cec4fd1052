//! Finding the documents: files, formats, bounds.

use super::*;

const RULE: &str = "
apiVersion: weir.dev/v1
kind: RouteRule
metadata: {name: NAME}
spec:
  destination: {name: reviews}
  route:
  - labels: {version: v1}
";

fn rule(name: &str) -> String {
    RULE.replace("NAME", name)
}

fn parse_text(text: &str) -> Result<Parsed, Mistakes> {
    parse(&[Source::new("rules.yaml", text)])
}

fn names(parsed: &Parsed) -> Vec<&str> {
    parsed
        .objects
        .iter()
        .map(|object| object.name().name())
        .collect()
}

/// The mistakes of a text that must be refused, one a line.
fn refused(text: &str) -> String {
    parse_text(text).expect_err("must be refused").to_string()
}

#[test]
fn documents_are_found_however_they_are_divided() {
    let (a, b) = (rule("a"), rule("b"));
    for text in [
        format!("{a}---{b}"),
        format!("---{a}---{b}---\n"),
        format!("# a comment\n---\n# another\n---{a}--- # b follows{b}"),
        format!("{a}...\n{b}"),
        format!("%YAML 1.2\n---{a}...\n# nothing\n---\n---{b}..."),
        format!("\u{feff}{a}---{b}").replace('\n', "\r\n"),
    ] {
        assert_eq!(names(&parse_text(&text).unwrap()), ["a", "b"], "{text}");
    }
}

#[test]
fn nothing_at_all_is_no_mistake() {
    for text in [
        "",
        "\n",
        "# only this",
        "---",
        "---\n...\n",
        "null",
        "--- ~",
    ] {
        assert!(parse_text(text).unwrap().objects.is_empty(), "{text:?}");
    }
}

#[test]
fn json_is_read_one_document_or_many() {
    let a = parse_text(&rule("a")).unwrap().objects[0].to_json();
    let b = parse_text(&rule("b")).unwrap().objects[0].to_json();
    let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": [a, b] });
    let tabbed = serde_json::to_string_pretty(&a)
        .unwrap()
        .replace("  ", "\t");
    for (text, expected) in [
        (a.to_string(), vec!["a"]),
        (format!("{a}{b}"), vec!["a", "b"]),
        (format!("{a:#}\n\n{b:#}\n"), vec!["a", "b"]),
        (list.to_string(), vec!["a", "b"]),
        (tabbed, vec!["a"]),
        // Flow-style YAML looks like JSON at first.
        (
            "{apiVersion: weir.dev/v1, kind: MeshConfig, metadata: {name: default}, spec: {}}"
                .into(),
            vec!["default"],
        ),
    ] {
        assert_eq!(names(&parse_text(&text).unwrap()), expected, "{text}");
    }
}

#[test]
fn anchors_and_merge_keys_unfold_within_their_document() {
    let text = "
apiVersion: v1
kind: List
items:
- &first
  apiVersion: weir.dev/v1
  kind: RouteRule
  metadata: {name: a}
  spec: &spec
    destination: {name: reviews}
    route: [{labels: {version: v1}}]
- <<: *first
  metadata: {name: b}
";
    let parsed = parse_text(text).unwrap();
    assert_eq!(names(&parsed), ["a", "b"]);
    assert!(
        refused(&format!("a: &x 1\n---{}  precedence: *x", rule("a")))
            .contains("document 2: line ")
    );
}

#[test]
fn a_broken_document_does_not_hide_the_mistakes_of_the_others() {
    let text = format!("{}---\n{{ : [\n---{}---\nkind: [\n", rule("A"), rule("B"));
    let mistakes = parse_text(&text).unwrap_err().mistakes;
    let places: Vec<_> = mistakes
        .iter()
        .map(|mistake| (mistake.document.unwrap(), mistake.path.as_str()))
        .collect();
    assert_eq!(places.len(), 4, "{mistakes:#?}");
    assert_eq!(places[0], (1, "metadata.name"));
    assert_eq!(places[2], (3, "metadata.name"));
    assert!(
        places[1].0 == 2 && places[1].1.starts_with("line 1"),
        "{places:?}"
    );
    assert!(
        places[3].0 == 4 && places[3].1.starts_with("line 2"),
        "{places:?}"
    );
}

#[test]
fn files_are_told_apart() {
    let sources = [
        Source::new("a.yaml", rule("A")),
        Source::new("b.yaml", rule("b")),
        Source::new("-", "kind: x"),
    ];
    let text = parse(&sources).unwrap_err().to_string();
    assert!(
        text.contains("a.yaml: document 1: metadata.name: \"A\": expected a name"),
        "{text}"
    );
    assert!(
        text.contains("-: document 1: apiVersion: absent: expected"),
        "{text}"
    );
}

#[test]
fn an_object_may_be_given_once_only() {
    let sources = [
        Source::new("a.yaml", rule("a")),
        Source::new("b.yaml", format!("{}---{}", rule("b"), rule("a"))),
    ];
    assert_eq!(
        parse(&sources).unwrap_err().to_string(),
        "b.yaml: document 2: RouteRule default/a: expected each object once; it is in a.yaml, document 1 too"
    );
}

#[test]
fn lines_of_yaml_mistakes_are_those_of_the_file() {
    let text = format!("{}---\nkind: 'open\n", rule("a"));
    let line = text.lines().count();
    let refused = refused(&text);
    assert!(
        refused.contains(&format!("line {line},"))
            || refused.contains(&format!("line {},", line + 1)),
        "{refused}"
    );
    assert!(
        !refused.contains('\n'),
        "one mistake is one line: {refused}"
    );
}

#[test]
fn what_is_not_a_map_is_no_document() {
    for text in ["just text", "42", "- a\n- b", "[1, 2]", "true"] {
        let refused = refused(text);
        assert!(
            refused.contains("expected a map with apiVersion, kind, metadata and spec"),
            "{text}: {refused}"
        );
    }
}

#[test]
fn an_alias_bomb_goes_off_outside() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let below = format!("*a{}", level - 1);
        let all = vec![below; 10].join(", ");
        bomb = format!("{bomb}a{level}: &a{level} [{all}]\n");
    }
    let refused = refused(&bomb);
    assert!(refused.contains("document 1:"), "{refused}");
}

#[test]
fn depth_and_size_are_bounded() {
    for open in ["[", "{\"a\":", "- "] {
        refused(&open.repeat(100_000));
    }
    let many = "---\n".repeat(DOCUMENTS_MAX + 2);
    assert_eq!(
        refused(&many),
        "rules.yaml: document 1: expected at most 500000 documents in one file"
    );
    let expected = "expected at most 64 MiB of input in one go";
    assert!(refused(&"#".repeat(INPUT_MAX + 1)).ends_with(expected));
    let half = Source::new("half", "#".repeat(INPUT_MAX / 2 + 1));
    assert!(
        parse(&[half.clone(), half])
            .unwrap_err()
            .to_string()
            .ends_with(expected)
    );
}

#[test]
fn too_many_values_are_refused_before_they_are_built() {
    for text in ["[1,2,3,[4]]", "[a, 2, 3, [4]]"] {
        let left = Budget(AtomicUsize::new(4));
        let outcome = documents(text, &left);
        assert!(
            matches!(outcome.as_slice(), [Err(Unreadable { expected, .. })] if expected.contains("too many values"))
        );
    }
}

#[test]
fn the_resource_version_is_handed_on() {
    let with = |version: &str| {
        rule("a").replace(
            "{name: a}",
            &format!("{{name: a, resourceVersion: {version}}}"),
        )
    };
    let name = ObjectName::new("default", "a");
    let parsed = parse_text(&with("\"7\"")).unwrap();
    assert_eq!(
        parsed
            .resource_version(Kind::RouteRule, &name)
            .unwrap()
            .to_string(),
        "7"
    );
    assert_eq!(parsed.resource_version(Kind::EgressRule, &name), None);
    for bad in ["7", "\"x\"", "\"-1\"", "\"0\"", "\"7.0\""] {
        assert!(
            refused(&with(bad)).contains("metadata.resourceVersion: "),
            "{bad}"
        );
    }
}

#[test]
fn a_hundred_thousand_workloads_fit_into_one_input() {
    let items: Vec<_> = (0..100_000)
        .map(|number| {
            serde_json::json!({
                "apiVersion": "weir.dev/v1", "kind": "Workload",
                "metadata": { "name": format!("pod-{number}"), "labels": { "app": "a", "version": "v1", "zone": "z" } },
                "spec": { "addresses": [std::net::Ipv4Addr::from_bits(0x0a00_0000 + number)], "node": "node-1" },
            })
        })
        .collect();
    let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": items });
    assert_eq!(
        parse_text(&list.to_string()).unwrap().objects.len(),
        100_000
    );
}

#[test]
fn many_documents_keep_their_order_and_their_numbers() {
    let line = |name: &str| {
        let spec = r#"{"spec":{"destination":{"name":"a"},"route":[{}]},"kind":"RouteRule","#;
        format!("{spec}\"apiVersion\":\"weir.dev/v1\",\"metadata\":{{\"name\":\"{name}\"}}}}\n")
    };
    let mut lines: Vec<String> = (0..5_000)
        .map(|number| line(&format!("r{number}")))
        .collect();
    let parsed = parse_text(&lines.concat()).unwrap();
    let expected: Vec<_> = (0..5_000).map(|number| format!("r{number}")).collect();
    assert_eq!(names(&parsed), expected);
    lines[4_000] = line("r7");
    lines[3_000] = line("R");
    lines[4_999] = line("R");
    let mistakes = parse_text(&lines.concat()).unwrap_err().to_string();
    let said: Vec<_> = mistakes.lines().collect();
    assert_eq!(said.len(), 3, "{mistakes}");
    assert!(said[0].starts_with("rules.yaml: document 3001: metadata.name: \"R\""));
    assert!(said[1].starts_with("rules.yaml: document 4001: RouteRule default/r7"));
    assert!(
        said[1].ends_with("rules.yaml, document 8 too"),
        "{mistakes}"
    );
    assert!(said[2].starts_with("rules.yaml: document 5000: metadata.name: \"R\""));
    // What ends badly is no JSON at all; YAML says where.
    lines.push("{\"kind\": ".into());
    assert!(refused(&lines.concat()).contains("line "), "said where");
}

#[test]
fn the_examples_of_the_documentation_are_right() {
    let text = include_str!("../../../../docs/kinds.md");
    let examples: Vec<_> = text
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default())
        .collect();
    assert_eq!(examples.len(), 5, "one for each kind");
    for example in examples {
        let parsed = parse_text(example).unwrap_or_else(|mistakes| panic!("{mistakes}\n{example}"));
        assert!(
            !parsed.objects.is_empty() && parsed.warnings.is_empty(),
            "{:?}\n{example}",
            parsed.warnings
        );
    }
}
