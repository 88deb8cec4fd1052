//! What each kind takes and what it refuses, and in which words.

use crate::config::{Kind, Object, Parsed, Source, parse};

mod egress;
mod inventory;
mod istio;
mod mesh;
mod route;

fn parse_text(text: &str) -> Result<Parsed, super::Mistakes> {
    parse(&[Source::new("f", text)])
}

/// A document of `kind` with this spec, in flow style.
fn document(kind: Kind, spec: &str) -> String {
    let version = kind.api_version();
    let name = if kind == Kind::MeshConfig {
        "default"
    } else {
        "a"
    };
    format!("{{apiVersion: {version}, kind: {kind}, metadata: {{name: {name}}}, spec: {spec}}}")
}

fn accepted(kind: Kind, spec: &str) -> (Object, Vec<String>) {
    let mut parsed =
        parse_text(&document(kind, spec)).unwrap_or_else(|mistakes| panic!("{spec}: {mistakes}"));
    let warnings = parsed.warnings.iter().map(ToString::to_string).collect();
    (parsed.objects.remove(0), warnings)
}

/// The rows of a table: `found => said`, one a line.
fn rows(table: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = table.lines().filter(|line| !line.is_empty());
    lines.map(|line| {
        line.split_once(" => ")
            .unwrap_or_else(|| panic!("no row: {line}"))
    })
}

/// Every row is a spec, and how its only mistake begins.
fn refuses(kind: Kind, table: &str) {
    refuses_in(kind, "@", "", table);
}

/// Every row is what stands for `@` in the spec, and how its only mistake,
/// at `place`, begins.
fn refuses_in(kind: Kind, spec: &str, place: &str, table: &str) {
    for (found, said) in rows(table) {
        let spec = spec.replace('@', found);
        let mistakes = parse_text(&document(kind, &spec))
            .map(|parsed| parsed.objects)
            .expect_err(&spec);
        let text = mistakes.to_string();
        assert_eq!(mistakes.len(), 1, "{spec}: {text}");
        let expected = format!("f: document 1: {place}{said}");
        assert!(
            text.starts_with(&expected),
            "{spec}\n  says     {text}\n  expected {expected}"
        );
    }
}

/// Every row is a spec, and how its only warning begins.
fn warns(kind: Kind, table: &str) {
    for (spec, said) in rows(table) {
        let (_, warnings) = accepted(kind, spec);
        assert_eq!(warnings.len(), 1, "{spec}: {warnings:?}");
        assert!(
            warnings[0].starts_with(&format!("f: document 1: {said}")),
            "{spec}: {warnings:?}"
        );
    }
}

const EVERYTHING_WRONG: &str = "
apiVersion: weir.dev/v2
kind: RouteRule
metadata:
  name: Reviews
  lables: {a: b}
spec:
  destination: {nam: reviews}
  precedence: high
  match:
    request:
      headers:
        cookie: {regex: '('}
        uri: {prefix: 5}
        Cookie: {exakt: x}
  route:
  - labels: {version: 1}
    weight: 101
  - labels: [v2]
  - weight: 50
    weight: 50
  httpFault: {}
  timeout: 5s
";

const EVERY_MISTAKE: &str = r#"
apiVersion: "weir.dev/v2": expected weir.dev/v1 or config.istio.io/v1alpha2 for a RouteRule
metadata.lables: {…}: expected no field of this name; did you mean `labels`?
metadata.name: "Reviews": expected a name of lower-case letters, digits, `-` and `.` (RFC 1123 subdomain)
spec.destination.nam: "reviews": expected no field of this name; did you mean `name`?
spec.destination.name: absent: expected the name of a Service
spec.httpFault: {}: expected no `httpFault`: it comes with a later version, this one does not enforce it
spec.match.request.headers.Cookie.exakt: "x": expected no field of this name; did you mean `exact`?
spec.match.request.headers.Cookie: {…}: expected one of `exact`, `prefix`, `regex`, with a string
spec.match.request.headers.cookie.regex: "(": expected a regular expression (RE2 syntax): unclosed group
spec.match.request.headers.uri.prefix: 5: expected a string; put it in quotes
spec.precedence: "high": expected a whole number from -2147483648 to 2147483647
spec.route[0].labels.version: 1: expected a string; put it in quotes
spec.route[0].weight: 101: expected a whole number from 0 to 100
spec.route[1].labels: […]: expected a map
spec.route[1].weight: absent: expected a whole number from 0 to 100
spec.route[2].weight: given twice: expected each key once
spec.timeout: "5s": expected no field of this name; known here: destination, precedence, match, route
"#;

#[test]
fn every_mistake_is_named() {
    let text = parse_text(EVERYTHING_WRONG).unwrap_err().to_string();
    let mut said: Vec<_> = text
        .lines()
        .map(|line| line.strip_prefix("f: document 1: ").expect(line))
        .collect();
    said.sort_unstable();
    assert_eq!(said.join("\n"), EVERY_MISTAKE.trim());
}

