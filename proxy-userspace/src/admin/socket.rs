//! The two unix sockets: where they lie, who may open them, and what to do
//! with one that somebody left behind.
//!
//! Must never loosen the mode of a directory that it did not create, and
//! never remove the socket of a daemon that is alive.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Gid, Uid, chown};
use tokio::net::{UnixListener, UnixStream};

/// The name of the read-only socket, beside the admin socket.
pub const OBSERVER_SOCKET: &str = "observer.sock";

/// How long a daemon may take to accept a connection before it counts as hung.
/// A hung daemon is alive: it still holds its socket.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// Where the sockets go and who may watch.
#[derive(Clone, Debug)]
pub struct SocketOptions {
    /// The admin socket; the observers' one lies beside it.
    pub admin: PathBuf,
    /// The group that may open the observers' socket; without one only root may.
    pub observers: Option<Gid>,
}

impl SocketOptions {
    /// The path of the observers' socket.
    pub fn observer(&self) -> PathBuf {
        observer_beside(&self.admin)
    }
}

/// The observers' socket that belongs to the admin socket at `admin`.
pub fn observer_beside(admin: &Path) -> PathBuf {
    admin.with_file_name(OBSERVER_SOCKET)
}

/// Why the sockets could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path names no file in a directory.
    #[error("{0} is no place for a socket: give the path of a file, such as /run/weir/admin.sock")]
    NoDirectory(PathBuf),
    /// Others may write to the directory.
    #[error(
        "{0} may be written by others, who could put a socket of their own there: `chmod go-w` it, or choose another with --admin-socket"
    )]
    OpenDirectory(PathBuf),
    /// Something else lies at the path.
    #[error("{0} is in the way and is not a socket: move it, or choose another --admin-socket")]
    NotASocket(PathBuf),
    /// Another daemon is opening its sockets at this moment.
    #[error("another weir is starting with its sockets in {0}: stop one of the two")]
    Starting(PathBuf),
    /// A live daemon holds the socket.
    #[error(
        "weir is already running: {holder} holds {path}; stop it first, or choose another --admin-socket"
    )]
    Held {
        /// The socket.
        path: PathBuf,
        /// Who holds it.
        holder: Holder,
    },
    /// A system call failed.
    #[error("{path}: {call}: {source}")]
    Io {
        /// The file concerned.
        path: PathBuf,
        /// What was tried.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The process behind a live socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id, if the kernel told.
    pub pid: Option<i32>,
    /// Its name as in `/proc`, if it could be read.
    pub command: Option<String>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.pid, &self.command) {
            (Some(pid), Some(command)) => write!(f, "process {pid} ({command})"),
            (Some(pid), None) => write!(f, "process {pid}"),
            (None, _) => f.write_str("another process"),
        }
    }
}

/// Both sockets, open and with their final modes. Dropping it removes the files.
#[derive(Debug)]
pub struct Sockets {
    pub(super) admin: UnixListener,
    pub(super) observer: UnixListener,
    paths: [PathBuf; 2],
}

impl Sockets {
    /// Opens both sockets, replacing what a dead daemon left behind.
    /// Needs a running tokio runtime.
    pub async fn bind(options: &SocketOptions) -> Result<Self, SocketError> {
        let dir = directory(options)?;
        // Held only while looking and binding, so that two daemons which start
        // at the same moment do not remove each other's sockets.
        let _lock = lock(&dir)?;
        let admin = options.admin.clone();
        let observer = options.observer();
        for path in [&admin, &observer] {
            clear(path).await?;
        }
        Ok(Self {
            admin: listen(&admin, 0o600, None)?,
            observer: listen(&observer, 0o660, options.observers)?,
            paths: [admin, observer],
        })
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        for path in &self.paths {
            // A file that is gone already is as good as removed.
            let _ = fs::remove_file(path);
        }
    }
}

/// Who answers at `path`: `None` if nobody does.
pub async fn holder(path: &Path) -> Option<Holder> {
    let unknown = Holder {
        pid: None,
        command: None,
    };
    match tokio::time::timeout(PROBE_TIMEOUT, UnixStream::connect(path)).await {
        Ok(Ok(stream)) => {
            let pid = stream.peer_cred().ok().and_then(|cred| cred.pid());
            let command = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok());
            let command = command.map(|name| name.trim().to_owned());
            Some(Holder { pid, command })
        }
        Ok(Err(error)) => match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => None,
            // A full backlog, or no permission: somebody is there.
            _ => Some(unknown),
        },
        Err(_) => Some(unknown),
    }
}

fn failed(path: &Path, call: &'static str) -> impl FnOnce(io::Error) -> SocketError {
    let path = path.to_path_buf();
    move |source| SocketError::Io { path, call, source }
}

/// The directory of the sockets; created 0700 (0750 for a group of observers) if absent.
fn directory(options: &SocketOptions) -> Result<PathBuf, SocketError> {
    let dir = match options.admin.parent() {
        Some(dir) if options.admin.file_name().is_some() => dir,
        _ => return Err(SocketError::NoDirectory(options.admin.clone())),
    };
    let dir = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    };
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {
            if options.observers.is_some() {
                own(dir, 0o750, options.observers)?;
            }
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let meta = fs::metadata(dir).map_err(failed(dir, "stat"))?;
            let mine = meta.uid() == Uid::effective().as_raw();
            let sticky = meta.mode() & 0o1000 != 0;
            if !mine && meta.uid() != 0 || meta.mode() & 0o022 != 0 && !sticky {
                return Err(SocketError::OpenDirectory(dir.to_path_buf()));
            }
        }
        Err(error) => return Err(failed(dir, "mkdir")(error)),
    }
    Ok(dir.to_path_buf())
}

fn lock(dir: &Path) -> Result<Flock<File>, SocketError> {
    let file = File::open(dir).map_err(failed(dir, "open"))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => SocketError::Starting(dir.to_path_buf()),
        errno => failed(dir, "flock")(errno.into()),
    })
}

/// Removes a socket that nobody answers at; refuses everything else.
async fn clear(path: &Path) -> Result<(), SocketError> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(path, "stat")(error)),
    };
    if !meta.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.to_path_buf()));
    }
    if let Some(holder) = holder(path).await {
        let path = path.to_path_buf();
        return Err(SocketError::Held { path, holder });
    }
    fs::remove_file(path).map_err(failed(path, "unlink"))
}

fn listen(path: &Path, mode: u32, group: Option<Gid>) -> Result<UnixListener, SocketError> {
    // Between bind and chmod the umask's mode holds; the credentials of
    // every peer are looked at as well, so nobody slips in.
    let listener = StdListener::bind(path).map_err(failed(path, "bind"))?;
    own(path, mode, group)?;
    listener
        .set_nonblocking(true)
        .and_then(|()| UnixListener::from_std(listener))
        .map_err(failed(path, "listen"))
}

fn own(path: &Path, mode: u32, group: Option<Gid>) -> Result<(), SocketError> {
    if group.is_some() {
        chown(path, None, group).map_err(|errno| failed(path, "chown")(errno.into()))?;
    }
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed(path, "chmod"))
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
