//! Connections that are older than the enrolment of their pod: left alone,
//! counted, and closed when that is asked for.

use nix::errno::Errno;
use testbed::agent::proto::Service;
use testbed::{Node, Pod, Weir};

fn older(weir: &Weir<'_>, pod: &Pod) -> u64 {
    let workloads = weir.json(&["workloads"]);
    let items = workloads["items"].as_array().unwrap();
    let item = items.iter().find(|item| item["name"] == pod.name());
    item.unwrap()["olderConnections"].as_u64().unwrap()
}

fn reset(weir: &Weir<'_>, pod: &Pod) -> String {
    let output = weir
        .cli(&[
            "enroll",
            pod.name(),
            "--netns",
            &pod.netns().path().display().to_string(),
            "--cgroup",
            &pod.cgroup().display().to_string(),
            "--address",
            &pod.ip().to_string(),
            "--reset-existing",
        ])
        .unwrap();
    assert_eq!(output.status, 0, "{output:?}");
    output.stderr
}

/// Counted as long as they last, over a restart too; nothing younger is, nor
/// what others dialled.
#[test]
fn older_connections_are_counted_and_closed_on_request() {
    let node = Node::new().unwrap();
    let mut weir = Weir::start(&node).unwrap();
    let [client, server] = node.pods(["client", "server"]).unwrap();
    for pod in [&client, &server] {
        pod.agent()
            .serve(pod.at(8000), Service::Whoami { name: "s".into() })
            .unwrap();
    }
    let first = client.agent().dial(server.at(8000)).unwrap();
    let second = client.agent().dial(server.at(8000)).unwrap();
    let _own = client.agent().dial(client.at(8000)).unwrap();
    let _inbound = server.agent().dial(client.at(8000)).unwrap();
    weir.enroll(&server, &[]);
    weir.enroll(&client, &[]);
    assert_eq!(older(&weir, &client), 2);
    let young = client.agent().dial(server.at(8000)).unwrap();
    assert_eq!(older(&weir, &client), 2, "that one was decided on");
    first.abort().unwrap();
    assert_eq!(older(&weir, &client), 1);

    weir.stop().unwrap();
    weir.launch().unwrap();
    assert_eq!(older(&weir, &client), 1, "known over a restart");

    // Nothing to try out here: what cannot be kept is not promised.
    let path = format!("/v1/workloads/default/{}/older?dryRun=true", client.name());
    let (status, said) = weir.admin("DELETE", &path, "", "").unwrap();
    assert_eq!(status, 400, "{said}");
    assert_eq!(older(&weir, &client), 1);

    let said = reset(&weir, &client);
    assert!(said.contains("closed 1 connections"), "{said}");
    assert_eq!(older(&weir, &client), 0);
    let fault = second.send("x\n").expect_err("it is closed");
    assert!(
        fault.is(Errno::ECONNABORTED) || fault.is(Errno::EPIPE),
        "{fault}"
    );
    young.send("x\n").unwrap();
    assert!(young.recv_to_end().unwrap().0.starts_with("s "));
}
