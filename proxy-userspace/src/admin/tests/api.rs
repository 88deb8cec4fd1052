//! The questions.

use super::*;

#[tokio::test]
async fn objects_are_listed_by_kind_namespace_and_label() {
    let daemon = Daemon::start().await;
    daemon.post("/v1/apply", SHOP).await.json(StatusCode::OK);
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items
            .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let list = daemon.get("/v1/workload").await.json(StatusCode::OK);
    assert_eq!(list["kind"], "List");
    assert_eq!(list["metadata"], json!({ "generation": 1, "revision": 1 }));
    assert_eq!(names(&list), ["b1", "b2"]);
    let list = daemon
        .get("/v1/Workload?namespace=other")
        .await
        .json(StatusCode::OK);
    assert_eq!(names(&list), [""; 0]);
    let list = daemon
        .get("/v1/workload?labelSelector=version%3Dv0.2,app%3Dsvcb")
        .await;
    assert_eq!(names(&list.json(StatusCode::OK)), ["b2"]);
    daemon
        .get("/v1/workload?labelSelector=version")
        .await
        .json(StatusCode::BAD_REQUEST);
    daemon
        .get("/v1/workload?label=x")
        .await
        .json(StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn an_object_comes_with_its_version_as_etag() {
    let daemon = Daemon::start().await;
    let receipt = daemon.post("/v1/apply", SHOP).await.json(StatusCode::OK);
    let reply = daemon.get("/v1/service/default/svcb").await;
    let service = reply.json(StatusCode::OK);
    let version = service["metadata"]["resourceVersion"].as_str().unwrap();
    assert_eq!(reply.header("etag"), format!("\"{version}\""));
    assert_eq!(receipt["objects"][0]["resourceVersion"], version);
    assert_eq!(service["spec"]["clusterIPs"], json!(["10.96.0.2"]));
    let absent = daemon
        .get("/v1/service/default/absent")
        .await
        .json(StatusCode::NOT_FOUND);
    assert_eq!(absent["detail"], "there is no Service default/absent");
}

#[tokio::test]
async fn paths_and_methods_that_mean_nothing_are_said_so() {
    let daemon = Daemon::start().await;
    for path in ["/", "/v1/pod", "/v2/status", "/v1/service/default"] {
        daemon.get(path).await.json(StatusCode::NOT_FOUND);
    }
    let later = daemon
        .get("/v1/destinationpolicy")
        .await
        .json(StatusCode::NOT_FOUND);
    assert!(
        later["detail"].as_str().unwrap().contains("later version"),
        "{later}"
    );
    for (method, path, allow) in [
        ("POST", "/v1/status", "GET"),
        ("GET", "/v1/apply", "POST"),
        ("GET", "/v1/undo", "POST"),
        ("POST", "/v1/service", "GET"),
        ("HEAD", "/v1/status", "GET"),
        (
            "POST",
            "/v1/service/default/svcb",
            "GET, PUT, PATCH, DELETE",
        ),
    ] {
        let reply = daemon.send(method, path, None, "").await;
        assert_eq!(
            (reply.status, reply.header("allow")),
            (405, allow),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn status_says_what_is_in_force_and_what_is_not_governed() {
    let daemon = Daemon::start().await;
    daemon.post("/v1/apply", SHOP).await.json(StatusCode::OK);
    let status = daemon.get("/v1/status").await.json(StatusCode::OK);
    assert_eq!(status["node"], "node-1");
    assert_eq!(status["generation"], 1);
    assert_eq!(status["pid"], std::process::id());
    assert_eq!(status["objects"]["Workload"], 2);
    assert_eq!(status["dataplane"]["udp"], "not governed");
}

#[tokio::test]
async fn explain_hands_on_the_whole_question() {
    let daemon = Daemon::start().await;
    let target = "/v1/explain?workload=shop/a1&destination=svcb:80&method=POST&path=/pay%3Fx\
                  &header=X-User:%20bob&header=cookie:a";
    let answer = daemon.get(target).await.json(StatusCode::OK);
    assert_eq!(answer["workload"], "shop/a1");
    assert_eq!(answer["verdict"], "proxy");
    let asked = daemon.dataplane.told().asked.pop().unwrap();
    assert_eq!(asked.path.as_deref(), Some("/pay?x"));
    assert_eq!(
        asked.headers,
        [
            ("x-user".into(), "bob".into()),
            ("cookie".into(), "a".into())
        ]
    );

    for target in [
        "/v1/explain?destination=svcb",
        "/v1/explain?workload=a1",
        "/v1/explain?workload=a1&destination=http://svcb/",
        "/v1/explain?workload=a1&destination=svcb&header=nocolon",
    ] {
        daemon.get(target).await.json(StatusCode::BAD_REQUEST);
    }
    daemon
        .get("/v1/explain?workload=absent&destination=svcb")
        .await
        .json(StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn workloads_graph_and_history_are_shown() {
    let daemon = Daemon::start().await;
    daemon
        .post("/v1/apply?reason=first%20one", EGRESS)
        .await
        .json(StatusCode::OK);
    let workloads = daemon.get("/v1/workloads").await.json(StatusCode::OK);
    assert_eq!(workloads["items"][0]["captured"], false);
    assert_eq!(workloads["items"][0]["openConnections"], 3);
    let history = daemon.get("/v1/history").await.json(StatusCode::OK);
    let first = &history["items"][0];
    assert_eq!(
        (&first["generation"], &first["reason"]),
        (&json!(1), &json!("first one"))
    );
    assert_eq!(first["changes"][0]["change"], "created");
    assert_eq!(
        daemon.get("/v1/graph").await.json(StatusCode::OK),
        json!({ "edges": [] })
    );
    let dot = daemon.get("/v1/graph?format=dot").await;
    assert_eq!((dot.status, &*dot.text), (200, "digraph weir {}\n"));
    daemon
        .get("/v1/graph?format=png")
        .await
        .json(StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_tap_runs_until_the_daemon_stops() {
    let daemon = Daemon::start().await;
    let mut response = request(&daemon.socket(), "GET", "/v1/tap", None, "").await;
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    daemon.lines.send("{\"verdict\":\"deny\"}".into()).unwrap();
    let line = response
        .body_mut()
        .frame()
        .await
        .unwrap()
        .unwrap()
        .into_data()
        .unwrap();
    assert_eq!(line, "{\"verdict\":\"deny\"}\n");
    daemon.stop.send_replace(true);
    assert!(
        response.body_mut().frame().await.is_none(),
        "it ends, and cleanly"
    );
    daemon.served.await.unwrap();
    assert!(
        !daemon.options.admin.exists(),
        "a stopped daemon leaves no socket"
    );
}

#[tokio::test]
async fn observers_look_and_never_write() {
    let daemon = Daemon::start().await;
    daemon.post("/v1/apply", SHOP).await.json(StatusCode::OK);
    for path in [
        "/v1/status",
        "/v1/workloads",
        "/v1/graph",
        "/v1/history",
        "/v1/service",
    ] {
        daemon.observe("GET", path).await.json(StatusCode::OK);
    }
    daemon
        .observe("GET", "/v1/explain?workload=a&destination=b")
        .await
        .json(StatusCode::OK);
    for (method, path) in [
        ("POST", "/v1/apply"),
        ("POST", "/v1/apply?dryRun=true"),
        ("POST", "/v1/undo"),
        ("PUT", "/v1/service/default/svcb"),
        ("PATCH", "/v1/service/default/svcb"),
        ("DELETE", "/v1/service/default/svcb"),
    ] {
        daemon
            .observe(method, path)
            .await
            .json(StatusCode::FORBIDDEN);
    }
    daemon
        .get("/v1/service/default/svcb")
        .await
        .json(StatusCode::OK);
}
