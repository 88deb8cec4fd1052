//! Commands against a daemon: what they print, where, and with which status.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser as _;

use super::super::args::Cli;
use super::super::run;
use crate::admin::tests::Daemon;
use crate::control::testing::{EGRESS, SHOP};

/// How a command ended.
#[derive(Debug)]
struct Ended {
    status: u8,
    out: String,
    err: String,
}

impl Ended {
    /// Standard output of a command that did as asked and had nothing to note.
    fn done(self) -> String {
        assert_eq!((self.status, &*self.err), (0, ""), "{}", self.out);
        self.out
    }

    /// Standard error of a command that ended with `status` and printed nothing else.
    fn failed(self, status: u8) -> String {
        assert_eq!((self.status, &*self.out), (status, ""), "{}", self.err);
        self.err
    }
}

/// A daemon, and files to send it.
struct Node {
    daemon: Daemon,
    files: tempfile::TempDir,
}

impl Node {
    async fn start() -> Self {
        let node = Self {
            daemon: Daemon::start().await,
            files: tempfile::tempdir().unwrap(),
        };
        node.write("shop.yaml", SHOP);
        node.write("egress.yaml", EGRESS);
        node
    }

    /// As [`Self::start`], with the shop in force.
    async fn with_shop() -> Self {
        let node = Self::start().await;
        node.weir("apply -f DIR/shop.yaml").await.done();
        node
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.files.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Runs `weir` with these words; `DIR` is the directory of the files.
    async fn weir(&self, line: &str) -> Ended {
        let dir = self.files.path().display().to_string();
        weir(
            &self.daemon.socket(),
            line.split_whitespace()
                .map(|word| word.replace("DIR", &dir))
                .collect(),
        )
        .await
    }
}

async fn weir(socket: &Path, words: Vec<String>) -> Ended {
    let mut line = vec![
        "weir".to_owned(),
        "--admin-socket".to_owned(),
        socket.display().to_string(),
    ];
    line.extend(words);
    let ended = tokio::task::spawn_blocking(move || {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let status = run(Cli::try_parse_from(line).unwrap(), &mut out, &mut err);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended {
            status,
            out: text(out),
            err: text(err),
        }
    });
    ended.await.unwrap()
}

#[tokio::test]
async fn apply_reads_like_kubectl() {
    let node = Node::start().await;
    let out = node.weir("apply -f DIR/shop.yaml").await.done();
    let expected = "service/svcb created\nworkload/b1 created\nworkload/b2 created\n\
                    routerule/split created\ngeneration 1 is in force\n";
    assert_eq!(out, expected);
    let out = node.weir("apply -f DIR/shop.yaml --dry-run").await.done();
    assert!(
        out.starts_with("service/svcb unchanged (dry run)\n"),
        "{out}"
    );
    let out = node.weir("apply -f DIR --reason both -o json").await.done();
    let receipt: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(receipt["generation"], 2, "a directory holds both files");
}

#[tokio::test]
async fn every_mistake_is_a_line_with_its_file() {
    let node = Node::start().await;
    node.write(
        "bad.yaml",
        &SHOP
            .replacen("weight: 50", "weight: 40", 1)
            .replace("port: 80", "prot: 80"),
    );
    let err = node
        .weir("apply -f DIR/bad.yaml DIR/egress.yaml")
        .await
        .failed(1);
    let lines: Vec<&str> = err.lines().collect();
    assert!(
        lines[0].starts_with("error: the configuration is refused and nothing was changed"),
        "{err}"
    );
    assert!(lines.len() >= 3, "{err}");
    for line in &lines[1..] {
        assert!(
            line.starts_with("  ") && line.contains("bad.yaml: document "),
            "{err}"
        );
    }
    assert_eq!(node.weir("get egressrules").await.status, 0);
    assert_eq!(
        node.weir("history -o json").await.done(),
        "{\n  \"items\": []\n}\n"
    );
}

#[tokio::test]
async fn diff_ends_with_one_if_something_differs() {
    let node = Node::with_shop().await;
    assert_eq!(node.weir("diff -f DIR/shop.yaml").await.done(), "");
    let changed = SHOP.replace("version: v0.1 }, weight: 50", "version: v0.1 }, weight: 10");
    node.write(
        "shop.yaml",
        &changed.replace("version: v0.2 }, weight: 50", "version: v0.2 }, weight: 90"),
    );
    let ended = node.weir("diff -f DIR/shop.yaml").await;
    assert_eq!((ended.status, &*ended.err), (1, ""));
    let changed: Vec<&str> = ended
        .out
        .lines()
        .filter(|line| line.contains("weight"))
        .collect();
    assert_eq!(changed.len(), 4, "{}", ended.out);
    assert_eq!(node.weir("diff -f DIR/absent.yaml").await.status, 2);
}

#[tokio::test]
async fn create_replace_and_delete_say_what_stood_in_the_way() {
    let node = Node::with_shop().await;
    let err = node.weir("create -f DIR/shop.yaml").await.failed(1);
    assert_eq!(err.lines().count(), 5, "{err}");
    assert!(
        err.contains("  Service default/svcb is there already"),
        "{err}"
    );
    let err = node.weir("replace -f DIR/egress.yaml").await.failed(1);
    assert_eq!(
        err,
        "error: there is no EgressRule default/msgd: `weir create` makes it\n"
    );
    let both = node.weir("delete wl b1 b2").await;
    assert_eq!(
        (both.status, &*both.out),
        (0, "workload/b1 deleted\nworkload/b2 deleted\n")
    );
    assert!(
        both.err.starts_with("warning: RouteRule default/split: "),
        "{}",
        both.err
    );
    let err = node.weir("delete wl b1").await.failed(1);
    assert_eq!(err, "error: there is no Workload default/b1\n");
    assert_eq!(
        node.weir("delete wl b1 --ignore-not-found").await.done(),
        ""
    );
    let out = node.weir("delete rr split -o yaml").await.done();
    assert!(
        out.contains("change: deleted") && out.contains("generation: 2"),
        "{out}"
    );
}

#[tokio::test]
async fn get_shows_tables_and_documents_that_apply_again() {
    let node = Node::with_shop().await;
    let out = node.weir("get wl").await.done();
    assert_eq!(
        out.lines().next(),
        Some("NAME   ADDRESSES   READY   ENROLLED   NODE   LABELS")
    );
    assert_eq!(out.lines().count(), 3);
    assert!(
        node.weir("get wl -A")
            .await
            .done()
            .starts_with("NAMESPACE   NAME ")
    );
    assert_eq!(
        node.weir("get wl -l version=v0.2")
            .await
            .done()
            .lines()
            .count(),
        2
    );
    let empty = node.weir("get er").await;
    assert_eq!((empty.status, &*empty.out), (0, ""));
    assert_eq!(
        empty.err,
        "no egressrules in namespace default; -A shows every namespace\n"
    );
    let err = node.weir("get svc absent").await.failed(1);
    assert_eq!(err, "error: there is no Service default/absent\n");

    let yaml = node.weir("get rr split -o yaml").await.done();
    node.write("split.yaml", &yaml);
    assert_eq!(
        node.weir("apply -f DIR/split.yaml").await.done(),
        "routerule/split unchanged\n"
    );
    let list = node.weir("get svc -o json").await.done();
    node.write("list.json", &list);
    assert_eq!(
        node.weir("apply -f DIR/list.json").await.done(),
        "service/svcb unchanged\n"
    );
}

#[tokio::test]
async fn patch_undo_and_history_tell_one_story() {
    let node = Node::with_shop().await;
    let out = node
        .weir(r#"patch rr split -p {"spec":{"precedence":5}} --reason up"#)
        .await
        .done();
    assert_eq!(
        out,
        "routerule/split configured\ngeneration 2 is in force\n"
    );
    assert!(
        node.weir("get rr")
            .await
            .done()
            .contains("svcb          5 ")
    );
    let out = node.weir("undo").await.done();
    assert_eq!(
        out,
        "routerule/split configured\ngeneration 3 is in force\n"
    );
    let again = node.weir("undo --to 3").await;
    assert_eq!((again.status, &*again.out), (0, ""));
    assert!(again.err.contains("in force already"), "{}", again.err);
    let history = node.weir("history").await.done();
    let lines: Vec<&str> = history.lines().collect();
    assert!(
        lines[0].starts_with("GENERATION   TIME") && lines.len() == 4,
        "{history}"
    );
    assert!(
        lines[1].starts_with('3') && lines[1].ends_with("undo to generation 1"),
        "{history}"
    );
    assert!(
        lines[2].contains("routerule/split configured   up"),
        "{history}"
    );
    let err = node.weir("undo --to 77").await.failed(1);
    assert!(err.contains("77"), "{err}");
    let err = node.weir("patch rr split -p {").await.failed(2);
    assert!(err.contains("the patch is no JSON"), "{err}");
}

#[tokio::test]
async fn enroll_writes_a_workload_and_unenroll_keeps_it() {
    let node = Node::start().await;
    let place = "--netns /run/netns/weir-none --cgroup /sys/fs/cgroup/weir-none";
    let out = node
        .weir(&format!("enroll a1 {place} -l app=a --address 10.0.0.7"))
        .await
        .done();
    assert_eq!(out, "workload/a1 created\n");
    let out = node.weir("unenroll a1").await.done();
    assert_eq!(out, "workload/a1 configured\n");
    let line = node.weir("get wl a1").await.done();
    assert!(
        line.ends_with("a1     10.0.0.7    true    false      -      app=a\n"),
        "{line}"
    );
    // Its labels stay, though they are not named again.
    node.weir(&format!("enroll a1 {place} --address 10.0.0.8"))
        .await
        .done();
    let line = node.weir("get wl a1").await.done();
    assert!(
        line.ends_with("a1     10.0.0.8    true    true       -      app=a\n"),
        "{line}"
    );
    let err = node.weir("unenroll absent").await.failed(1);
    assert_eq!(err, "error: there is no Workload default/absent\n");
    let err = node
        .weir("enroll a2 --netns /nowhere --cgroup /nowhere")
        .await
        .failed(2);
    assert!(err.contains("/nowhere: No such file"), "{err}");
}

#[tokio::test]
async fn the_looks_show_what_the_daemon_said() {
    let node = Node::with_shop().await;
    let status = node.weir("status").await.done();
    for line in [
        "node:         node-1\n",
        "generation:   1 (revision 1)\n",
        "acceleration: auto, in force for nobody; self-test: 1 does not hold\n",
        "acceleration breaks fin: the end comes, but it did not\n",
        "UDP:          not governed\n",
        "beside weir: lb4 (id 7) at cgroup/connect4 of /sys/fs/cgroup\n",
        "beside weir: 2 more\n",
    ] {
        assert!(status.contains(line), "{status}");
    }
    let workloads = node.weir("workloads").await.done();
    assert!(
        workloads.ends_with(
            "yes        no         0         3      2       the canary was not answered\n"
        ),
        "{workloads}"
    );
    let explained = node.weir("explain b1 svcb:80 --path /pay").await.done();
    assert!(
        explained.contains("from:       default/b1\n") && explained.contains("verdict:    proxy\n"),
        "{explained}"
    );
    assert_eq!(node.weir("graph").await.done(), "digraph weir {}\n");
    assert_eq!(
        node.weir("graph -o json").await.done(),
        "{\n  \"edges\": []\n}\n"
    );
    let top = node.weir("top --count 1").await.done();
    assert!(
        top.starts_with("weir ") && top.contains("the canary"),
        "{top}"
    );
    let err = node.weir("explain absent svcb").await.failed(1);
    assert_eq!(err, "error: there is no workload default/absent\n");
}

#[tokio::test]
async fn who_cannot_be_asked_is_said_with_the_next_step() {
    let temp = tempfile::tempdir().unwrap();
    let socket = temp.path().join("admin.sock");
    let status = || vec!["status".to_owned()];
    let err = weir(&socket, status()).await.failed(2);
    assert!(
        err.contains("weir is not running") && err.contains("start it with `weir run`"),
        "{err}"
    );
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let err = weir(&socket, status()).await.failed(2);
    assert!(
        err.contains("weir is not running"),
        "a dead daemon's socket: {err}"
    );
}

#[tokio::test]
async fn nothing_is_uninstalled_under_a_daemon_that_runs() {
    let node = Node::start().await;
    let err = node.weir("uninstall").await.failed(1);
    let me = format!("process {}", std::process::id());
    assert!(
        err.contains("weir is running") && err.contains(&me),
        "{err}"
    );
}
