//! Where the sockets lie, with which modes, and what is done with one that is there.

use std::os::unix::net::UnixListener as StdListener;

use super::*;

fn options(dir: &Path) -> SocketOptions {
    SocketOptions {
        admin: dir.join("weir/admin.sock"),
        observers: None,
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[tokio::test]
async fn the_sockets_are_for_root_alone() {
    let temp = tempfile::tempdir().unwrap();
    let options = options(temp.path());
    let sockets = Sockets::bind(&options).await.unwrap();
    assert_eq!(mode(options.admin.parent().unwrap()), 0o700);
    assert_eq!(mode(&options.admin), 0o600);
    assert_eq!(mode(&options.observer()), 0o660);
    drop(sockets);
    assert!(!options.admin.exists() && !options.observer().exists());
}

#[tokio::test]
async fn observers_of_a_group_can_reach_their_socket_and_no_other() {
    let temp = tempfile::tempdir().unwrap();
    let gid = Gid::effective();
    let options = SocketOptions {
        observers: Some(gid),
        ..options(temp.path())
    };
    let _sockets = Sockets::bind(&options).await.unwrap();
    assert_eq!(mode(options.admin.parent().unwrap()), 0o750);
    assert_eq!(mode(&options.admin), 0o600);
    assert_eq!(
        fs::metadata(options.observer()).unwrap().gid(),
        gid.as_raw()
    );
}

#[tokio::test]
async fn what_a_dead_daemon_left_is_replaced() {
    let temp = tempfile::tempdir().unwrap();
    let options = options(temp.path());
    fs::create_dir(options.admin.parent().unwrap()).unwrap();
    drop(StdListener::bind(&options.admin).unwrap());
    assert!(options.admin.exists(), "a closed listener leaves its file");
    assert_eq!(holder(&options.admin).await, None);
    Sockets::bind(&options).await.unwrap();
}

#[tokio::test]
async fn a_live_daemon_keeps_its_socket_and_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let options = options(temp.path());
    let _first = Sockets::bind(&options).await.unwrap();
    let error = Sockets::bind(&options).await.unwrap_err().to_string();
    let me = format!("process {}", std::process::id());
    assert!(
        error.contains(&me) && error.contains("already running"),
        "{error}"
    );
    assert!(options.admin.exists());
}

#[tokio::test]
async fn a_file_in_the_way_is_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    let options = options(temp.path());
    fs::create_dir(options.admin.parent().unwrap()).unwrap();
    fs::write(&options.admin, "precious").unwrap();
    let error = Sockets::bind(&options).await.unwrap_err();
    assert!(matches!(error, SocketError::NotASocket(_)), "{error}");
    assert_eq!(fs::read_to_string(&options.admin).unwrap(), "precious");
}

#[tokio::test]
async fn a_directory_that_others_may_write_to_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let options = options(temp.path());
    let dir = options.admin.parent().unwrap();
    fs::create_dir(dir).unwrap();
    fs::set_permissions(dir, Permissions::from_mode(0o777)).unwrap();
    let error = Sockets::bind(&options).await.unwrap_err();
    assert!(matches!(error, SocketError::OpenDirectory(_)), "{error}");
    fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
    Sockets::bind(&options).await.unwrap();
    assert_eq!(
        mode(dir),
        0o755,
        "a directory of somebody else's making keeps its mode"
    );
}
