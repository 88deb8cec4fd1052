//! Mesh configs, and what they have in common with the other rules.

use std::time::Duration;

use proxy_common::{EgressDefault, OnProxyDown};

use super::{Kind, Object, accepted, parse_text, refuses, warns};

#[test]
fn labels_of_a_rule_are_kept_for_selectors() {
    let text = "{apiVersion: weir.dev/v1, kind: MeshConfig, metadata: {name: default, labels: {a: b}}, spec: {}}";
    let parsed = parse_text(text).unwrap();
    assert_eq!(parsed.warnings, []);
    assert_eq!(parsed.objects[0].labels()["a"], "b");
}

#[test]
fn fields_of_a_service_that_weir_does_not_use_are_left_out_with_a_warning() {
    warns(
        Kind::Service,
        r"
{externalName: a.b} => spec: fields not used by weir, left out: `externalName`
",
    );
}

#[test]
fn mesh_configs() {
    let (object, _) = accepted(
        Kind::MeshConfig,
        "{egress: audit, onProxyDown: open, accessLog: false, headerTimeout: 500ms}",
    );
    let Object::MeshConfig(config) = object else {
        panic!("a MeshConfig")
    };
    assert_eq!(config.egress, Some(EgressDefault::Audit));
    assert_eq!(config.on_proxy_down, Some(OnProxyDown::Open));
    assert_eq!(
        (config.access_log, config.header_timeout),
        (Some(false), Some(Duration::from_millis(500)))
    );
    refuses(
        Kind::MeshConfig,
        r#"
{egress: no} => spec.egress: "no": expected one of `deny`, `allow`, `audit`
{onProxyDown: fail} => spec.onProxyDown: "fail": expected one of `closed`, `open`
{accessLog: on} => spec.accessLog: "on": expected true or false
{headerTimeout: 10} => spec.headerTimeout: 10: expected a string; put it in quotes
{headerTimeout: 0s} => spec.headerTimeout: "0s": expected a duration from 1ms to 1h
{headerTimeout: 2h} => spec.headerTimeout: "2h": expected a duration from 1ms to 1h
{tracing: {sampling: 1}} => spec.tracing: {…}: expected no `tracing`: it comes with a later version
{egres: deny} => spec.egres: "deny": expected no field of this name; did you mean `egress`?
"#,
    );
}
