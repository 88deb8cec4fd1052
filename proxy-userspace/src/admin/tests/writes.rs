//! Writes of many objects at once, and undo.

use super::*;
use crate::control::InstallError;

const SPLIT: &str = "/v1/routerule/default/split";

#[tokio::test]
async fn apply_says_what_became_of_each_object() {
    let daemon = Daemon::start().await;
    let receipt = daemon.post("/v1/apply", SHOP).await.json(StatusCode::OK);
    assert_eq!(
        (&receipt["generation"], &receipt["revision"]),
        (&json!(1), &json!(1))
    );
    let created = [
        ("svcb", "created"),
        ("b1", "created"),
        ("b2", "created"),
        ("split", "created"),
    ];
    assert_eq!(changes(&receipt), created);
    let changed = SHOP
        .replace("weight: 50", "weight: 100")
        .replacen("weight: 100", "weight: 0", 1);
    let receipt = daemon
        .post("/v1/apply", &changed)
        .await
        .json(StatusCode::OK);
    let expected = [
        ("svcb", "unchanged"),
        ("b1", "unchanged"),
        ("b2", "unchanged"),
        ("split", "configured"),
    ];
    assert_eq!(changes(&receipt), expected);
    assert_eq!(receipt["generation"], 2);
}

#[tokio::test]
async fn every_mistake_is_reported_and_nothing_changed() {
    let daemon = shop().await;
    let rules = SHOP
        .replacen("weight: 50", "weight: 40", 1)
        .replace("port: 80", "prot: 80");
    let envelope = json!({ "sources": [{ "name": "rules.yaml", "text": rules }] }).to_string();
    let media_type = ("content-type", "application/vnd.weir.sources+json");
    let problem = daemon
        .send("POST", "/v1/apply", Some(media_type), &envelope)
        .await;
    let problem = problem.json(StatusCode::UNPROCESSABLE_ENTITY);
    let mistakes = problem["mistakes"].as_array().unwrap();
    assert!(mistakes.len() >= 2, "{problem}");
    for mistake in mistakes {
        assert_eq!(mistake["source"], "rules.yaml");
        assert!(
            mistake["text"]
                .as_str()
                .unwrap()
                .starts_with("rules.yaml: document "),
            "{mistake}"
        );
        assert!(
            mistake["expected"].is_string() && mistake["path"].is_string(),
            "{mistake}"
        );
    }
    assert_eq!(
        daemon.get("/v1/status").await.json(StatusCode::OK)["generation"],
        1
    );
    assert_eq!(daemon.dataplane.told().installs.len(), 2);
}

#[tokio::test]
async fn a_receipt_says_the_version_that_each_object_has_now() {
    let daemon = shop().await;
    // The Service and the second of the Workloads.
    let changed = SHOP
        .replace("port: 80", "port: 81")
        .replace("10.0.0.2", "10.0.0.3");
    let receipt = daemon.post("/v1/apply", &changed).await;
    let receipt = receipt.json(StatusCode::OK);
    let mut said = Vec::new();
    for object in receipt["objects"].as_array().unwrap() {
        let part = |key: &str| object[key].as_str().unwrap();
        let kind = part("kind").to_ascii_lowercase();
        let path = format!("/v1/{kind}/{}/{}", part("namespace"), part("name"));
        let now = daemon.get(&path).await.json(StatusCode::OK);
        assert_eq!(now["metadata"]["resourceVersion"], part("resourceVersion"));
        said.push((part("change"), part("resourceVersion")));
    }
    let (old, new) = (("unchanged", "1"), ("configured", "2"));
    assert_eq!(said, [new, old, new, old]);
    let dry = daemon.post("/v1/apply?dryRun=true", SHOP).await;
    let dry = dry.json(StatusCode::OK);
    assert!(dry["objects"][0].get("resourceVersion").is_none(), "{dry}");
}

