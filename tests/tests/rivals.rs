//! Programs of others on the hooks that weir needs: beside those that let others
//! in weir works, and the one that does not is named.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use aya::programs::loaded_programs;
use nix::errno::Errno;
use serde_json::{Value, json};
use testbed::{Node, Weir, eventually, programs};

/// Hooks that both want, as bpftool calls them.
const HOOKS: [&str; 2] = ["connect4", "sendmsg4"];

/// A program by its id: that of a weir on another node, which enrols nobody and so
/// lets everything pass, but for its fences, which let nobody.
fn program_of(other: &Weir<'_>, name: &str) -> String {
    let held = programs::held_by(other.id().unwrap()).unwrap();
    let program = loaded_programs()
        .flatten()
        .find(|program| held.contains(&program.id()) && program.name_as_str() == Some(name));
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
    let places = [node.pods_cgroup(), node.root_cgroup()];
    for (hook, cgroup) in HOOKS
        .into_iter()
        .flat_map(|hook| places.map(|at| (hook, at)))
    {
        let id = program_of(&other, &format!("weir_{hook}"));
        let on = [path(cgroup), hook, "id", &id];
        bpftool(&[&["cgroup", "attach"], &on[..]].concat());
        let refused = Weir::start(&node).err().expect("weir must not start");
        let said = format!("{refused:#}");
        let named = format!(
            "by program `weir_{hook}` (id {id}), attached to {} without the multi flag",
            cgroup.display()
        );
        for part in [
            &format!("`{hook}` hook"),
            "BPF_F_ALLOW_MULTI",
            "--cgroup",
            &named,
        ] {
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

/// Those that let others in, above and in a pod, stay, and so does weir's decision;
/// `weir status` tells of them.
#[test]
fn beside_programs_that_let_others_in_weir_decides() {
    let (node, elsewhere) = (Node::new().unwrap(), Node::new().unwrap());
    let other = Weir::start(&elsewhere).unwrap();
    let client = node.pod("client").unwrap();
    let outside = node.outside("outside").unwrap();
    let places = [node.root_cgroup(), client.cgroup()];
    let beside: Vec<(&str, &Path, String)> = HOOKS
        .into_iter()
        .flat_map(|hook| places.map(|at| (hook, at, program_of(&other, &format!("weir_{hook}")))))
        .collect();
    for (hook, cgroup, id) in &beside {
        let on = [path(cgroup), hook, "id", id, "multi"];
        bpftool(&[&["cgroup", "attach"], &on[..]].concat());
    }
    let weir = Weir::start(&node).unwrap();
    weir.enroll(&client, &[]);
    let denied = client
        .agent()
        .dial(outside.at(7000))
        .err()
        .expect("no rule opens it");
    assert!(denied.is(Errno::EPERM), "{denied}");
    let told = || -> (Vec<Value>, String) {
        let status = weir.json(&["status"]);
        let others = status["dataplane"]["others"].as_array().unwrap().clone();
        (others, weir.ok(&["status"]))
    };
    let (others, text) = told();
    for (hook, cgroup, id) in &beside {
        assert!(attached_to(cgroup).contains(id), "{}", cgroup.display());
        let (id, cgroup): (u32, _) = (id.parse().unwrap(), path(cgroup));
        let (name, at) = (format!("weir_{hook}"), format!("cgroup/{hook}"));
        let line = format!("beside weir: {name} (id {id}) at {at} of {cgroup}\n");
        assert!(text.contains(&line), "{line}: {text}");
        let said = json!({"id": id, "name": name, "hook": at, "cgroup": cgroup});
        assert!(others.contains(&said), "{said}: {others:?}");
    }
    // None of its own, the fences included, is among them.
    let here = |other: &&Value| {
        let cgroup = other["cgroup"].as_str().unwrap();
        cgroup.starts_with(path(node.root_cgroup()))
    };
    assert_eq!(
        others.iter().filter(here).count(),
        beside.len(),
        "{others:?}"
    );
    for (hook, cgroup, id) in &beside {
        let on = [path(cgroup), hook, "id", id];
        bpftool(&[&["cgroup", "detach"], &on[..]].concat());
    }
    assert_eq!(told().0.iter().filter(here).count(), 0);
    weir.finish().unwrap();
    other.finish().unwrap();
}

/// A program in a pod that refuses what the canary dials: the pod is not captured, and
/// whose program may be why is said.
#[test]
fn who_keeps_a_canary_from_weir_is_named() {
    let (node, elsewhere) = (Node::new().unwrap(), Node::new().unwrap());
    let other = Weir::start(&elsewhere).unwrap();
    let id = program_of(&other, "weir_fence4");
    let client = node.pod("client").unwrap();
    let on = [path(client.cgroup()), "connect4", "id", &id, "multi"];
    bpftool(&[&["cgroup", "attach"], &on[..]].concat());
    let weir = Weir::start(&node).unwrap();
    weir.enroll(&client, &[]);
    let why = eventually("the canary is back", Duration::from_secs(10), || {
        let item = weir.json(&["workloads"])["items"][0].clone();
        assert_eq!(item["captured"], false, "{item}");
        let why = item["why"].as_str().unwrap().to_owned();
        let is_back = why != "not verified yet";
        is_back.then_some(why).ok_or("it is not".to_owned())
    });
    let cgroup = client.cgroup().display();
    for part in [
        "Operation not permitted",
        "weir's hooks run in its cgroup",
        &format!("program `weir_fence4` (id {id}) on connect4 of {cgroup}"),
    ] {
        assert!(why.contains(part), "{part}: {why}");
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
    let id = program_of(&other, "weir_connect4");
    let client = node.pod("client").unwrap();
    let outside = node.outside("outside").unwrap();
    let on = [path(client.cgroup()), "connect4", "id", &id];
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
