//! Rules as people wrote them for Istio 0.x.

use super::{Object, parse_text};
use crate::config::object::RequestField;

const BOOKINFO: &str = r#"
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata:
  name: reviews-default
spec:
  destination:
    name: reviews
  precedence: 1
  route:
  - labels:
      version: v1
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata:
  name: reviews-test-v2
  namespace: default
spec:
  destination:
    name: reviews
  precedence: 2
  match:
    request:
      headers:
        cookie:
          regex: "^(.*?;)?(user=jason)(;.*)?$"
  route:
  - labels:
      version: v2
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata:
  name: reviews-50-v3
spec:
  destination:
    name: reviews
  precedence: 3
  match:
    source:
      name: productpage
      labels:
        version: v1
  route:
  - labels:
      version: v1
    weight: 50
  - labels:
      version: v3
    weight: 50
---
apiVersion: config.istio.io/v1alpha2
kind: EgressRule
metadata:
  name: foo-egress-rule
spec:
  destination:
    service: "*.foo.com"
  ports:
    - port: 80
      protocol: http
---
apiVersion: config.istio.io/v1alpha2
kind: EgressRule
metadata:
  name: mongo
spec:
  destination:
    service: 192.0.2.0/24
  ports:
  - port: 27017
    protocol: tcp
"#;

#[test]
fn rules_written_for_istio_apply_unchanged() {
    let parsed = parse_text(BOOKINFO).unwrap();
    assert!(parsed.warnings.is_empty(), "{:?}", parsed.warnings);
    let names: Vec<_> = parsed.objects.iter().map(ToString::to_string).collect();
    assert_eq!(
        names,
        [
            "RouteRule default/reviews-default",
            "RouteRule default/reviews-test-v2",
            "RouteRule default/reviews-50-v3",
            "EgressRule default/foo-egress-rule",
            "EgressRule default/mongo",
        ]
    );
    let Object::RouteRule(jason) = &parsed.objects[1] else {
        panic!("a RouteRule")
    };
    let (field, value) = &jason.request[0];
    assert_eq!(*field, RequestField::Header("cookie".into()));
    assert!(
        value.matches("a=b;user=jason;c=d")
            && value.matches("user=jason")
            && !value.matches("user=jasonx")
    );
    // What is shown again is weir's own spelling, and means the same.
    assert_eq!(parsed.objects[1].to_json()["apiVersion"], "weir.dev/v1");
}

#[test]
fn what_istio_could_do_and_this_version_cannot_is_said() {
    let fault = r"
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata:
  name: ratings-test-delay
spec:
  destination:
    name: ratings
  precedence: 2
  route:
  - labels:
      version: v1
  httpFault:
    delay:
      percent: 100
      fixedDelay: 7s
---
apiVersion: config.istio.io/v1alpha2
kind: DestinationPolicy
metadata:
  name: reviews
spec:
  circuitBreaker: {}
---
apiVersion: config.istio.io/v1alpha2
kind: EgressRule
metadata:
  name: google
spec:
  destination:
    service: www.google.com
  ports:
  - port: 443
    protocol: https
";
    let text = parse_text(fault).unwrap_err().to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(
        lines[0].contains("document 1: spec.httpFault: {…}: expected no `httpFault`"),
        "{text}"
    );
    assert!(
        lines[1].contains("document 2: kind: \"DestinationPolicy\": expected no DestinationPolicy"),
        "{text}"
    );
    assert!(
        lines[2].contains(
            "document 3: spec.ports[0].protocol: \"https\": expected `http` for a host name"
        ),
        "{text}"
    );
}
