//! Programs of others on the hooks that weir needs: beside those that let others
//! in weir works, and the one that does not is named.

use std::path::Path;
use std::process::Command;

use aya::programs::loaded_programs;
use nix::errno::Errno;
use serde_json::Value;
use testbed::{Node, Weir, programs};

/// The hook that both want, as bpftool calls it.
const HOOK: &str = "connect4";

/// A program for it, by its id: that of a weir on another node, which enrols
/// nobody and so lets everything pass.
fn program_of(other: &Weir<'_>) -> String {
    let held = programs::held_by(other.id().unwrap()).unwrap();
    let program = loaded_programs().flatten().find(|program| {
        held.contains(&program.id()) && program.name_as_str() == Some("weir_connect4")
    });
    program.expect("a weir has its hook").id().to_string()
}

fn bpftool(args: &[&str]) -> String {
    let output = Command::new("bpftool").args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn path(cgroup: &Path) -> &str {
    cgroup.to_str().unwrap()
}

/// The ids of all programs that hang on a cgroup.
fn attached_to(cgroup: &Path) -> Vec<String> {
    let said = bpftool(&["-j", "cgroup", "show", path(cgroup)]);
    let programs: Vec<Value> = serde_json::from_str(&said).unwrap_or_default();
    programs.iter().map(|one| one["id"].to_string()).collect()
}

/// One that was attached without the multi flag, to the pods' cgroup or above it,
/// forbids weir's: said with its name, and nothing of weir's is left hanging. When
/// it is gone weir starts.
#[test]
fn a_program_that_lets_no_other_in_is_named() {
    let (node, elsewhere) = (Node::new().unwrap(), Node::new().unwrap());
    let other = Weir::start(&elsewhere).unwrap();
    let id = program_of(&other);
    for cgroup in [node.pods_cgroup(), node.root_cgroup()] {
        let on = [path(cgroup), HOOK, "id", &id];
        bpftool(&[&["cgroup", "attach"], &on[..]].concat());
        let refused = Weir::start(&node).err().expect("weir must not start");
        let said = format!("{refused:#}");
        let named = format!(
            "by program `weir_connect4` (id {id}), attached to {} without the multi flag",
            cgroup.display()
        );
        for part in ["`connect4` hook", "BPF_F_ALLOW_MULTI", "--cgroup", &named] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let mut left = attached_to(node.pods_cgroup());
        left.retain(|program| *program != id);
        assert!(left.is_empty(), "{left:?}");
        bpftool(&[&["cgroup", "detach"], &on[..]].concat());
    }
    Weir::start(&node).unwrap().finish().unwrap();
    other.finish().unwrap();
}

/// One that lets others in, above and in a pod, stays, and so does weir's decision.
#[test]
fn beside_a_program_that_lets_others_in_weir_decides() {
    let (node, elsewhere) = (Node::new().unwrap(), Node::new().unwrap());
    let other = Weir::start(&elsewhere).unwrap();
    let id = program_of(&other);
    let client = node.pod("client").unwrap();
    let outside = node.outside("outside").unwrap();
    let places = [
        (node.root_cgroup(), &["multi"][..]),
        (client.cgroup(), &["multi"]),
    ];
    for (cgroup, flags) in places {
        let on = [path(cgroup), HOOK, "id", &id];
        bpftool(&[&["cgroup", "attach"], &on[..], flags].concat());
    }
    let weir = Weir::start(&node).unwrap();
    weir.enroll(&client, &[]);
    let denied = client
        .agent()
        .dial(outside.at(7000))
        .err()
        .expect("no rule opens it");
    assert!(denied.is(Errno::EPERM), "{denied}");
    for (cgroup, _) in places {
        assert!(attached_to(cgroup).contains(&id), "{}", cgroup.display());
    }
    weir.finish().unwrap();
    other.finish().unwrap();
}

/// One on a pod's own cgroup that lets no other in: the pod cannot be fenced, and so
/// is not enrolled, nor by half. It is as free as before, until the other is gone.
#[test]
fn a_pod_that_cannot_be_fenced_is_not_enrolled() {
    let (node, elsewhere) = (Node::new().unwrap(), Node::new().unwrap());
    let other = Weir::start(&elsewhere).unwrap();
    let id = program_of(&other);
    let client = node.pod("client").unwrap();
    let outside = node.outside("outside").unwrap();
    let on = [path(client.cgroup()), HOOK, "id", &id];
    bpftool(&[&["cgroup", "attach"], &on[..]].concat());
    let weir = Weir::start(&node).unwrap();
    let dials = || client.agent().dial(outside.at(7000)).err().unwrap();
    let refused = weir.try_enroll(&client, &[]);
    assert_ne!(refused.status, 0, "{refused:?}");
    for part in ["default/client", "weir_connect4", "BPF_F_ALLOW_MULTI"] {
        assert!(refused.stderr.contains(part), "{part}: {refused:?}");
    }
    let nobody = dials();
    assert!(nobody.is(Errno::ECONNREFUSED), "{nobody}");
    assert_eq!(weir.json(&["workloads"])["items"], serde_json::json!([]));
    assert_eq!(attached_to(client.cgroup()), [id.as_str()]);
    bpftool(&[&["cgroup", "detach"], &on[..]].concat());
    weir.enroll(&client, &[]);
    let denied = dials();
    assert!(denied.is(Errno::EPERM), "{denied}");
    weir.finish().unwrap();
    other.finish().unwrap();
}
