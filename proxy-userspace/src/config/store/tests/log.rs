//! Small commits among many objects: logged, and what becomes of the log.

use super::*;

/// Forty workloads in force, and one rule.
fn many() -> Scene {
    let mut scene = Scene::new();
    for number in 0..40 {
        scene.objects.upsert(workload(&format!("w{number}"), true));
    }
    scene.apply(rule("a", "v1"));
    scene
}

fn logs(scene: &Scene) -> Vec<String> {
    let entries = fs::read_dir(scene.path("")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("log-")).collect()
}

fn is_ready(scene: &Scene, name: &str) -> bool {
    scene.objects.workloads[&ObjectName::new("default", name)].ready
}

#[test]
fn a_small_commit_writes_one_line_and_outlasts_a_restart() {
    let mut scene = many();
    assert!(logs(&scene).is_empty());
    let inventory = fs::read(scene.path("inventory-1.json")).unwrap();
    let receipt = scene.apply(workload("w7", false));
    assert_eq!((receipt.generation, receipt.revision), (1, 2));
    scene.apply(rule("a", "v2"));
    scene
        .objects
        .remove(Kind::Workload, &ObjectName::new("default", "w8"));
    scene.store.commit(&scene.objects, author("gone")).unwrap();
    assert_eq!(fs::read(scene.path("inventory-1.json")).unwrap(), inventory);
    let version = scene
        .store
        .resource_version(Kind::Workload, &ObjectName::new("default", "w7"));
    let scene = scene.reopen().unwrap();
    let receipt = scene.store.receipt();
    assert_eq!((receipt.generation, receipt.revision), (2, 3));
    assert!(!is_ready(&scene, "w7") && is_ready(&scene, "w6"));
    assert_eq!(scene.objects.workloads.len(), 39);
    assert_eq!(scene.routes_at(1), ["v1"]);
    assert_eq!(scene.routes_at(2), ["v2"]);
    let name = ObjectName::new("default", "w7");
    assert_eq!(scene.store.resource_version(Kind::Workload, &name), version);
}

#[test]
fn what_a_crash_left_of_a_line_is_cut_off() {
    let mut scene = many();
    scene.apply(workload("w1", false));
    let log = scene.path(&logs(&scene)[0]);
    let whole = fs::read(&log).unwrap();
    scene.apply(workload("w2", false));
    let more = fs::read(&log).unwrap();
    for end in [whole.len() + 1, more.len() - 1] {
        fs::write(&log, &more[..end]).unwrap();
        scene = scene.reopen().unwrap();
        assert!(!is_ready(&scene, "w1") && is_ready(&scene, "w2"));
        assert_eq!(fs::read(&log).unwrap(), whole);
    }
    let receipt = scene.apply(workload("w3", false));
    assert_eq!(receipt.revision, 3);
    let scene = scene.reopen().unwrap();
    assert!(!is_ready(&scene, "w3") && is_ready(&scene, "w2"));
}

#[test]
fn a_damaged_log_is_named() {
    let mut scene = many();
    scene.apply(workload("w1", false));
    scene.apply(workload("w2", false));
    let log = scene.path(&logs(&scene)[0]);
    let text = fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    fs::write(&log, format!("{}\n{}\n", lines[0], lines[2])).unwrap();
    let error = scene
        .reopen()
        .err()
        .expect("a commit is missing")
        .to_string();
    assert!(
        error.contains("log-") && error.contains("line 2"),
        "{error}"
    );
}

#[test]
fn many_changes_are_written_as_a_whole_again() {
    let mut scene = many();
    for number in 0..10 {
        scene.apply(workload(&format!("w{number}"), false));
    }
    assert_eq!(logs(&scene).len(), 1);
    let receipt = scene.apply(workload("w10", false));
    assert_eq!(receipt.revision, 12);
    assert!(logs(&scene).is_empty());
    assert!(scene.path("inventory-12.json").exists());
    assert!(!scene.path("inventory-1.json").exists());
    assert!(!is_ready(&scene.reopen().unwrap(), "w10"));
}
