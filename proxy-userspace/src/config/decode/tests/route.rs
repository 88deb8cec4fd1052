//! Route rules.

use std::sync::Arc;

use super::{Kind, Object, accepted, refuses_in};
use crate::config::object::{ObjectName, RequestField, RouteRule, StringMatch};

fn rule(spec: &str) -> Arc<RouteRule> {
    match accepted(Kind::RouteRule, spec).0 {
        Object::RouteRule(rule) => rule,
        other => panic!("{other} is no RouteRule"),
    }
}

#[test]
fn routes_and_weights() {
    let spec = "{destination: {name: b}, route: [@]}";
    for (routes, expected) in [
        ("{}", vec![100]),
        ("{labels: {v: '1'}}", vec![100]),
        ("{weight: 100}", vec![100]),
        ("{weight: 0}, {labels: {v: '1'}, weight: 100}", vec![0, 100]),
        ("{weight: 33}, {weight: 33}, {weight: 34}", vec![33, 33, 34]),
        ("{destination: {name: b}}", vec![100]),
        ("{destination: {name: b, namespace: default}}", vec![100]),
    ] {
        let rule = rule(&spec.replace('@', routes));
        assert_eq!(
            rule.routes
                .iter()
                .map(|route| route.weight)
                .collect::<Vec<_>>(),
            expected,
            "{routes}"
        );
    }
    refuses_in(
        Kind::RouteRule,
        spec,
        "spec.route",
        r"
 => : []: expected at least one route
{weight: 50} => : weights that sum to 50: expected weights that sum to 100
{weight: 50}, {weight: 51} => : weights that sum to 101: expected weights that sum to 100
{weight: 100}, {} => [1].weight: absent: expected a whole number from 0 to 100
{weight: -1} => [0].weight: -1: expected a whole number from 0 to 100
{weight: 50.5} => [0].weight: 50.5: expected a whole number from 0 to 100
{weight: 1e2} => [0].weight: 100.0: expected a whole number from 0 to 100
{tags: {a: b}} => [0].tags: {…}: expected no field of this name; known here: labels, weight, destination
{destination: {name: c}} => [0].destination: {…}: expected no other destination than the rule's: it comes with a later version
{destination: {name: b, namespace: c}} => [0].destination: {…}: expected no other destination than the rule's
",
    );
}

#[test]
fn fields_of_later_versions_are_refused_by_name() {
    for field in crate::config::decode::route::REFUSED {
        let rows = format!(
            "{{}} => {{}}: expected no `{field}`: it comes with a later version, this one does not enforce it"
        );
        let spec = format!("{{destination: {{name: b}}, route: [{{}}], {field}: @}}");
        refuses_in(Kind::RouteRule, &spec, &format!("spec.{field}: "), &rows);
    }
}

#[test]
fn fields_of_the_design_are_known_even_where_they_come_later() {
    let later = [
        "redirect",
        "rewrite",
        "httpReqTimeout",
        "httpReqRetries",
        "httpFault",
        "mirror",
        "corsPolicy",
        "appendHeaders",
        "websocketUpgrade",
    ];
    assert!(
        later
            .iter()
            .all(|field| crate::config::decode::route::REFUSED.contains(field))
    );
}

const MATCHING: &str = "{destination: {name: b}, route: [{}], match: @}";

#[test]
fn an_empty_match_matches_all() {
    for nothing in [
        "{}",
        "null",
        "{source: {}}",
        "{request: {}}",
        "{request: {headers: {}}}",
    ] {
        let rule = rule(&MATCHING.replace('@', nothing));
        assert!(
            rule.source.is_none() && rule.request.is_empty(),
            "{nothing}"
        );
    }
}

