//! Where cgroup v2 is, if nobody says: wherever it is mounted, but not where what
//! looks like its root is a part of it.

use std::path::Path;
use std::process::{Command, Output};

use testbed::{Node, weir_binary};

/// Joins the cgroup `$1`, goes into namespaces of its own, takes the mount `$2` of
/// cgroup v2 away there, mounts it at `$3` if that is a path, and becomes the rest.
const ALONE: &str = r#"
    echo 0 > "$1/cgroup.procs" && shift
    exec unshare $NAMESPACES --propagation private -- sh -ec '
        umount --lazy "$1"
        if [ -n "$2" ]; then mkdir -p "$2" && mount -t cgroup2 none "$2"; fi
        shift 2
        exec timeout 60 "$@"
    ' sh "$@"
"#;

/// Runs it from the daemon's cgroup.
fn weir_alone(node: &Node, namespaces: &str, mounted: &str, command: &str) -> Output {
    let hierarchy = node.root_cgroup().parent().unwrap();
    let weir = weir_binary().unwrap();
    let (pins, state) = (node.bpffs().join("weir"), node.dir().join("state"));
    Command::new("sh")
        .env("NAMESPACES", namespaces)
        .args(["-c", ALONE, "sh"])
        .arg(node.daemon_cgroup())
        .args([hierarchy, Path::new(mounted), &weir])
        .arg(command)
        .arg("--bpffs")
        .arg(pins)
        .arg("--state-dir")
        .arg(state)
        .output()
        .unwrap()
}

/// Whether it was refused so, with nothing left.
fn is_refused(node: &Node, output: &Output, parts: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    for part in parts {
        assert!(said.contains(part), "{part}: {said}");
    }
    let own = node.daemon_cgroup().join("weir-proxy");
    assert!(!own.exists(), "{} is left", own.display());
}

/// In a cgroup namespace of its own, as a container has one, the root is the
/// container's cgroup: no pod is below it.
#[test]
fn what_looks_like_the_root_in_a_cgroup_namespace_is_not_taken() {
    let node = Node::new().unwrap();
    let mounted = node.dir().join("hierarchy");
    for command in ["run", "uninstall"] {
        let namespaces = "--mount --cgroup";
        let output = weir_alone(&node, namespaces, mounted.to_str().unwrap(), command);
        let parts = ["in a cgroup namespace of its own", "--cgroup"];
        is_refused(&node, &output, &parts);
    }
}

/// Mounted in a place where nobody would look, it is found; mounted nowhere, it is
/// said how to mount it.
#[test]
fn the_hierarchy_is_found_where_it_is() {
    let node = Node::new().unwrap();
    let mounted = node.dir().join("hierarchy");
    // What only somebody who found the root finds.
    let canary = node.root_cgroup().join("weir-canary");
    std::fs::create_dir(&canary).unwrap();
    let output = weir_alone(&node, "--mount", mounted.to_str().unwrap(), "uninstall");
    assert!(output.status.success(), "{output:?}");
    assert!(!canary.exists(), "{output:?}");
    let output = weir_alone(&node, "--mount", "", "run");
    let parts = ["no cgroup v2 hierarchy is mounted", "mount -t cgroup2"];
    is_refused(&node, &output, &parts);
}
