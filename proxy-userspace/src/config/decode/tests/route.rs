//! Route rules.

use super::super::super::object::{ObjectName, RequestField, RouteRule};
use super::{Kind, Object, accepted, refuses};

#[test]
fn routes_and_weights() {
    let spec = |routes: &str| format!("{{destination: {{name: b}}, route: [{routes}]}}");
    for (routes, expected) in [
        ("{}", vec![100]),
        ("{labels: {v: '1'}}", vec![100]),
        ("{weight: 100}", vec![100]),
        ("{weight: 0}, {labels: {v: '1'}, weight: 100}", vec![0, 100]),
        ("{weight: 33}, {weight: 33}, {weight: 34}", vec![33, 33, 34]),
        ("{destination: {name: b}}", vec![100]),
    ] {
        let Object::RouteRule(rule) = accepted(Kind::RouteRule, &spec(routes)).0 else {
            panic!("a RouteRule")
        };
        assert_eq!(
            rule.routes
                .iter()
                .map(|route| route.weight)
                .collect::<Vec<_>>(),
            expected,
            "{routes}"
        );
    }
    for (routes, expected) in [
        ("", "spec.route: []: expected at least one route"),
        (
            "{weight: 50}",
            "spec.route: weights that sum to 50: expected weights that sum to 100",
        ),
        (
            "{weight: 50}, {weight: 51}",
            "spec.route: weights that sum to 101: expected weights that sum to 100",
        ),
        (
            "{weight: 100}, {}",
            "spec.route[1].weight: absent: expected a whole number from 0 to 100",
        ),
        (
            "{weight: -1}",
            "spec.route[0].weight: -1: expected a whole number from 0 to 100",
        ),
        (
            "{weight: 50.5}",
            "spec.route[0].weight: 50.5: expected a whole number from 0 to 100",
        ),
        (
            "{weight: 1e2}",
            "spec.route[0].weight: 100.0: expected a whole number",
        ),
        (
            "{tags: {a: b}}",
            "spec.route[0].tags: {…}: expected no field of this name; known here: labels, weight",
        ),
        (
            "{destination: {name: c}}",
            "spec.route[0].destination: {…}: expected no other destination than the rule's: it comes with a later",
        ),
    ] {
        refuses(Kind::RouteRule, &[(&spec(routes), expected)]);
    }
}

#[test]
fn route_fields_of_later_versions_are_refused_by_name() {
    for field in [
        "redirect",
        "rewrite",
        "httpReqTimeout",
        "httpReqRetries",
        "httpFault",
        "l4Fault",
        "mirror",
        "corsPolicy",
        "appendHeaders",
        "websocketUpgrade",
    ] {
        for value in ["{}", "true", "null"] {
            let spec = format!("{{destination: {{name: b}}, route: [{{}}], {field}: {value}}}");
            let place = format!(
                "spec.{field}: {value}: expected no `{field}`: it comes with a later version, this one"
            );
            refuses(Kind::RouteRule, &[(&spec, &place)]);
        }
    }
}

#[test]
fn matches() {
    let spec = |condition: &str| {
        format!("{{destination: {{name: b}}, route: [{{}}], match: {condition}}}")
    };
    let rule = |condition: &str| -> std::sync::Arc<RouteRule> {
        let Object::RouteRule(rule) = accepted(Kind::RouteRule, &spec(condition)).0 else {
            panic!("a RouteRule")
        };
        rule
    };
    for nothing in [
        "{}",
        "null",
        "{source: {}}",
        "{request: {}}",
        "{request: {headers: {}}}",
    ] {
        let rule = rule(nothing);
        assert!(
            rule.source.is_none() && rule.request.is_empty(),
            "{nothing}"
        );
    }
    let from = rule("{source: {name: c, labels: {v: '1'}}}")
        .source
        .clone()
        .unwrap();
    assert_eq!(
        (from.service, from.labels.len()),
        (Some(ObjectName::new("default", "c")), 1)
    );
    let headers = rule(
        "{request: {headers: {X-User: {exact: jason}, URI: {prefix: /a}, method: {regex: GET|HEAD}}}}",
    );
    let [(uri, starts), (method, pattern), (user, exact)] = headers.request.as_slice() else {
        panic!("three")
    };
    assert_eq!(
        (uri, method, user),
        (
            &RequestField::Uri,
            &RequestField::Method,
            &RequestField::Header("x-user".into())
        )
    );
    assert!(starts.matches("/ab") && !starts.matches("b/a"));
    assert!(pattern.matches("HEAD") && !pattern.matches("HEADER") && !pattern.matches("XGET"));
    assert!(exact.matches("jason") && !exact.matches("Jason"));
    for (condition, expected) in [
        (
            "{source: {namespace: c}}",
            "spec.match.source.namespace: \"c\": expected no `namespace`: a source is a Service",
        ),
        (
            "{tcp: {}}",
            "spec.match.tcp: {}: expected no `tcp`: it comes with a later version",
        ),
        (
            "{request: {uri: {exact: a}}}",
            "spec.match.request.uri: {…}: expected no field of this name; known here: headers",
        ),
        (
            "{request: {headers: {a: b}}}",
            "spec.match.request.headers.a: \"b\": expected a map",
        ),
        (
            "{request: {headers: {a: {}}}}",
            "spec.match.request.headers.a: {}: expected one of `exact`, `prefix`, `regex`",
        ),
        (
            "{request: {headers: {a: {exact: b, prefix: c}}}}",
            "spec.match.request.headers.a: {…}: expected one of `exact`, `prefix`, `regex`",
        ),
        (
            "{request: {headers: {'a b': {exact: c}}}}",
            "spec.match.request.headers[\"a b\"]: {…}: expected `uri`, `method`",
        ),
        (
            "{request: {headers: {a: {exact: c}, A: {exact: d}}}}",
            "spec.match.request.headers: {…}: expected each header once",
        ),
        (
            "{request: {headers: {a: {regex: 'a)|(b'}}}}",
            "spec.match.request.headers.a.regex: \"a)|(b\": expected a regular expression (RE2 syntax): unopened group",
        ),
        (
            "{request: {headers: {a: {regex: '(a{1000}){1000}'}}}}",
            "spec.match.request.headers.a.regex: \"(a{1000}){1000}\": expected a regular expression that compiles to",
        ),
        (
            "{request: {headers: {a: {regex: '(?=a)'}}}}",
            "spec.match.request.headers.a.regex: \"(?=a)\": expected a regular expression (RE2 syntax): look-around",
        ),
    ] {
        refuses(Kind::RouteRule, &[(&spec(condition), expected)]);
    }
}

#[test]
fn route_destinations() {
    let spec = |destination: &str| format!("{{destination: {destination}, route: [{{}}]}}");
    let Object::RouteRule(rule) = accepted(Kind::RouteRule, &spec("{name: b, namespace: other}")).0
    else {
        panic!()
    };
    assert_eq!(rule.destination, ObjectName::new("other", "b"));
    for (destination, expected) in [
        (
            "{}",
            "spec.destination.name: absent: expected the name of a Service",
        ),
        (
            "{name: b.default}",
            "spec.destination.name: \"b.default\": expected a name",
        ),
        (
            "{name: b, domain: x}",
            "spec.destination.domain: \"x\": expected no `domain`: a Service is given by name",
        ),
        (
            "{name: b, labels: {v: a}}",
            "spec.destination.labels: {…}: expected no `labels`: which endpoints get a share",
        ),
        ("reviews", "spec.destination: \"reviews\": expected a map"),
    ] {
        refuses(Kind::RouteRule, &[(&spec(destination), expected)]);
    }
}
