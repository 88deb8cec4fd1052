//! Writes to one object: PUT, PATCH, and the versions they are made from.

use super::*;

const SPLIT: &str = "/v1/routerule/default/split";
const MERGE: (&str, &str) = ("content-type", "application/merge-patch+json");
const JSON_PATCH: (&str, &str) = ("content-type", "application/json-patch+json");

#[tokio::test]
async fn put_is_about_the_object_of_its_path() {
    let daemon = Daemon::start().await;
    let path = "/v1/egressrule/default/msgd";
    let receipt = daemon
        .send("PUT", path, None, EGRESS)
        .await
        .json(StatusCode::CREATED);
    assert_eq!(changes(&receipt), [("msgd", "created")]);
    daemon
        .send("PUT", path, None, EGRESS)
        .await
        .json(StatusCode::OK);
    let elsewhere = daemon
        .send("PUT", "/v1/egressrule/default/other", None, EGRESS)
        .await;
    let problem = elsewhere.json(StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("EgressRule default/other"),
        "{problem}"
    );
    daemon
        .send("PUT", path, None, SHOP)
        .await
        .json(StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn both_patch_types_change_part_of_an_object() {
    let daemon = shop().await;
    let merge = json!({ "spec": { "precedence": 7 } }).to_string();
    let receipt = daemon
        .send("PATCH", SPLIT, Some(MERGE), &merge)
        .await
        .json(StatusCode::OK);
    assert_eq!(changes(&receipt), [("split", "configured")]);
    let json = json!([
        { "op": "test", "path": "/spec/precedence", "value": 7 },
        { "op": "replace", "path": "/spec/route/0/weight", "value": 0 },
        { "op": "replace", "path": "/spec/route/1/weight", "value": 100 },
    ]);
    daemon
        .send("PATCH", SPLIT, Some(JSON_PATCH), &json.to_string())
        .await
        .json(StatusCode::OK);
    let rule = daemon.get(SPLIT).await.json(StatusCode::OK);
    assert_eq!(
        (
            &rule["spec"]["precedence"],
            &rule["spec"]["route"][1]["weight"]
        ),
        (&json!(7), &json!(100))
    );
    // The same once more: the test no longer holds against another precedence.
    daemon
        .send("PATCH", SPLIT, Some(MERGE), r#"{"spec":{"precedence":8}}"#)
        .await
        .json(StatusCode::OK);
    daemon
        .send("PATCH", SPLIT, Some(JSON_PATCH), &json.to_string())
        .await
        .json(StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_patch_that_cannot_hold_is_refused() {
    let daemon = shop().await;
    let strategic = ("content-type", "application/strategic-merge-patch+json");
    let reply = daemon.send("PATCH", SPLIT, Some(strategic), "{}").await;
    reply.json(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(
        reply.header("accept-patch"),
        "application/merge-patch+json, application/json-patch+json"
    );
    let patch = |path, body| daemon.send("PATCH", path, Some(MERGE), body);
    patch(SPLIT, "{").await.json(StatusCode::BAD_REQUEST);
    patch("/v1/routerule/default/absent", "{}")
        .await
        .json(StatusCode::NOT_FOUND);
    let wrong = patch(SPLIT, r#"{"spec":{"precedence":"high"}}"#).await;
    let problem = wrong.json(StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(problem["mistakes"][0]["path"], "spec.precedence");
    let renamed = patch(SPLIT, r#"{"metadata":{"name":"other"}}"#).await;
    renamed.json(StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        daemon.get("/v1/status").await.json(StatusCode::OK)["generation"],
        1
    );
}

#[tokio::test]
async fn a_stale_version_is_a_conflict() {
    let daemon = shop().await;
    let read = daemon.get(SPLIT).await;
    let mut stale = read.json(StatusCode::OK);
    let etag = read.header("etag").to_owned();
    let version = stale["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    let patch = json!({ "metadata": { "resourceVersion": version }, "spec": { "precedence": 1 } })
        .to_string();
    daemon
        .send("PATCH", SPLIT, Some(MERGE), &patch)
        .await
        .json(StatusCode::OK);
    daemon
        .send("PATCH", SPLIT, Some(MERGE), &patch)
        .await
        .json(StatusCode::CONFLICT);
    stale["spec"]["precedence"] = json!(2);
    let stale = stale.to_string();
    daemon
        .send("PUT", SPLIT, None, &stale)
        .await
        .json(StatusCode::CONFLICT);
    daemon
        .post("/v1/apply", &stale)
        .await
        .json(StatusCode::CONFLICT);
    daemon
        .post("/v1/apply?mode=delete", &stale)
        .await
        .json(StatusCode::CONFLICT);

    let expect = |name, value| daemon.send("DELETE", SPLIT, Some((name, value)), "");
    expect("if-match", &etag)
        .await
        .json(StatusCode::PRECONDITION_FAILED);
    expect("if-none-match", "*")
        .await
        .json(StatusCode::PRECONDITION_FAILED);
    daemon
        .send("POST", "/v1/undo", Some(("if-match", &etag)), "")
        .await
        .json(StatusCode::BAD_REQUEST);
    let fresh = daemon.get(SPLIT).await.header("etag").to_owned();
    expect("if-match", &fresh).await.json(StatusCode::OK);
}
