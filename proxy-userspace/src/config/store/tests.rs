//! What survives a restart, a crash, and a stranger's hand.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::config::{Source, parse};

mod damage;
mod log;

fn object(text: &str) -> Object {
    parse(&[Source::new("f", text)]).unwrap().objects.remove(0)
}

fn rule(name: &str, version: &str) -> Object {
    object(&format!(
        "{{apiVersion: weir.dev/v1, kind: RouteRule, metadata: {{name: {name}}},
          spec: {{destination: {{name: s}}, route: [{{labels: {{version: {version}}}}}]}}}}"
    ))
}

fn workload(name: &str, ready: bool) -> Object {
    object(&format!(
        "{{apiVersion: weir.dev/v1, kind: Workload, metadata: {{name: {name}}},
          spec: {{addresses: [10.0.0.1], ready: {ready}}}}}"
    ))
}

fn author(reason: &str) -> Author {
    Author {
        uid: 7,
        reason: Some(reason.to_owned()),
    }
}

/// An open store in a directory of its own, and the objects in force.
struct Scene {
    dir: TempDir,
    store: Store,
    objects: Objects,
}

impl Scene {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let (store, objects) = Store::open(&dir.path().join("state")).unwrap();
        Self {
            dir,
            store,
            objects,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("state").join(name)
    }

    fn apply(&mut self, object: Object) -> Receipt {
        self.objects.upsert(object);
        self.store.commit(&self.objects, author("test")).unwrap()
    }

    fn reopen(self) -> Result<Self, StoreError> {
        let Self { dir, store, .. } = self;
        drop(store);
        let (store, objects) = Store::open(&dir.path().join("state"))?;
        Ok(Self {
            dir,
            store,
            objects,
        })
    }

    /// The versions that rule `a` routes to in a generation.
    fn routes_at(&self, generation: u64) -> Vec<String> {
        let rules = self.store.rules_at(generation).unwrap();
        assert!(rules.services.is_empty() && rules.workloads.is_empty());
        rules
            .route_rules
            .values()
            .map(|rule| rule.routes[0].labels["version"].clone())
            .collect()
    }

    fn undo(&mut self, to: Option<u64>) -> Receipt {
        let rules = self.store.undo(to).unwrap();
        self.objects.replace_rules(&rules);
        self.store.commit(&self.objects, author("undo")).unwrap()
    }
}

#[test]
fn what_is_in_force_is_there_after_a_restart() {
    let mut scene = Scene::new();
    assert_eq!(
        scene.store.receipt(),
        Receipt {
            generation: 0,
            revision: 0
        }
    );
    assert_eq!(
        scene.apply(rule("a", "v1")),
        Receipt {
            generation: 1,
            revision: 0
        }
    );
    assert_eq!(
        scene.apply(workload("w", true)),
        Receipt {
            generation: 1,
            revision: 1
        }
    );
    assert_eq!(
        scene.apply(workload("w", false)),
        Receipt {
            generation: 1,
            revision: 2
        }
    );
    let versions = |scene: &Scene| {
        let of = |object: &Object| {
            scene
                .store
                .resource_version(object.kind(), object.name())
                .unwrap()
                .to_string()
        };
        (of(&rule("a", "v1")), of(&workload("w", true)))
    };
    let before = (scene.store.history().to_vec(), versions(&scene));
    assert_eq!(before.1, ("1".into(), "3".into()));
    let scene = scene.reopen().unwrap();
    assert_eq!(
        scene.store.receipt(),
        Receipt {
            generation: 1,
            revision: 2
        }
    );
    assert_eq!((scene.store.history().to_vec(), versions(&scene)), before);
    assert_eq!(
        scene
            .objects
            .get(Kind::Workload, workload("w", true).name()),
        Some(workload("w", false))
    );
    assert_eq!(scene.objects.list(Kind::RouteRule), [rule("a", "v1")]);
}

#[test]
fn nothing_is_written_when_nothing_changes() {
    let mut scene = Scene::new();
    let first = scene.apply(rule("a", "v1"));
    let written = fs::metadata(scene.path(file::HEAD))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(scene.apply(rule("a", "v1")), first);
    assert_eq!(
        fs::metadata(scene.path(file::HEAD))
            .unwrap()
            .modified()
            .unwrap(),
        written
    );
    assert_eq!(scene.store.history().len(), 1);
}

