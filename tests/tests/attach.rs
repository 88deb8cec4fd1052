//! Load and attach: the kernel takes every program, and each hangs where it belongs.

use testbed::{Node, Weir, WeirOptions, note};

/// Programs that `weir status` lists, and which of them are not attached.
fn programs(weir: &Weir<'_>) -> (Vec<String>, Vec<String>) {
    let status = weir.json(&["status"]);
    let programs = status["dataplane"]["programs"].as_array().unwrap();
    let named = |attached: bool| {
        let chosen = programs
            .iter()
            .filter(|program| program["attached"] == attached);
        let names = chosen.map(|program| program["name"].as_str().unwrap().to_owned());
        names.collect()
    };
    (named(true), named(false))
}

/// With everything that there is: nothing is missing, a pin holds each link, and
/// nothing stays behind.
#[test]
fn every_program_is_attached_and_goes_again() {
    let node = Node::new().unwrap();
    let options = WeirOptions {
        args: vec!["--accelerate".to_owned(), "force".to_owned()],
        ..WeirOptions::default()
    };
    let mut weir = Weir::start_with(&node, options).unwrap();
    let (attached, missing) = programs(&weir);
    assert!(missing.is_empty(), "{missing:?} of {attached:?}");
    assert!(attached.len() >= 12, "{attached:?}");
    let links = node.bpffs().join("weir/links");
    let pinned = |links: &std::path::Path| {
        let names = std::fs::read_dir(links)
            .map(|entries| entries.map(|entry| entry.unwrap().file_name()).collect());
        names.unwrap_or_else(|_| Vec::new())
    };
    assert!(pinned(&links).len() >= attached.len(), "{attached:?}");
    weir.stop().unwrap();
    assert!(
        pinned(&links).len() >= attached.len(),
        "the kernel half outlives the daemon"
    );
    weir.finish().unwrap();
    assert!(pinned(&links).is_empty(), "{:?}", pinned(&links));
    note(&format!("{} programs", attached.len()));
}

/// What the kernel may lack without keeping weir from running is there too.
#[test]
fn udp_sockets_of_dead_endpoints_can_be_ended() {
    let node = Node::new().unwrap();
    let weir = Weir::start(&node).unwrap();
    let said = weir.ok(&["status"]);
    assert!(said.contains("dead endpoints are woken"), "{said}");
}
