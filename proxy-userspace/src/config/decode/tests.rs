//! What each kind takes and what it refuses, and in which words.

use super::super::{Kind, Object, Parsed, Source, parse};

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

/// Every row is a spec, and what its only mistake must say, place included.
fn refuses(kind: Kind, rows: &[(&str, &str)]) {
    for (spec, expected) in rows {
        let mistakes = parse_text(&document(kind, spec))
            .map(|parsed| parsed.objects)
            .expect_err(spec);
        let text = mistakes.to_string();
        assert_eq!(mistakes.len(), 1, "{spec}: {text}");
        let said = text
            .strip_prefix("f: document 1: ")
            .expect("names file and document");
        assert!(
            said.starts_with(expected),
            "{spec}\n  said     {said}\n  expected {expected}"
        );
    }
}

/// Every row is a spec, and what its only warning must say.
fn warns(kind: Kind, rows: &[(&str, &str)]) {
    for (spec, expected) in rows {
        let (_, warnings) = accepted(kind, spec);
        assert_eq!(warnings.len(), 1, "{spec}: {warnings:?}");
        assert!(
            warnings[0].starts_with(&format!("f: document 1: {expected}")),
            "{spec}: {warnings:?}"
        );
    }
}

#[test]
fn every_mistake_is_named() {
    let text = "
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
    let mistakes = parse_text(text).unwrap_err();
    let said: Vec<_> = mistakes
        .mistakes
        .iter()
        .map(|mistake| mistake.path.as_str())
        .collect();
    for path in [
        "apiVersion",
        "metadata.name",
        "metadata.lables",
        "spec.destination.name",
        "spec.destination.nam",
        "spec.precedence",
        "spec.match.request.headers.cookie.regex",
        "spec.match.request.headers.uri.prefix",
        "spec.match.request.headers.Cookie.exakt",
        "spec.match.request.headers.Cookie",
        "spec.route[0].labels.version",
        "spec.route[0].weight",
        "spec.route[1].labels",
        "spec.route[1].weight",
        "spec.route[2].weight",
        "spec.httpFault",
        "spec.timeout",
    ] {
        assert_eq!(
            said.iter().filter(|said| **said == path).count(),
            1,
            "{path}: {mistakes}"
        );
    }
    assert_eq!(said.len(), 17, "{mistakes}");
    let text = mistakes.to_string();
    for line in [
        "f: document 1: apiVersion: \"weir.dev/v2\": expected weir.dev/v1 or config.istio.io/v1alpha2 for a RouteRule",
        "f: document 1: metadata.lables: {…}: expected no field of this name; did you mean `labels`?",
        "f: document 1: spec.destination.name: absent: expected the name of a Service",
        "f: document 1: spec.route[0].labels.version: 1: expected a string; put it in quotes",
        "f: document 1: spec.route[0].weight: 101: expected a whole number from 0 to 100",
        "f: document 1: spec.route[2].weight: given twice: expected each key once",
        "f: document 1: spec.match.request.headers.cookie.regex: \"(\": expected a regular expression (RE2 syntax): unclosed group",
    ] {
        assert!(
            text.lines().any(|said| said == line),
            "{line}\nnot in\n{text}"
        );
    }
}

#[test]
fn envelopes() {
    let rows = [
        (
            "{kind: RouteRule}",
            "apiVersion: absent: expected `weir.dev/v1`",
        ),
        (
            "{apiVersion: weir.dev/v1}",
            "kind: absent: expected one of Service, ",
        ),
        (
            "{apiVersion: weir.dev/v1, kind: RoutRule}",
            "kind: \"RoutRule\": expected one of Service, ",
        ),
        (
            "{apiVersion: '', kind: EgressRule}",
            "apiVersion: \"\": expected `weir.dev/v1`",
        ),
        (
            "{apiVersion: weir.dev/v1, kind: DestinationPolicy, spec: {}}",
            "kind: \"DestinationPolicy\": expected no DestinationPolicy: it comes with a later version",
        ),
        (
            "{apiVersion: config.istio.io/v1alpha2, kind: DestinationPolicy}",
            "kind: \"DestinationPolicy\": expected no",
        ),
        (
            "{apiVersion: config.istio.io/v1alpha2, kind: MeshConfig, metadata: {name: default}, spec: {}}",
            "apiVersion: \"config.istio.io/v1alpha2\": expected weir.dev/v1 for a MeshConfig",
        ),
        (
            "{apiVersion: weir.dev/v1, kind: Service, metadata: {name: a}, spec: {}}",
            "apiVersion: \"weir.dev/v1\": expected v1 for a Service",
        ),
        (
            "{apiVersion: weir.de/v1, kind: MeshConfig, metadata: {name: a}, spec: {}}",
            "apiVersion: \"weir.de/v1\"",
        ),
        (
            "{apiVersion: v1, kind: Service, spec: {}}",
            "metadata: absent: expected a map with at least a name",
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: a}}",
            "spec: absent: expected a map",
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: []}",
            "spec: []: expected a map",
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: {}, spec: {}}",
            "metadata.name: absent: expected a name",
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: a.b}, spec: {}}",
            "metadata.name: \"a.b\": expected a name",
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {}, data: 1}",
            "data: 1: expected no field",
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: a, labels: {'a b': c}}, spec: {}}",
            "metadata.labels[\"a b\"]: \"c\": expected a label key",
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: a, labels: {a: 'b c'}}, spec: {}}",
            "metadata.labels.a: \"b c\": expected a label value",
        ),
        (
            "{apiVersion: weir.dev/v1, kind: MeshConfig, metadata: {name: a, namespace: a}, spec: {}}",
            "metadata.namespace: \"a\": expected `default`: a MeshConfig is named after the namespace",
        ),
        (
            "{apiVersion: v1, kind: List, itmes: []}",
            "itmes: []: expected no field of this name; did you mean `items`?",
        ),
        (
            "{apiVersion: v1, kind: List, items: [{kind: x}]}",
            "items[0].apiVersion: absent: expected",
        ),
    ];
    for (text, expected) in rows {
        let text = parse_text(text)
            .map(|parsed| parsed.objects)
            .expect_err(text)
            .to_string();
        assert!(
            text.starts_with(&format!("f: document 1: {expected}")) && !text.contains('\n'),
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