const ENVELOPES: &str = r#"
{kind: RouteRule} => apiVersion: absent: expected `weir.dev/v1`
{apiVersion: weir.dev/v1} => kind: absent: expected one of Service,
{apiVersion: weir.dev/v1, kind: RoutRule} => kind: "RoutRule": expected one of Service,
{apiVersion: '', kind: EgressRule} => apiVersion: "": expected `weir.dev/v1`
{apiVersion: weir.dev/v1, kind: DestinationPolicy, spec: {}} => kind: "DestinationPolicy": expected no DestinationPolicy: it comes with a later
{apiVersion: config.istio.io/v1alpha2, kind: DestinationPolicy} => kind: "DestinationPolicy": expected no DestinationPolicy: it comes with
{apiVersion: config.istio.io/v1alpha2, kind: MeshConfig, metadata: {name: default}, spec: {}} => apiVersion: "config.istio.io/v1alpha2": expected weir.dev/v1 for a MeshConfig
{apiVersion: weir.dev/v1, kind: Service, metadata: {name: a}, spec: {}} => apiVersion: "weir.dev/v1": expected v1 for a Service
{apiVersion: weir.de/v1, kind: MeshConfig, metadata: {name: a}, spec: {}} => apiVersion: "weir.de/v1": expected weir.dev/v1 for a MeshConfig
{apiVersion: v1, kind: Service, spec: {}} => metadata: absent: expected a map with at least a name
{apiVersion: v1, kind: Service, metadata: {name: a}} => spec: absent: expected a map
{apiVersion: v1, kind: Service, metadata: {name: a}, spec: []} => spec: []: expected a map
{apiVersion: v1, kind: Service, metadata: {}, spec: {}} => metadata.name: absent: expected a name
{apiVersion: v1, kind: Service, metadata: {name: a.b}, spec: {}} => metadata.name: "a.b": expected a name
{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {}, data: 1} => data: 1: expected no field
{apiVersion: v1, kind: Service, metadata: {name: a, labels: {'a b': c}}, spec: {}} => metadata.labels["a b"]: "c": expected a label key
{apiVersion: v1, kind: Service, metadata: {name: a, labels: {a: 'b c'}}, spec: {}} => metadata.labels.a: "b c": expected a label value
{apiVersion: weir.dev/v1, kind: MeshConfig, metadata: {name: a, namespace: a}, spec: {}} => metadata.namespace: "a": expected `default`: a MeshConfig is named after the namespace
{apiVersion: v1, kind: List, itmes: []} => itmes: []: expected no field of this name; did you mean `items`?
{apiVersion: v1, kind: List, items: [{apiVersion: v1}]} => items[0].kind: absent: expected one of Service,
"#;

#[test]
fn envelopes() {
    for (text, said) in rows(ENVELOPES) {
        let text = parse_text(text)
            .map(|parsed| parsed.objects)
            .expect_err(text)
            .to_string();
        assert!(
            text.starts_with(&format!("f: document 1: {said}")) && !text.contains('\n'),
            "{text}"
        );
    }
}

#[test]
fn what_is_not_ours_is_passed_by_with_a_warning() {
    for (text, expected) in [
        (
            "{apiVersion: apps/v1, kind: Deployment, whatever: [1]}",
            "Deployment of apps/v1 is not weir's, left out",
        ),
        (
            "{apiVersion: v1, kind: ConfigMap}",
            "ConfigMap of v1 is not weir's",
        ),
        (
            "{apiVersion: serving.knative.dev/v1, kind: Service}",
            "Service of serving.knative.dev/v1 is not weir's",
        ),
        (
            "{apiVersion: kueue.x-k8s.io/v1beta1, kind: Workload}",
            "Workload of kueue.x-k8s.io/v1beta1 is not weir's",
        ),
        (
            "{apiVersion: config.istio.io/v1alpha2, kind: handler}",
            "handler of config.istio.io/v1alpha2 is not",
        ),
    ] {
        let parsed = parse_text(text).unwrap();
        assert!(parsed.objects.is_empty(), "{text}");
        assert!(
            parsed.warnings[0]
                .to_string()
                .starts_with(&format!("f: document 1: {expected}")),
            "{text}"
        );
    }
}

#[test]
fn server_side_fields_are_ignored_with_one_warning() {
    let text = "
apiVersion: v1
kind: Service
metadata: {name: a, uid: x, annotations: {any: thing}, creationTimestamp: null, generation: 3}
spec: {type: ClusterIP, ipFamilies: [IPv4], clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], sessionAffinity: None}
status: {loadBalancer: {}}
";
    let warnings: Vec<_> = parse_text(text)
        .unwrap()
        .warnings
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        warnings,
        [
            "f: document 1: metadata: metadata not used by weir, left out: `annotations`, `creationTimestamp`, `generation`, `uid`",
            "f: document 1: spec: fields not used by weir, left out: `ipFamilies`, `type`",
            "f: document 1: server-side state not used by weir, left out: `status`",
        ]
    );
}