#[test]
fn history_says_who_changed_what_and_why() {
    let mut scene = Scene::new();
    scene.apply(rule("a", "v1"));
    scene.apply(rule("a", "v2"));
    scene
        .objects
        .remove(Kind::RouteRule, rule("a", "v1").name());
    scene.store.commit(&scene.objects, author("gone")).unwrap();
    let said: Vec<_> = scene
        .store
        .history()
        .iter()
        .map(|entry| {
            (
                entry.generation,
                entry.uid,
                entry.reason.as_deref().unwrap(),
                entry.changes[0].change,
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            (1, 7, "test", Edit::Created),
            (2, 7, "test", Edit::Configured),
            (3, 7, "gone", Edit::Deleted)
        ]
    );
    let json = serde_json::to_value(&scene.store.history()[2]).unwrap();
    assert_eq!(json["changes"][0]["kind"], "RouteRule");
    assert_eq!(json["changesOmitted"], 0);
    assert!(json["time"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn undo_makes_a_new_generation_of_old_rules() {
    let mut scene = Scene::new();
    assert!(matches!(
        scene.store.undo(None),
        Err(StoreError::NothingToUndo)
    ));
    scene.apply(rule("a", "v1"));
    scene.apply(workload("w", true));
    scene.apply(rule("a", "v2"));
    scene.apply(workload("w", false));
    assert_eq!(
        scene.undo(None),
        Receipt {
            generation: 3,
            revision: 2
        }
    );
    assert_eq!(scene.objects.list(Kind::RouteRule), [rule("a", "v1")]);
    assert_eq!(
        scene.objects.list(Kind::Workload),
        [workload("w", false)],
        "inventory is never undone"
    );
    // Undoing the undo gives back what there was.
    assert_eq!(scene.undo(None).generation, 4);
    assert_eq!(scene.objects.list(Kind::RouteRule), [rule("a", "v2")]);
    // Before the first rule there was none.
    assert_eq!(scene.undo(Some(0)).generation, 5);
    assert!(scene.objects.route_rules.is_empty());
    let scene = scene.reopen().unwrap();
    let all: Vec<_> = (0..=5)
        .map(|generation| scene.routes_at(generation).concat())
        .collect();
    assert_eq!(all, ["", "v1", "v2", "v1", "v2", ""]);
}

#[test]
fn a_hundred_generations_are_kept() {
    let mut scene = Scene::new();
    let last = HISTORY_MAX as u64 + 5;
    for generation in 1..=last {
        assert_eq!(
            scene.apply(rule("a", &format!("v{generation}"))).generation,
            generation
        );
    }
    let scene = scene.reopen().unwrap();
    assert_eq!(scene.store.history().len(), HISTORY_MAX);
    assert_eq!(scene.store.history()[0].generation, 6);
    assert_eq!(
        scene.routes_at(5),
        ["v5"],
        "the one before the oldest entry can be restored from it"
    );
    let error = scene.store.rules_at(4).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("generation 4 is not kept: 5 to {last} are")
    );
    assert!(scene.store.rules_at(last + 1).is_err());
    assert_eq!(
        fs::read_dir(scene.path("history")).unwrap().count(),
        HISTORY_MAX
    );
}

#[test]
fn a_stale_version_is_told() {
    let mut scene = Scene::new();
    scene.apply(rule("a", "v1"));
    let (kind, name) = (Kind::RouteRule, rule("a", "v1").name().clone());
    let first = scene.store.resource_version(kind, &name);
    assert_eq!(scene.store.check_version(kind, &name, first), Ok(()));
    assert_eq!(scene.store.check_version(kind, &name, None), Ok(()));
    scene.apply(rule("a", "v2"));
    let stale = scene.store.check_version(kind, &name, first).unwrap_err();
    assert_eq!(
        stale.to_string(),
        "RouteRule default/a is not at resourceVersion 1 any more (it is at 2): get it again and repeat the change"
    );
    scene.objects.remove(kind, &name);
    scene.store.commit(&scene.objects, author("gone")).unwrap();
    assert_eq!(
        scene
            .store
            .check_version(kind, &name, first)
            .unwrap_err()
            .current,
        None
    );
    scene.apply(rule("a", "v1"));
    assert!(
        scene.store.check_version(kind, &name, first).is_err(),
        "a version never comes back"
    );
    let document = scene.store.document(&rule("a", "v1"));
    assert_eq!(document["metadata"]["resourceVersion"], "4");
}

#[test]
fn files_are_for_their_owner_alone() {
    let mut scene = Scene::new();
    scene.apply(rule("a", "v1"));
    scene.apply(workload("w", true));
    for (name, mode) in [
        ("", 0o700),
        ("history", 0o700),
        ("head.json", 0o600),
        ("rules-1.json", 0o600),
        ("inventory-1.json", 0o600),
        ("history/1.json", 0o600),
        ("lock", 0o600),
    ] {
        let found = fs::metadata(scene.path(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{name}: {found:o}");
    }
    let wide = TempDir::new().unwrap();
    fs::set_permissions(wide.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let error = Store::open(wide.path()).unwrap_err().to_string();
    assert!(
        error.contains("can be written by others") && error.contains("chmod 0700"),
        "{error}"
    );
}

#[test]
fn a_second_daemon_is_kept_out() {
    let scene = Scene::new();
    let error = Store::open(&scene.path("")).unwrap_err();
    assert!(
        matches!(error, StoreError::Locked { .. }) && error.to_string().contains("--state-dir"),
        "{error}"
    );
}
