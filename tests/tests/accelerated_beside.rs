//! Acceleration where not all is as it would like: another tool's program owns a
//! socket, one end is elsewhere, the kernel lacks Multipath TCP.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use aya::maps::{Array, HashMap, Map, MapData};
use aya::programs::loaded_programs;
use proxy_common::{NodeConfig, OfferKey};
use testbed::mesh::{accelerating, ask, counted};
use testbed::{Node, Pod, Sock, Weir, WeirOptions, eventually, programs, weir_binary};

const LEN: u64 = 4 << 20;

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 96, 0, 1], port))
}

/// A new connection that works: one question, one answer, and much each way. One
/// way after the other: of a socket in a map of sockets the kernel fails a read that
/// waits when its writer is woken.
fn works<'a>(client: &'a Pod, listener: &Sock<'a>, port: u16) -> (Sock<'a>, Sock<'a>) {
    let (near, far) = ask(client, listener, at(port));
    for (from, to) in [(&near, &far), (&far, &near)] {
        let (received, sent) = std::thread::scope(|scope| {
            let sent = scope.spawn(|| from.bulk(7, LEN, 0).unwrap());
            (to.bulk(7, 0, LEN).unwrap(), sent.join().unwrap())
        });
        assert_eq!(
            (received.received, received.received_hash),
            (LEN, sent.sent_hash)
        );
    }
    (near, far)
}

/// What is counted of acceleration: accelerated, passed, refused.
fn all(weir: &Weir<'_>) -> [u64; 3] {
    ["accelerated", "passed", "refused"].map(|outcome| counted(weir, outcome))
}

fn grown(weir: &Weir<'_>, before: [u64; 3]) -> [u64; 3] {
    let now = all(weir);
    std::array::from_fn(|index| now[index] - before[index])
}

fn forcing() -> WeirOptions {
    WeirOptions {
        args: vec!["--accelerate".to_owned(), "force".to_owned()],
        ..WeirOptions::default()
    }
}

/// The programs that a daemon holds: their ids and lengths, by name.
fn held(weir: &Weir<'_>) -> BTreeMap<String, (u32, u32)> {
    let held = programs::held_by(weir.id().unwrap()).unwrap();
    loaded_programs()
        .flatten()
        .filter(|program| held.contains(&program.id()))
        .map(|program| {
            let len = program.size_translated().unwrap();
            let name = program.name_as_str().unwrap_or_default().to_owned();
            (name, (program.id(), len))
        })
        .collect()
}

fn bpftool(args: &[&str]) {
    let output = Command::new("bpftool").args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
}

/// Makes the daemon's hooks take a cgroup for the daemon's own: what its processes
/// dial is let through, and accelerated as an upstream connection.
fn exempt(node: &Node, cgroup: &Path) {
    let pin = node.bpffs().join("weir/maps/NODE");
    let map = Map::Array(MapData::from_pin(pin).unwrap());
    let mut node: Array<_, NodeConfig> = map.try_into().unwrap();
    let config = NodeConfig {
        proxy_cgroup: fs::metadata(cgroup).unwrap().ino(),
        ..node.get(&0, 0).unwrap()
    };
    node.set(0, config, 0).unwrap();
}

fn offers(node: &Node) -> usize {
    let pin = node.bpffs().join("weir/maps/OFFERS");
    let map = Map::HashMap(MapData::from_pin(pin).unwrap());
    let offers: HashMap<_, OfferKey, u64> = map.try_into().unwrap();
    offers.keys().count()
}