#[tokio::test]
async fn one_file_goes_as_it_is_with_its_name_beside_it() {
    let daemon = shop().await;
    let yaml = Some(("content-type", "application/yaml"));
    let wrong = SHOP.replace("port: 80", "prot: 80");
    let path = "/v1/apply?source=the%20rules.yaml&dryRun=true";
    let problem = daemon.send("POST", path, yaml, &wrong).await;
    let problem = problem.json(StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(problem["mistakes"][0]["source"], "the rules.yaml");
    let receipt = daemon.send("POST", path, yaml, SHOP).await;
    assert_eq!(changes(&receipt.json(StatusCode::OK)).len(), 4);
    // Where there is nothing that it could name, it is a mistake.
    let envelope = Some(("content-type", "application/vnd.weir.sources+json"));
    for (path, header) in [
        (path, envelope),
        ("/v1/apply?mode=delete&object=service/a/b&source=x", None),
        ("/v1/undo?source=x", None),
    ] {
        let problem = daemon.send("POST", path, header, "{}").await;
        let problem = problem.json(StatusCode::BAD_REQUEST);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("source"), "{path}: {detail}");
    }
}

#[tokio::test]
async fn what_is_no_set_of_documents_is_refused() {
    let daemon = Daemon::start().await;
    let yaml = ("content-type", "application/yaml");
    let post = |header, body| daemon.send("POST", "/v1/apply", header, body);
    post(None, "").await.json(StatusCode::UNPROCESSABLE_ENTITY);
    post(Some(yaml), "a: [").await.json(StatusCode::BAD_REQUEST);
    post(Some(("content-type", "image/png")), "x")
        .await
        .json(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let envelope = ("content-type", "application/vnd.weir.sources+json");
    post(Some(envelope), "{}")
        .await
        .json(StatusCode::BAD_REQUEST);
    let skipped = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: x}}";
    let problem = post(Some(yaml), skipped)
        .await
        .json(StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        problem["warnings"][0]["text"]
            .as_str()
            .unwrap()
            .contains("Deployment"),
        "{problem}"
    );
}

