//! Configuration: whole or not at all, every mistake named, and back again.

use serde_json::{Value, json};
use testbed::docs::{egress_rule, route_rule, service};
use testbed::{Node, Weir};

const MERGE: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";

fn generation(weir: &Weir<'_>) -> u64 {
    weir.json(&["status"])["generation"].as_u64().unwrap()
}

/// Everything that is in force, as one text.
fn in_force(weir: &Weir<'_>) -> String {
    let kinds = [
        "service",
        "workload",
        "routerule",
        "egressrule",
        "meshconfig",
    ];
    kinds
        .map(|kind| weir.ok(&["get", kind, "-A", "-o", "yaml"]))
        .concat()
}

fn some_rules(weir: &Weir<'_>) {
    weir.apply(&service("web", "10.96.0.1", "web", &["port: 80"]));
    weir.apply(&route_rule("web", "web", &[("v1", 50), ("v2", 50)], ""));
}

/// All mistakes of all documents are named at once, with file and path; nothing changes.
#[test]
fn a_refused_configuration_names_every_mistake_and_changes_nothing() {
    let node = Node::new().unwrap();
    let weir = Weir::start(&node).unwrap();
    some_rules(&weir);
    let (before, number) = (in_force(&weir), generation(&weir));
    let good = egress_rule("good", "198.51.100.7", &[(80, "http")], "");
    let bad = "---\napiVersion: weir.dev/v1\nkind: RouteRule\nmetadata: {name: bad}\nspec:\n  \
               destination: {name: web}\n  presedence: 3\n  route:\n  - {labels: {version: v1}, weight: 50}\n  \
               - {labels: {version: v2}, weight: 49}\n\
               ---\napiVersion: weir.dev/v1\nkind: EgressRule\nmetadata: {name: bad}\nspec:\n  \
               destination: {service: 198.51.100.300}\n  ports: [{port: 99999, protocol: http}, {port: 80, protocol: carrier-pigeon}]\n";
    let output = weir.try_apply(&format!("{good}{bad}"));
    assert_eq!(output.status, 1, "{output:?}");
    for word in [
        "presedence",
        "99",
        "198.51.100.300",
        "99999",
        "carrier-pigeon",
    ] {
        assert!(
            output.stderr.contains(word),
            "{word} is not named:\n{}",
            output.stderr
        );
    }
    assert_eq!(
        (in_force(&weir), generation(&weir)),
        (before.clone(), number)
    );
    // YAML that is none, names the place too.
    let output = weir.try_apply("kind: [RouteRule\nmetadata: }");
    assert_eq!(output.status, 1, "{output:?}");
    assert!(
        output.stderr.contains("stdin") || output.stderr.contains('-'),
        "{output:?}"
    );
    assert_eq!((in_force(&weir), generation(&weir)), (before, number));
}

/// What this version does not enforce is refused by its name.
#[test]
fn what_is_not_enforced_is_refused_by_name() {
    let node = Node::new().unwrap();
    let weir = Weir::start(&node).unwrap();
    some_rules(&weir);
    let later = [
        "httpFault: {abort: {percent: 10, httpStatus: 400}}",
        "mirror: {name: web}",
        "httpReqTimeout: {simpleTimeout: {timeout: 1s}}",
        "httpReqRetries: {simpleRetry: {attempts: 3}}",
        "rewrite: {uri: /x}",
        "redirect: {uri: /x}",
        "websocketUpgrade: true",
        "corsPolicy: {allowOrigin: [x]}",
        "appendHeaders: {x: y}",
    ];
    for field in later {
        let name = field.split(':').next().unwrap();
        let output = weir.try_apply(&route_rule(
            "later",
            "web",
            &[("v1", 100)],
            &format!("  {field}\n"),
        ));
        assert_eq!(output.status, 1, "{field}: {output:?}");
        assert!(output.stderr.contains(name), "{field}: {output:?}");
    }
    let policy = "apiVersion: weir.dev/v1\nkind: DestinationPolicy\nmetadata: {name: web}\n\
                  spec: {destination: {name: web}, loadBalancing: {name: RANDOM}}\n";
    let output = weir.try_apply(policy);
    assert_eq!(output.status, 1, "{output:?}");
    assert!(output.stderr.contains("DestinationPolicy"), "{output:?}");
    // A kind that is not weir's is skipped, with a warning.
    let deployment =
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: 2}\n";
    let output = weir.try_apply(&format!(
        "{deployment}{}",
        service("more", "10.96.0.2", "web", &["port: 80"])
    ));
    assert_eq!(output.status, 0, "{output:?}");
    assert!(output.stderr.contains("Deployment"), "{output:?}");
    weir.ok(&["get", "service", "more"]);
}

