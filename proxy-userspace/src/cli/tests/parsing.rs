//! From words to settled options.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};
use proxy_common::Acceleration;

use super::super::args::{ADMIN_SOCKET, Cli, Command, Question};
use crate::config::Kind;
use crate::daemon::RunOptions;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

fn question(line: &str) -> Question {
    match parse(line).unwrap().command {
        Command::Ask(question) => question,
        other => panic!("{line}: {other:?}"),
    }
}

/// The options of `weir run`, or what is wrong with them.
fn run_options(line: &str) -> Result<RunOptions, String> {
    let cli = parse(line).map_err(|error| error.to_string())?;
    let Command::Run(args) = cli.command else {
        panic!("{line}")
    };
    args.options(cli.admin_socket)
        .map_err(|error| error.to_string())
}

#[test]
fn the_definition_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn habits_of_kubectl_and_istioctl_are_understood() {
    for line in [
        "weir apply -f rules.yaml",
        "weir apply -f a.yaml -f b.yaml",
        "weir apply -f a.yaml b.yaml --dry-run --reason canary",
        "weir apply -f - --prune -l app=shop",
        "weir create -f rules.yaml -o json",
        "weir replace --filename rules.yaml",
        "weir delete -f rules.yaml --ignore-not-found",
        "weir delete routerule canary split -n shop",
        "weir get routerules",
        "weir get rr canary -o yaml",
        "weir get svc -A -l app=shop,tier=web",
        "weir diff -f rules.yaml",
        "weir patch routerule canary -p {} --type json",
        "weir history -o json",
        "weir undo --to 3 --reason oops",
        "weir enroll a1 --netns /run/netns/a1 --cgroup /sys/fs/cgroup/a1 -l app=a -l v=1",
        "weir enroll a1 --netns /n --cgroup /c --address 10.0.0.1 --address fd00::1",
        "weir unenroll a1 -n shop",
        "weir workloads",
        "weir explain a1 svcb:80 --method GET --path /pay --header x:y --header a:b",
        "weir explain a1 fd00::1",
        "weir status -o yaml",
        "weir tap",
        "weir top --interval 1 --count 2",
        "weir graph -o dot",
        "weir --admin-socket /x/y status",
        "weir status --admin-socket /x/y",
    ] {
        question(line);
    }
    let Question::Get(args) = question("weir get RouteRules canary") else {
        panic!()
    };
    assert_eq!(
        (args.kind, args.name.as_deref(), &*args.namespace),
        (Kind::RouteRule, Some("canary"), "default")
    );
    let Question::Delete(args) = question("weir delete wl b1 b2") else {
        panic!()
    };
    assert_eq!(
        (args.kind, args.names),
        (Some(Kind::Workload), vec!["b1".to_owned(), "b2".to_owned()])
    );
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (line, kind) in [
        ("weir", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
        ("weir frob", ErrorKind::InvalidSubcommand),
        ("weir apply", ErrorKind::MissingRequiredArgument),
        (
            "weir apply -f x --prune",
            ErrorKind::MissingRequiredArgument,
        ),
        (
            "weir apply -f x -l app=shop",
            ErrorKind::MissingRequiredArgument,
        ),
        ("weir apply -f x --prune -l app", ErrorKind::ValueValidation),
        ("weir delete", ErrorKind::MissingRequiredArgument),
        ("weir delete routerule", ErrorKind::MissingRequiredArgument),
        ("weir delete routerule x -f y", ErrorKind::ArgumentConflict),
        ("weir get", ErrorKind::MissingRequiredArgument),
        ("weir get pods", ErrorKind::ValueValidation),
        ("weir get svc x -A", ErrorKind::ArgumentConflict),
        ("weir get svc x -l a=b", ErrorKind::ArgumentConflict),
        ("weir get svc -A -n shop", ErrorKind::ArgumentConflict),
        ("weir get svc -o wide", ErrorKind::InvalidValue),
        ("weir patch rr x", ErrorKind::MissingRequiredArgument),
        (
            "weir patch rr x -p {} --type strategic",
            ErrorKind::InvalidValue,
        ),
        ("weir undo --to x", ErrorKind::ValueValidation),
        (
            "weir enroll a1 --netns /n",
            ErrorKind::MissingRequiredArgument,
        ),
        (
            "weir enroll a1 --netns /n --cgroup /c --address x",
            ErrorKind::ValueValidation,
        ),
        ("weir explain a1", ErrorKind::MissingRequiredArgument),
        ("weir top --interval 0", ErrorKind::ValueValidation),
        ("weir run --workers 0", ErrorKind::ValueValidation),
    ] {
        assert_eq!(parse(line).unwrap_err().kind(), kind, "{line}");
    }
    let later = parse("weir get destinationpolicies")
        .unwrap_err()
        .to_string();
    assert!(later.contains("later version"), "{later}");
}

#[test]
fn run_has_defaults_for_a_node() {
    let options = run_options("weir run").unwrap();
    assert_eq!(options.admin_socket, Path::new(ADMIN_SOCKET));
    assert_eq!(options.bpffs, Path::new("/sys/fs/bpf/weir"));
    assert_eq!(options.state_dir, Path::new("/var/lib/weir"));
    assert_eq!(options.metrics, Some("127.0.0.1:15090".parse().unwrap()));
    assert_eq!(
        (options.cgroup, options.workers, options.observers),
        (None, None, None)
    );
    assert_eq!(options.resolvers, [] as [SocketAddr; 0]);
    assert!(!options.node.is_empty());
}

#[test]
fn run_takes_every_flag() {
    let options = run_options(
        "weir run --node n1 --admin-socket /a/b.sock --cgroup /sys/fs/cgroup/pods --bpffs /bpf \
         --state-dir /state --metrics off --workers 2 --accelerate off --observer-group 0 \
         --resolver 10.96.0.10 --resolver [fd00::a]:5353",
    );
    let options = options.unwrap();
    assert_eq!(options.node, "n1");
    assert_eq!(options.admin_socket, Path::new("/a/b.sock"));
    assert_eq!(options.cgroup, Some(PathBuf::from("/sys/fs/cgroup/pods")));
    assert_eq!(
        (options.bpffs, options.state_dir),
        ("/bpf".into(), "/state".into())
    );
    assert_eq!(
        (options.metrics, options.workers.map(usize::from)),
        (None, Some(2))
    );
    assert_eq!(options.observers.map(nix::unistd::Gid::as_raw), Some(0));
    let resolvers =
        ["10.96.0.10:53", "[fd00::a]:5353"].map(|text| text.parse::<SocketAddr>().unwrap());
    assert_eq!(options.resolvers, resolvers);
}

#[test]
fn acceleration_has_three_modes() {
    for (flags, mode) in [
        ("", Acceleration::Auto),
        ("--accelerate auto", Acceleration::Auto),
        ("--accelerate force", Acceleration::Force),
        ("--accelerate off", Acceleration::Off),
    ] {
        let options = run_options(&format!("weir run {flags}")).unwrap();
        assert_eq!(options.accelerate, mode, "{flags}");
    }
    assert!(
        run_options("weir run --accelerate frob")
            .unwrap_err()
            .contains("no such mode")
    );
}

/// The options of a settings file with this text, and more flags.
fn from_file(text: &str, flags: &str) -> Result<RunOptions, String> {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("weir.yaml");
    fs::write(&path, text).unwrap();
    run_options(&format!("weir run --config {} {flags}", path.display()))
}

#[test]
fn flags_win_over_the_settings_file() {
    let text = "node: n1\nadminSocket: /a.sock\nmetrics: 0.0.0.0:9\nworkers: 3\nresolvers: [10.0.0.1]\naccelerate: off\n";
    let options = from_file(text, "--node n2 --resolver 10.0.0.2").unwrap();
    assert_eq!(options.node, "n2");
    assert_eq!(options.admin_socket, Path::new("/a.sock"));
    assert_eq!(options.metrics, Some("0.0.0.0:9".parse().unwrap()));
    assert_eq!(options.workers.map(usize::from), Some(3));
    assert_eq!(
        options.resolvers,
        ["10.0.0.2:53".parse::<SocketAddr>().unwrap()]
    );
    assert!(from_file("", "").is_ok(), "an empty file says nothing");
}

#[test]
fn a_settings_file_holds_settings_alone() {
    for (text, says) in [
        ("nodes: n1", "nodes"),
        ("workers: 0", "workers"),
        ("accelerate: frob", "no such mode"),
        ("resolvers: [dns]", "want an address"),
        ("kind: RouteRule", "weir apply -f"),
    ] {
        let error = from_file(text, "").unwrap_err();
        assert!(
            error.contains("weir.yaml: ") && error.contains(says),
            "{text}: {error}"
        );
    }
    let error = run_options("weir run --config /nowhere/weir.yaml").unwrap_err();
    assert!(
        error.contains("/nowhere/weir.yaml: No such file"),
        "{error}"
    );
}