#[test]
fn a_match_compares_whole_values() {
    let from = rule(&MATCHING.replace('@', "{source: {name: c, labels: {v: '1'}}}"))
        .source
        .clone()
        .unwrap();
    assert_eq!(
        (from.service, from.labels.len()),
        (Some(ObjectName::new("default", "c")), 1)
    );
    let headers = "{X-User: {exact: jason}, URI: {prefix: /a}, method: {regex: GET|HEAD}}";
    let rule = rule(&MATCHING.replace('@', &format!("{{request: {{headers: {headers}}}}}")));
    let [(uri, starts), (method, pattern), (user, exact)] = rule.request.as_slice() else {
        panic!("three headers")
    };
    assert_eq!((uri, method), (&RequestField::Uri, &RequestField::Method));
    assert_eq!(
        *user,
        RequestField::Header("x-user".into()),
        "in lower case"
    );
    assert!(starts.matches("/ab") && !starts.matches("b/a"));
    assert!(pattern.matches("HEAD") && !pattern.matches("HEADER") && !pattern.matches("XGET"));
    assert!(exact.matches("jason") && !exact.matches("Jason"));
}

#[test]
fn patterns_may_use_classes_and_flags() {
    let pattern = StringMatch::regex(r"(?i)ab\d+\w").unwrap();
    assert!(pattern.matches("AB1z") && !pattern.matches("abz") && !pattern.matches("xab1z"));
    assert_eq!(pattern.as_written(), ("regex", r"(?i)ab\d+\w"));
}

#[test]
fn matches_are_refused() {
    refuses_in(
        Kind::RouteRule,
        MATCHING,
        "spec.match.",
        r#"
{source: {namespace: c}} => source.namespace: "c": expected no `namespace`: a source is a Service of the rule's namespace
{source: {name: A}} => source.name: "A": expected a name
{tcp: {}} => tcp: {}: expected no `tcp`: it comes with a later version
{udp: {}} => udp: {}: expected no `udp`: it comes with a later version
{request: {uri: {exact: a}}} => request.uri: {…}: expected no field of this name; known here: headers
"#,
    );
    let spec = MATCHING.replace('@', "{request: {headers: {@}}}");
    refuses_in(
        Kind::RouteRule,
        &spec,
        "spec.match.request.headers",
        r#"
a: b => .a: "b": expected a map
a: {} => .a: {}: expected one of `exact`, `prefix`, `regex`, with a string
a: {exact: b, prefix: c} => .a: {…}: expected one of `exact`, `prefix`, `regex`, with a string
a: {exact: 5} => .a.exact: 5: expected a string; put it in quotes
'a b': {exact: c} => ["a b"]: {…}: expected `uri`, `method`, `authority`, `scheme` or the name of a header
a: {exact: c}, A: {exact: d} => : {…}: expected each header once, in any case; `a` is there twice
a: {regex: 'a)|(b'} => .a.regex: "a)|(b": expected a regular expression (RE2 syntax): unopened group
a: {regex: '(a{1000}){1000}'} => .a.regex: "(a{1000}){1000}": expected a regular expression that compiles to at most 256 KiB
a: {regex: '(?=a)'} => .a.regex: "(?=a)": expected a regular expression (RE2 syntax): look-around
"#,
    );
}

#[test]
fn destinations() {
    let spec = "{destination: @, route: [{}]}";
    let elsewhere = rule(&spec.replace('@', "{name: b, namespace: other}"));
    assert_eq!(elsewhere.destination, ObjectName::new("other", "b"));
    refuses_in(
        Kind::RouteRule,
        spec,
        "spec.destination",
        r#"
{} => .name: absent: expected the name of a Service
{name: b.default} => .name: "b.default": expected a name
{name: b, domain: x} => .domain: "x": expected no `domain`: a Service is given by name and namespace
{name: b, service: x} => .service: "x": expected no `service`: a Service is given by name and namespace
{name: b, labels: {v: a}} => .labels: {…}: expected no `labels`: which endpoints get a share is said by `route[].labels`
reviews => : "reviews": expected a map
"#,
    );
}