/// Two objects cannot have one address, unless they are of different networks.
#[test]
fn one_address_belongs_to_one_object() {
    let node = Node::new().unwrap();
    let weir = Weir::start(&node).unwrap();
    weir.apply(&service("web", "10.96.0.1", "web", &["port: 80"]));
    let same = service("other", "10.96.0.1", "other", &["port: 80"]);
    let output = weir.try_apply(&same);
    assert_eq!(output.status, 1, "{output:?}");
    assert!(output.stderr.contains("10.96.0.1"), "{output:?}");
    weir.apply(&same.replace("spec:\n", "spec:\n  network: elsewhere\n"));
}

/// Rules written for Istio 0.x apply unchanged.
#[test]
fn rules_of_istio_apply_unchanged() {
    let node = Node::new().unwrap();
    let weir = Weir::start(&node).unwrap();
    weir.apply(&service(
        "reviews",
        "10.96.0.1",
        "reviews",
        &["name: http, port: 9080"],
    ));
    weir.apply(
        "apiVersion: config.istio.io/v1alpha2\nkind: RouteRule\nmetadata:\n  name: reviews-test-v2\nspec:\n  \
         destination:\n    name: reviews\n  precedence: 2\n  match:\n    request:\n      headers:\n        \
         cookie:\n          regex: \"^(.*?;)?(user=jason)(;.*)?$\"\n  route:\n  - labels:\n      version: v2\n\
         ---\napiVersion: config.istio.io/v1alpha2\nkind: EgressRule\nmetadata:\n  name: httpbin-egress-rule\n\
         spec:\n  destination:\n    service: httpbin.org\n  ports:\n    - port: 80\n      protocol: http\n",
    );
    let rule = weir.json(&["get", "routerule", "reviews-test-v2"]);
    assert_eq!(rule["spec"]["precedence"], 2, "{rule}");
    assert_eq!(rule["apiVersion"], "weir.dev/v1", "{rule}");
}

/// History keeps what was in force, with the reason; undo brings it back as a new generation.
#[test]
fn undo_restores_the_rules_as_a_new_generation() {
    let node = Node::new().unwrap();
    let weir = Weir::start(&node).unwrap();
    some_rules(&weir);
    let half = weir.json(&["get", "routerule", "web"])["spec"].clone();
    let first = generation(&weir);
    let input = route_rule("web", "web", &[("v2", 100)], "");
    let output = weir
        .cli_with(&["apply", "-f", "-", "--reason", "go to v2"], &input)
        .unwrap();
    assert_eq!(output.status, 0, "{output:?}");
    weir.apply(&egress_rule("x", "198.51.100.7", &[(80, "http")], ""));
    assert_eq!(generation(&weir), first + 2);
    weir.ok(&["undo"]);
    assert_eq!(weir.json(&["get", "egressrule"])["items"], json!([]));
    weir.ok(&["undo", "--to", &first.to_string()]);
    assert_eq!(weir.json(&["get", "routerule", "web"])["spec"], half);
    assert_eq!(generation(&weir), first + 4);
    // The inventory is present state: no undo takes a service away.
    weir.apply(&service("late", "10.96.0.2", "late", &["port: 80"]));
    weir.ok(&["undo"]);
    weir.ok(&["get", "service", "late"]);
    let history = weir.json(&["history"]).to_string();
    assert!(history.contains("go to v2"), "{history}");
    let output = weir.cli(&["undo", "--to", "4711"]).unwrap();
    assert_eq!(output.status, 1, "{output:?}");
    assert!(output.stderr.contains("4711"), "{output:?}");
}

