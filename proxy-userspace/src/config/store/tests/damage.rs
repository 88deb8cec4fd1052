//! Crashes, full disks, and files that somebody else had a hand in.

use std::fs;

use super::super::file;
use super::{Receipt, Scene, StoreError, author, rule, workload};
use crate::config::Kind;

/// A crash can come between any two steps of a commit; whatever it leaves
/// behind, the state is that of before or of after.
#[test]
fn a_crash_leaves_the_state_before_or_after() {
    let mut scene = Scene::new();
    scene.apply(rule("a", "v1"));
    scene.apply(workload("w", true));
    let old_head = fs::read(scene.path(file::HEAD)).unwrap();
    let old_rules = fs::read(scene.path("rules-1.json")).unwrap();
    scene.apply(rule("a", "v2"));
    // Everything of generation 2 is written, but for the head.
    fs::write(scene.path(file::HEAD), old_head).unwrap();
    fs::write(scene.path("rules-1.json"), old_rules).unwrap();
    fs::write(scene.path(".new"), "{\"half").unwrap();
    let mut scene = scene.reopen().unwrap();
    assert_eq!(
        scene.store.receipt(),
        Receipt {
            generation: 1,
            revision: 1
        }
    );
    assert_eq!(scene.objects.list(Kind::RouteRule), [rule("a", "v1")]);
    assert_eq!(scene.store.history().len(), 1);
    assert!(!scene.path("rules-2.json").exists() && !scene.path("history/2.json").exists());
    assert_eq!(scene.apply(rule("a", "v3")).generation, 2);
    assert_eq!(
        scene.reopen().unwrap().objects.list(Kind::RouteRule),
        [rule("a", "v3")]
    );
}

#[test]
fn a_crash_in_the_very_first_commit_leaves_nothing() {
    let mut scene = Scene::new();
    scene.apply(rule("a", "v1"));
    fs::remove_file(scene.path(file::HEAD)).unwrap();
    let scene = scene.reopen().unwrap();
    assert_eq!(
        scene.store.receipt(),
        Receipt {
            generation: 0,
            revision: 0
        }
    );
    assert!(!scene.path("rules-1.json").exists());
}

#[test]
fn a_failed_write_changes_nothing() {
    let mut scene = Scene::new();
    scene.apply(rule("a", "v1"));
    // A directory in the way cannot be replaced by a file, not even by root.
    fs::create_dir(scene.path("rules-2.json")).unwrap();
    scene.objects.upsert(rule("a", "v2"));
    let error = scene.store.commit(&scene.objects, author("x")).unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Io {
                action: "write",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(scene.store.receipt().generation, 1);
    fs::remove_dir(scene.path("rules-2.json")).unwrap();
    assert_eq!(
        scene
            .store
            .commit(&scene.objects, author("x"))
            .unwrap()
            .generation,
        2
    );
    assert_eq!(
        scene.reopen().unwrap().objects.list(Kind::RouteRule),
        [rule("a", "v2")]
    );
}

/// What somebody did to the text of a file.
type Change = Box<dyn Fn(String) -> String>;

#[test]
fn damage_is_named_with_what_helps() {
    let replace = |from: &'static str, to: &'static str| move |text: String| text.replace(from, to);
    let broken: [(&str, Change, &str); 8] = [
        ("head.json", Box::new(|_| "{".into()), "is damaged (EOF"),
        (
            "head.json",
            Box::new(|_| "{\"a\": 1}".into()),
            "its format is not `weir state`",
        ),
        (
            "head.json",
            Box::new(replace("\"version\":1", "\"version\":9")),
            "has format version 9, this weir reads 1: run",
        ),
        (
            "rules-2.json",
            Box::new(replace("\"number\":2", "\"number\":3")),
            "the number in it is not that of its name",
        ),
        (
            "rules-2.json",
            Box::new(replace("\"weight\":100", "\"weight\":99")),
            "expected weights that sum to 100",
        ),
        (
            "rules-2.json",
            Box::new(replace(",\"resourceVersion\":\"2\"", "")),
            "has no resourceVersion",
        ),
        (
            "rules-2.json",
            Box::new(|text| text[..text.len() / 2].into()),
            "is damaged (EOF",
        ),
        (
            "history/2.json",
            Box::new(|_| "x".into()),
            "costs no more than undo",
        ),
    ];
    for (name, change, expected) in broken {
        let mut scene = Scene::new();
        scene.apply(rule("a", "v1"));
        scene.apply(rule("a", "v2"));
        let path = scene.path(name);
        let changed = change(fs::read_to_string(&path).unwrap());
        fs::write(&path, changed).unwrap();
        let error = scene
            .reopen()
            .err()
            .unwrap_or_else(|| panic!("{name}: {expected}"))
            .to_string();
        assert!(
            error.contains(expected) && error.contains(name),
            "{name}: {error}"
        );
    }
}

#[test]
fn what_is_missing_is_not_taken_for_empty() {
    for (name, expected) in [
        ("head.json", "is missing, but "),
        ("rules-2.json", "it is missing"),
    ] {
        let mut scene = Scene::new();
        scene.apply(rule("a", "v1"));
        scene.apply(rule("a", "v2"));
        fs::remove_file(scene.path(name)).unwrap();
        let error = scene.reopen().err().unwrap().to_string();
        assert!(
            error.contains(expected) && error.contains(".bad"),
            "{error}"
        );
    }
    let mut scene = Scene::new();
    scene.apply(rule("a", "v1"));
    scene.apply(rule("a", "v2"));
    fs::remove_file(scene.path("history/1.json")).unwrap();
    let scene = scene.reopen().unwrap();
    assert_eq!(scene.store.history().len(), 1, "history ends at a gap");
    assert_eq!(scene.routes_at(1), ["v1"]);
    assert!(scene.store.rules_at(0).is_err());
}