#[tokio::test]
async fn a_dry_run_shows_the_difference_and_changes_nothing() {
    let daemon = shop().await;
    let changed = SHOP.replace("version: v0.2 }, weight: 50", "version: v0.2 }, weight: 90");
    let changed = changed.replace("version: v0.1 }, weight: 50", "version: v0.1 }, weight: 10");
    let receipt = daemon
        .post("/v1/apply?dryRun=true", &changed)
        .await
        .json(StatusCode::OK);
    assert_eq!(
        (&receipt["dryRun"], &receipt["generation"]),
        (&json!(true), &json!(1))
    );
    let diff = receipt["objects"][3]["diff"].as_str().unwrap();
    assert!(
        diff.contains("-  - weight: 50") || diff.contains('+'),
        "{diff}"
    );
    assert!(receipt["objects"][0].get("diff").is_none());
    assert_eq!(daemon.dataplane.told().installs.len(), 2);
    daemon
        .post("/v1/apply?dryRun=yes", &changed)
        .await
        .json(StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn create_refuses_what_is_there_and_replace_what_is_not() {
    let daemon = shop().await;
    let problem = daemon
        .post("/v1/apply?mode=create", SHOP)
        .await
        .json(StatusCode::CONFLICT);
    assert_eq!(
        problem["mistakes"].as_array().unwrap().len(),
        4,
        "{problem}"
    );
    let problem = daemon
        .post("/v1/apply?mode=replace", EGRESS)
        .await
        .json(StatusCode::NOT_FOUND);
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("EgressRule default/msgd"),
        "{problem}"
    );
    daemon
        .post("/v1/apply?mode=create", EGRESS)
        .await
        .json(StatusCode::OK);
    daemon
        .post("/v1/apply?mode=replace", EGRESS)
        .await
        .json(StatusCode::OK);
    daemon
        .post("/v1/apply?mode=frob", EGRESS)
        .await
        .json(StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn prune_deletes_what_carries_the_labels_and_nothing_else() {
    let daemon = shop().await;
    let other = "{apiVersion: weir.dev/v1, kind: Workload, metadata: {name: c1}, spec: {addresses: [10.0.0.9]}}";
    daemon.post("/v1/apply", other).await.json(StatusCode::OK);
    let rest = SHOP.split("---").take(2).collect::<Vec<_>>().join("---");
    let receipt = daemon
        .post("/v1/apply?prune=app%3Dsvcb", &rest)
        .await
        .json(StatusCode::OK);
    assert_eq!(
        changes(&receipt),
        [
            ("svcb", "unchanged"),
            ("b1", "unchanged"),
            ("b2", "deleted")
        ]
    );
    daemon
        .get("/v1/workload/default/c1")
        .await
        .json(StatusCode::OK);
    // A rule carries labels too.
    let labelled = EGRESS.replace("name: msgd", "name: msgd, labels: { app: svcb }");
    daemon
        .post("/v1/apply", &labelled)
        .await
        .json(StatusCode::OK);
    let list = daemon.get("/v1/egressrule?labelSelector=app%3Dsvcb").await;
    let list = list.json(StatusCode::OK);
    assert_eq!(
        list["items"][0]["metadata"]["labels"],
        json!({ "app": "svcb" })
    );
    let receipt = daemon
        .post("/v1/apply?prune=app%3Dsvcb", &rest)
        .await
        .json(StatusCode::OK);
    assert_eq!(changes(&receipt).last(), Some(&("msgd", "deleted")));
    daemon
        .post("/v1/apply?prune=", &rest)
        .await
        .json(StatusCode::BAD_REQUEST);
    daemon
        .post("/v1/apply?mode=create&prune=app%3Dx", &rest)
        .await
        .json(StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn delete_takes_all_that_are_named_or_none() {
    let daemon = shop().await;
    let both = "object=workload/default/b1&object=workload/default/b9";
    let target = format!("/v1/apply?mode=delete&{both}");
    daemon.post(&target, "").await.json(StatusCode::NOT_FOUND);
    daemon
        .get("/v1/workload/default/b1")
        .await
        .json(StatusCode::OK);
    let receipt = daemon
        .post(&format!("{target}&ignoreNotFound=true"), "")
        .await;
    assert_eq!(changes(&receipt.json(StatusCode::OK)), [("b1", "deleted")]);
    let rule = SHOP.split("---").last().unwrap();
    let receipt = daemon
        .post("/v1/apply?mode=delete", rule)
        .await
        .json(StatusCode::OK);
    assert_eq!(changes(&receipt), [("split", "deleted")]);
    daemon
        .post("/v1/apply?object=workload/default/b2", "")
        .await
        .json(StatusCode::BAD_REQUEST);
    daemon
        .send("DELETE", SPLIT, None, "")
        .await
        .json(StatusCode::NOT_FOUND);
    daemon
        .send("DELETE", "/v1/workload/default/b2", None, "")
        .await
        .json(StatusCode::OK);
    daemon
        .get("/v1/workload/default/b2")
        .await
        .json(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn undo_goes_back_and_says_to_where_it_cannot() {
    let daemon = Daemon::start().await;
    daemon.post("/v1/undo", "").await.json(StatusCode::CONFLICT);
    daemon.post("/v1/apply", SHOP).await.json(StatusCode::OK);
    daemon.post("/v1/apply", EGRESS).await.json(StatusCode::OK);
    let receipt = daemon
        .post("/v1/undo?dryRun=true", "")
        .await
        .json(StatusCode::OK);
    assert_eq!(
        (&receipt["generation"], changes(&receipt)),
        (&json!(2), vec![("msgd", "deleted")])
    );
    let receipt = daemon
        .post("/v1/undo?to=1&reason=oops", "")
        .await
        .json(StatusCode::OK);
    assert_eq!(
        (&receipt["generation"], changes(&receipt)),
        (&json!(3), vec![("msgd", "deleted")])
    );
    let history = daemon.get("/v1/history").await.json(StatusCode::OK);
    assert_eq!(history["items"][0]["reason"], "oops");
    daemon
        .post("/v1/undo?to=99", "")
        .await
        .json(StatusCode::NOT_FOUND);
    daemon
        .post("/v1/undo?to=x", "")
        .await
        .json(StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn what_the_data_plane_refuses_is_told_apart_from_what_it_fails_at() {
    let daemon = Daemon::start().await;
    let refused = InstallError::Refused("the tables hold 16384 services".into());
    daemon.dataplane.fail([Some(refused)]);
    let problem = daemon
        .post("/v1/apply", EGRESS)
        .await
        .json(StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        problem["detail"].as_str().unwrap().contains("16384"),
        "{problem}"
    );
    daemon
        .dataplane
        .fail([Some(InstallError::Failed("bpf(2): E2BIG".into()))]);
    let problem = daemon
        .post("/v1/apply", EGRESS)
        .await
        .json(StatusCode::INTERNAL_SERVER_ERROR);
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("still in force"),
        "{problem}"
    );
    daemon.post("/v1/apply", EGRESS).await.json(StatusCode::OK);
}
