//! The order of a change, and what a failure at each step leaves.

use super::testing::*;
use super::*;
use crate::config::{Author, Kind, ObjectName, PatchType, Warning};

/// Applies `text`.
async fn apply(control: &Control, text: &'static str) -> Result<Done, Refusal> {
    control
        .write(move |writer| writer.apply(batch(text), intent()))
        .await
}

fn weights(control: &Control) -> Vec<u32> {
    let rule = &control.view().objects.route_rules[&ObjectName::new("default", "split")];
    rule.routes.iter().map(|route| route.weight).collect()
}

const SPLIT_10_90: &[u8] = br#"[{"op":"replace","path":"/spec/route/0/weight","value":10},
    {"op":"replace","path":"/spec/route/1/weight","value":90}]"#;

async fn patch(control: &Control) -> Result<Done, Refusal> {
    let split = ObjectName::new("default", "split");
    let job = move |writer: &mut Writer| {
        writer.patch(
            Kind::RouteRule,
            &split,
            (PatchType::Json, SPLIT_10_90),
            intent(),
        )
    };
    control.write(job).await
}

fn broken() -> InstallError {
    InstallError::Failed("map full".into())
}

#[tokio::test]
async fn what_is_applied_is_installed_then_stored_then_shown() {
    let temp = tempfile::tempdir().unwrap();
    let dataplane = Recorder::default();
    let (control, _thread) = start(temp.path(), &dataplane);
    let done = apply(&control, SHOP).await.unwrap();
    assert_eq!((done.view.generation, done.view.revision), (1, 1));
    assert_eq!(done.objects.len(), 4);
    let last = dataplane.told().installs.last().cloned().unwrap();
    assert_eq!(
        (last.generation, last.revision, last.objects.len()),
        (1, 1, 4)
    );
    assert_eq!(weights(&control), [50, 50]);
    assert_eq!(control.history().await.unwrap().len(), 1);
}

#[tokio::test]
async fn inventory_has_revisions_and_rules_have_generations() {
    let temp = tempfile::tempdir().unwrap();
    let (control, _thread) = start(temp.path(), &Recorder::default());
    apply(&control, SHOP).await.unwrap();
    apply(&control, EGRESS).await.unwrap();
    let view = control.view();
    assert_eq!((view.generation, view.revision), (2, 1));
    // The same again is no change, but is installed: what was missing may be there now.
    let done = apply(&control, EGRESS).await.unwrap();
    assert!(done.objects[0].unchanged);
    assert_eq!(done.view.generation, 2);
}

#[tokio::test]
async fn objects_that_do_not_fit_change_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let dataplane = Recorder::default();
    let (control, _thread) = start(temp.path(), &dataplane);
    apply(&control, SHOP).await.unwrap();
    let twice = "{apiVersion: weir.dev/v1, kind: Workload, metadata: {name: b3}, spec: {addresses: [10.0.0.1]}}";
    let refusal = apply(&control, twice).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Mistakes(_)), "{refusal}");
    assert_eq!(dataplane.told().installs.len(), 2, "nothing was installed");
    assert_eq!(control.view().objects.workloads.len(), 2);
}

#[tokio::test]
async fn a_failed_install_leaves_the_former_state() {
    let temp = tempfile::tempdir().unwrap();
    let dataplane = Recorder::default();
    let (control, _thread) = start(temp.path(), &dataplane);
    apply(&control, SHOP).await.unwrap();
    dataplane.fail([Some(broken())]);
    let refusal = apply(&control, EGRESS).await.unwrap_err();
    assert!(
        matches!(refusal, Refusal::Install(InstallError::Failed(_))),
        "{refusal}"
    );
    assert_eq!(control.view().generation, 1);
    assert_eq!(
        control.history().await.unwrap().len(),
        1,
        "nor was it stored"
    );
}

/// Makes every commit fail: a directory lies where the store writes its new file.
fn break_store(dir: &std::path::Path) {
    std::fs::create_dir(dir.join("state/history/.new")).unwrap();
}