/// The other tool is a weir of another node, whose hooks hang on the client's
/// cgroup and so see its sockets first: they sit in its map, with its program.
#[test]
fn a_socket_that_another_tool_owns_stays_with_tcp() {
    let (node, elsewhere) = (Node::new().unwrap(), Node::new().unwrap());
    let (weir, client, server) = accelerating(&node, "force");
    let other = Weir::start_with(&elsewhere, forcing()).unwrap();
    for pod in [&server, &client] {
        other.enroll_found(pod, &[]);
    }
    exempt(&elsewhere, client.cgroup());
    let cgroup = client.cgroup().to_str().unwrap();
    let programs = held(&other);
    let hooks = [
        ("connect4", "weir_connect4"),
        ("sock_ops", "weir_accelerate"),
    ];
    let places = hooks.map(|(hook, program)| {
        let id = programs[program].0.to_string();
        [cgroup.to_owned(), hook.to_owned(), "id".to_owned(), id]
    });
    let hang = |what: &str, flags: &[&str]| {
        for place in &places {
            let place: Vec<&str> = place.iter().map(String::as_str).collect();
            bpftool(&[&["cgroup", what], &place[..], flags].concat());
        }
    };
    let listener = server.agent().listen(server.at(8000), 16).unwrap();
    hang("attach", &["multi"]);
    let before = all(&weir);
    let _ends = works(&client, &listener, 81);
    assert_eq!(grown(&weir, before), [0, 0, 1]);
    // Who accepts a proxied connection is in the client's cgroup no more than the
    // endpoint is: its other leg is weir's alone.
    let before = all(&weir);
    let _ends = works(&client, &listener, 80);
    assert_eq!(grown(&weir, before), [1, 0, 1]);
    assert_eq!(offers(&node), 0, "nobody will sit opposite");
    hang("detach", &[]);
    let before = all(&weir);
    let _ends = works(&client, &listener, 81);
    assert_eq!(grown(&weir, before), [1, 0, 0]);
    other.finish().unwrap();
}

/// A proxied connection whose endpoint takes no part, or is another node's as far
/// as anybody knows: the leg in the client's pod is accelerated, the other is not.
#[test]
fn one_leg_is_accelerated_where_the_other_leaves() {
    let node = Node::new().unwrap();
    let (weir, client, server) = accelerating(&node, "force");
    let listener = server.agent().listen(server.at(8000), 16).unwrap();
    let off = r#"{"spec":{"accelerate":"off"}}"#;
    let elsewhere = format!(
        "apiVersion: weir.dev/v1\nkind: Workload\nmetadata: {{name: server, labels: {{app: s}}}}\n\
         spec: {{addresses: [{}], node: elsewhere}}\n",
        server.ip()
    );
    let changes: [&dyn Fn(); 2] = [
        &|| {
            weir.ok(&["patch", "workload", "server", "-p", off]);
        },
        &|| {
            weir.ok(&["unenroll", "server"]);
            weir.apply(&elsewhere);
        },
    ];
    for change in changes {
        change();
        for (port, wanted) in [(80, [1, 1, 0]), (81, [0, 1, 0])] {
            let before = all(&weir);
            let _ends = works(&client, &listener, port);
            assert_eq!(grown(&weir, before), wanted, "{port}");
        }
    }
}

/// Such a kernel has no type for Multipath TCP's sockets, so no program may be able
/// to ask for one: the code that does is gone from each, as the verifier sees it.
#[test]
fn a_kernel_without_multipath_tcp_is_not_asked_for_it() {
    let node = Node::new().unwrap();
    let client = node.pod("client").unwrap();
    let loaded = |options: WeirOptions| {
        let weir = Weir::start_with(&node, options).unwrap();
        weir.enroll(&client, &[]);
        let programs = eventually("acceleration is loaded", Duration::from_secs(5), || {
            let programs = held(&weir);
            if programs.contains_key("weir_accelerate") {
                Ok(programs)
            } else {
                Err(format!("{programs:?}"))
            }
        });
        weir.finish().unwrap();
        programs
    };
    let with = loaded(forcing());
    let script = node.dir().join("weir-without-multipath");
    let text = format!(
        "#!/bin/sh\nexec unshare --mount sh -c \
         'mount -t tmpfs none /proc/sys/net && exec \"$0\" \"$@\"' {} \"$@\"\n",
        weir_binary().unwrap().display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let without = loaded(WeirOptions {
        binary: Some(script),
        ..forcing()
    });
    for name in ["weir_accelerate", "weir_connect4", "weir_connect6"] {
        let [with, without] = [&with, &without].map(|programs| programs[name].1);
        assert!(without < with, "{name}: {without} of {with} bytes are left");
    }
}
