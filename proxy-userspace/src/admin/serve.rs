//! Accepting connections on both sockets, within bounds.
//!
//! Must never let one socket's connections take the other's places, or leave
//! a connection that it cannot serve without an answer.

use std::io::{ErrorKind, Write as _};
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::unistd::Uid;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::answer::answer;
use super::{Admin, Peer, Role, Sockets};

/// Connections on one socket at the same time.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may take to send a request head, and to think between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// What a request head may hold, in bytes.
const HEAD_MAX: usize = 64 * 1024;
/// What to wait after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long the answers under way may take once the daemon stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// The answer to a connection too many.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/problem+json\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 140\r\n\r\n\
    {\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\"detail\":\"64 connections are open on this socket already: try again later\"}";

/// Serves both sockets until `stop` turns true, then lets the answers under
/// way finish for a moment.
pub async fn serve(sockets: Sockets, admin: Arc<Admin>, stop: watch::Receiver<bool>) {
    tokio::join!(
        serve_one(&sockets.admin, Role::Admin, &admin, stop.clone()),
        serve_one(&sockets.observer, Role::Observer, &admin, stop),
    );
}

async fn serve_one(
    listener: &UnixListener,
    role: Role,
    admin: &Arc<Admin>,
    stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let mut stopping = stop.clone();
    loop {
        let stream = tokio::select! {
            () = stopped(&mut stopping) => break,
            // Takes finished ones out of the set, so that it does not grow.
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    tracing::warn!(%error, "accept on the admin socket failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            turn_away(stream);
            continue;
        };
        let admin = Arc::clone(admin);
        let stop = stop.clone();
        connections.spawn(async move {
            let _place = place;
            connection(stream, role, admin, stop).await;
        });
    }
    let drained = async { while connections.join_next().await.is_some() {} };
    // Whoever still reads then is cut off: the set aborts what is left.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, drained).await;
}

/// Waits until `stop` turns true or its sender is gone.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Either way there is nobody left to serve for.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Answers without reading; the buffer of a fresh socket holds far more than the answer.
fn turn_away(stream: UnixStream) {
    let written = stream
        .into_std()
        .and_then(|mut stream| stream.write_all(FULL));
    if let Err(error) = written {
        tracing::debug!(%error, "a connection too many went without an answer");
    }
}

async fn connection(
    stream: UnixStream,
    role: Role,
    admin: Arc<Admin>,
    mut stop: watch::Receiver<bool>,
) {
    let peer = match stream.peer_cred() {
        Ok(cred) => Peer {
            role,
            uid: cred.uid(),
        },
        Err(error) => {
            tracing::warn!(%error, "a peer of the admin socket has no credentials");
            return;
        }
    };
    let known = role == Role::Observer || peer.uid == 0 || peer.uid == Uid::effective().as_raw();
    if !known {
        tracing::warn!(
            uid = peer.uid,
            "a peer of the admin socket is neither root nor the daemon's user"
        );
    }
    let answers = stop.clone();
    let service = service_fn(move |request| {
        answer(
            Arc::clone(&admin),
            known.then_some(peer),
            request,
            answers.clone(),
        )
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of the admin socket ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_connection_too_many_is_whole() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("content-length: {}", body.len())),
            "{}",
            body.len()
        );
        assert!(body.contains(&CONNECTIONS_MAX.to_string()));
        serde_json::from_str::<super::super::problem::Problem>(body).unwrap();
    }
}