#[tokio::test]
async fn what_cannot_be_stored_is_taken_out_of_force_again() {
    let temp = tempfile::tempdir().unwrap();
    let dataplane = Recorder::default();
    let (control, _thread) = start(temp.path(), &dataplane);
    apply(&control, SHOP).await.unwrap();
    break_store(temp.path());
    let refusal = apply(&control, EGRESS).await.unwrap_err();
    assert!(matches!(refusal, Refusal::NotStored(_)), "{refusal}");
    let installs = dataplane.told().installs.clone();
    assert_eq!(
        installs.last(),
        installs.get(1),
        "the former objects are back"
    );
    assert_eq!(control.view().generation, 1);

    dataplane.fail([None, Some(broken())]);
    let refusal = apply(&control, EGRESS).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Torn { .. }), "{refusal}");
    let view = control.view();
    assert_eq!((view.generation, view.warnings.len()), (1, 1));
    assert!(view.warnings[0].message.contains("going back failed"));
}

#[tokio::test]
async fn workloads_that_had_to_be_closed_are_said_until_a_change_succeeds() {
    let temp = tempfile::tempdir().unwrap();
    let dataplane = Recorder::default();
    let (control, _thread) = start(temp.path(), &dataplane);
    dataplane.fail([Some(InstallError::Closed("bpf(2)".into()))]);
    apply(&control, SHOP).await.unwrap_err();
    assert!(
        control.view().warnings[0]
            .message
            .contains("closed until an apply succeeds")
    );
    apply(&control, SHOP).await.unwrap();
    assert_eq!(control.view().warnings, []);
}

#[tokio::test]
async fn a_bug_in_the_writer_is_said_and_not_called_busy() {
    let temp = tempfile::tempdir().unwrap();
    let (control, thread) = start(temp.path(), &Recorder::default());
    let bug = control
        .write(|_| -> Result<(), Refusal> { panic!("a bug") })
        .await;
    assert!(matches!(bug, Err(Refusal::WriterGone)));
    assert!(thread.join().is_err());
    let refusal = control.history().await.unwrap_err();
    assert!(matches!(refusal, Refusal::WriterGone), "{refusal}");
    assert_eq!(
        control.view().generation,
        0,
        "what is in force is still shown"
    );
}

#[tokio::test]
async fn undo_brings_back_the_rules_and_leaves_the_inventory() {
    let temp = tempfile::tempdir().unwrap();
    let (control, _thread) = start(temp.path(), &Recorder::default());
    apply(&control, SHOP).await.unwrap();
    patch(&control).await.unwrap();
    assert_eq!(weights(&control), [10, 90]);
    let gone = (Kind::Workload, ObjectName::new("default", "b2"));
    control
        .write(move |writer| writer.delete(&[gone], false, intent()))
        .await
        .unwrap();

    let done = control
        .write(|writer| writer.undo(None, intent()))
        .await
        .unwrap();
    assert_eq!(done.view.generation, 3, "as a new generation");
    assert_eq!(done.objects.len(), 1);
    assert_eq!(weights(&control), [50, 50]);
    assert_eq!(
        control.view().objects.workloads.len(),
        1,
        "the inventory is present state"
    );
    let history = control.history().await.unwrap();
    assert_eq!(history[0].reason.as_deref(), Some("undo to generation 1"));

    control
        .write(|writer| writer.undo(Some(0), intent()))
        .await
        .unwrap();
    assert!(
        control.view().objects.route_rules.is_empty(),
        "generation 0 is before any rule"
    );
    let unknown = control
        .write(|writer| writer.undo(Some(99), intent()))
        .await
        .unwrap_err();
    assert!(matches!(unknown, Refusal::NoGeneration(_)), "{unknown}");
}

#[tokio::test]
async fn there_is_nothing_to_undo_at_first() {
    let temp = tempfile::tempdir().unwrap();
    let (control, _thread) = start(temp.path(), &Recorder::default());
    let refusal = control
        .write(|writer| writer.undo(None, intent()))
        .await
        .unwrap_err();
    assert!(matches!(refusal, Refusal::NothingBefore), "{refusal}");
}