/// PATCH in both forms; a stale resourceVersion is a conflict; another form is refused.
#[test]
fn patches_apply_and_stale_ones_conflict() {
    let node = Node::new().unwrap();
    let weir = Weir::start(&node).unwrap();
    some_rules(&weir);
    let path = "/v1/routerule/default/web";
    let precedence = || weir.json(&["get", "routerule", "web"])["spec"]["precedence"].clone();
    let stale = weir.json(&["get", "routerule", "web"])["metadata"]["resourceVersion"].clone();
    let patch = |media_type: &str, body: Value| {
        weir.admin("PATCH", path, media_type, &body.to_string())
            .unwrap()
    };
    assert_eq!(patch(MERGE, json!({"spec": {"precedence": 5}})).0, 200);
    assert_eq!(precedence(), 5);
    let (status, said) = patch(
        JSON_PATCH,
        json!([{"op": "replace", "path": "/spec/precedence", "value": 6}]),
    );
    assert_eq!((status, precedence()), (200, 6.into()), "{said}");
    let old = json!({"metadata": {"resourceVersion": stale}, "spec": {"precedence": 7}});
    let (status, said) = patch(MERGE, old);
    assert_eq!((status, precedence()), (409, 6.into()), "{said}");
    let (status, said) = patch("application/strategic-merge-patch+json", json!({}));
    assert_eq!(status, 415, "{said}");
    let (status, said) = patch(MERGE, json!({"spec": {"presedence": 7}}));
    assert!(
        (400..=422).contains(&status) && said.to_string().contains("presedence"),
        "{status} {said}"
    );
    let (status, said) = patch(
        JSON_PATCH,
        json!([{"op": "test", "path": "/spec/precedence", "value": 1}]),
    );
    assert!((400..=422).contains(&status), "{status} {said}");
    assert_eq!(precedence(), 6);
    assert_eq!(
        weir.admin("PATCH", "/v1/routerule/default/none", MERGE, "{}")
            .unwrap()
            .0,
        404
    );
}

/// create, replace, delete, diff and a dry run do what their names say.
#[test]
fn the_verbs_tell_new_from_old() {
    let node = Node::new().unwrap();
    let weir = Weir::start(&node).unwrap();
    some_rules(&weir);
    let run = |args: &[&str], input: &str| weir.cli_with(args, input).unwrap();
    let web = route_rule("web", "web", &[("v1", 100)], "");
    let new = route_rule("new", "web", &[("v1", 100)], "");
    assert_eq!(run(&["create", "-f", "-"], &web).status, 1, "it is there");
    assert_eq!(
        run(&["replace", "-f", "-"], &new).status,
        1,
        "it is not there"
    );
    let before = generation(&weir);
    let output = run(&["diff", "-f", "-"], &web);
    assert_eq!(output.status, 1, "{output:?}");
    assert!(output.stdout.contains("weight: 100"), "{output:?}");
    assert_eq!(run(&["apply", "--dry-run", "-f", "-"], &web).status, 0);
    assert_eq!(generation(&weir), before);
    assert_eq!(run(&["create", "-f", "-"], &new).status, 0);
    assert_eq!(run(&["replace", "-f", "-"], &web).status, 0);
    assert_eq!(run(&["diff", "-f", "-"], &web).status, 0);
    assert_eq!(generation(&weir), before + 2);
    assert_eq!(run(&["delete", "routerule", "new"], "").status, 0);
    assert_eq!(run(&["delete", "routerule", "new"], "").status, 1);
    assert_eq!(
        run(&["delete", "routerule", "new", "--ignore-not-found"], "").status,
        0
    );
    assert_eq!(run(&["get", "routerule", "new"], "").status, 1);
}
