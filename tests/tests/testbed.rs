//! The testbed itself, without a daemon: what it makes works, and goes.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testbed::agent::HttpRequest;
use testbed::agent::proto::{Load, Service};
use testbed::{Node, Pod, leftovers, leftovers_of, sweep};

/// An application of the demo finds the server by a name in its hosts file.
fn svca_calls_by_name(client: &Pod, server: &Pod) {
    client.set_hosts(&[("server", server.ip())]).unwrap();
    let mut svca = client
        .app(
            &[
                "svca",
                "--listen",
                &client.at(80).to_string(),
                "--pod",
                "a",
                "--svcb",
                "http://server",
            ],
            80,
        )
        .unwrap();
    let reply = client
        .agent()
        .http(client.at(80), HttpRequest::get("svca", "/pay?msg=x"))
        .unwrap();
    assert_eq!(
        (reply.status, reply.field("/svcb/uri")),
        (200, "/notify?msg=x".into()),
        "{reply:?}"
    );
    assert!(svca.terminate(Duration::from_secs(5)).unwrap().success());
}

/// Pods reach one another and the outside; all of it is gone afterwards.
#[test]
fn pods_talk_and_nothing_is_left() {
    {
        let node = Node::new().unwrap();
        let client = node.pod("client").unwrap();
        let server = node.pod("server").unwrap();
        let outside = node.outside("outside").unwrap();
        for place in [&server, &outside] {
            place
                .agent()
                .serve(
                    place.at(7000),
                    Service::Whoami {
                        name: place.name().into(),
                    },
                )
                .unwrap();
            let sock = client.agent().dial(place.at(7000)).unwrap();
            let own = sock.local_addr().unwrap();
            sock.send("hello\n").unwrap();
            let (said, fault) = sock.recv_to_end().unwrap();
            assert_eq!(said, format!("{} {own} hello", place.name()));
            assert!(fault.is_none(), "{fault:?}");
        }
        let what = Service::Http {
            pod: "server".into(),
            version: "v1".into(),
        };
        server.agent().serve(server.at(80), what).unwrap();
        let load = Load {
            addr: server.at(80),
            request: HttpRequest::get("server", "/"),
            count: 100,
            connections: 4,
            pause_ms: 0,
            pointer: String::new(),
        };
        let report = client.agent().load(load).unwrap();
        assert_eq!(
            (report.sent, report.ok, report.version("v1")),
            (100, 100, 100),
            "{report:?}"
        );
        svca_calls_by_name(&client, &server);
        assert!(!leftovers().unwrap().is_empty());
    }
    assert_eq!(leftovers().unwrap(), Vec::<std::path::PathBuf>::new());
}

/// A process that holds a node with a pod and an agent in it.
fn holder() -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_testbed-tool"))
        .arg("hold")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
    assert_eq!(
        leftovers_of(child.id()).unwrap().len(),
        4,
        "a cgroup, two namespaces, a directory"
    );
    child
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

/// A run that is told to end cleans up first; one that is killed is cleaned up after.
#[test]
fn an_ended_run_leaves_nothing() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut child = holder();
        send(&child, signal);
        assert_eq!(child.wait().unwrap().code(), Some(128 + signal as i32));
        assert_eq!(
            leftovers_of(child.id()).unwrap(),
            Vec::<std::path::PathBuf>::new()
        );
    }
    let mut child = holder();
    send(&child, Signal::SIGKILL);
    child.wait().unwrap();
    sweep().unwrap();
    assert_eq!(
        leftovers_of(child.id()).unwrap(),
        Vec::<std::path::PathBuf>::new()
    );
}
