//! The testbed itself, without a daemon: what it makes works, and goes.

use std::time::Duration;

use testbed::agent::HttpRequest;
use testbed::agent::proto::{Load, Service};
use testbed::{Node, leftovers};

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
        assert!(!leftovers().unwrap().is_empty());
    }
    assert_eq!(leftovers().unwrap(), Vec::<std::path::PathBuf>::new());
}