#[tokio::test]
async fn a_dry_run_touches_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let dataplane = Recorder::default();
    let (control, _thread) = start(temp.path(), &dataplane);
    let dry = Intent {
        dry_run: true,
        ..intent()
    };
    let done = control
        .write(move |writer| writer.apply(batch(SHOP), dry))
        .await
        .unwrap();
    assert!(done.dry_run && done.objects.len() == 4);
    assert_eq!(dataplane.told().installs.len(), 1, "only that of the start");
    assert_eq!(control.view().generation, 0);
}

#[tokio::test]
async fn the_stored_configuration_is_in_force_after_a_restart() {
    let temp = tempfile::tempdir().unwrap();
    let (control, thread) = start(temp.path(), &Recorder::default());
    apply(&control, SHOP).await.unwrap();
    let before = control.view();
    drop(control);
    thread.join().unwrap();

    let dataplane = Recorder::default();
    let gone = Warning {
        source: None,
        document: None,
        object: Some("Workload default/b1".into()),
        path: "spec.netns".into(),
        message: "it is gone: the workload is left out".into(),
    };
    dataplane.told().warnings = vec![gone.clone()];
    let (control, _thread) = start(temp.path(), &dataplane);
    let view = control.view();
    assert_eq!((view.generation, view.revision), (1, 1));
    assert_eq!(view.warnings, [gone]);
    assert_eq!(
        view.versions, before.versions,
        "versions outlive the daemon"
    );
    assert_eq!(dataplane.told().installs.len(), 1);
}

#[tokio::test]
async fn a_warning_is_repeated_only_to_those_it_concerns() {
    let temp = tempfile::tempdir().unwrap();
    let (control, _thread) = start(temp.path(), &Recorder::default());
    let unreachable =
        "{apiVersion: v1, kind: Service, metadata: {name: lost}, spec: {ports: [{port: 80}]}}";
    for _ in 0..2 {
        let done = apply(&control, unreachable).await.unwrap();
        assert_eq!(done.warnings.len(), 1, "{:?}", done.warnings);
    }
    let done = apply(&control, EGRESS).await.unwrap();
    assert_eq!(done.warnings, [], "it says nothing about another object");
    assert_eq!(
        control.view().warnings.len(),
        1,
        "but status still shows it"
    );
}

#[tokio::test]
async fn the_author_is_kept() {
    let temp = tempfile::tempdir().unwrap();
    let (control, _thread) = start(temp.path(), &Recorder::default());
    let author = Author {
        uid: 1000,
        reason: Some("canary".into()),
    };
    let intent = Intent {
        author,
        dry_run: false,
    };
    control
        .write(move |writer| writer.apply(batch(EGRESS), intent))
        .await
        .unwrap();
    let history = control.history().await.unwrap();
    assert_eq!(
        (history[0].uid, history[0].reason.as_deref()),
        (1000, Some("canary"))
    );
}

#[tokio::test]
async fn a_full_queue_says_so_and_questions_do_not_fill_it() {
    let temp = tempfile::tempdir().unwrap();
    let (control, thread) = start(temp.path(), &Recorder::default());
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let busy = control.clone();
    let blocked = tokio::spawn(async move {
        busy.write(move |_| {
            wait.recv().unwrap();
            Ok(())
        })
        .await
    });
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let ask = |_| {
        let control = control.clone();
        tokio::spawn(async move { control.history().await })
    };
    let questions: Vec<_> = (0..2 * WAITING_MAX).map(ask).collect();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert_eq!(control.jobs.capacity(), WAITING_MAX - LOOKS_MAX);

    let filling = (0..WAITING_MAX).map(|_| {
        let control = control.clone();
        tokio::spawn(async move { control.write(|_| Ok(())).await })
    });
    let filling: Vec<_> = filling.collect();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let refusal = control.write(|_| Ok(())).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Busy), "{refusal}");
    release.send(()).unwrap();
    blocked.await.unwrap().unwrap();
    for question in questions {
        // A question that came to a full queue is told so as well.
        let answer = question.await.unwrap();
        assert!(matches!(answer, Ok(_) | Err(Refusal::Busy)));
    }
    for job in filling {
        let _ = job.await.unwrap();
    }
    drop(control);
    thread.join().unwrap();
}
