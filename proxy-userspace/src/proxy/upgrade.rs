//! A request that asks to leave HTTP, as for a WebSocket: over a connection of its
//! own; and if the endpoint agrees, bytes, both ways, to the end.
//!
//! Must never give such a connection to another request.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use hyper::StatusCode;
use hyper::client::conn::http1;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use super::answer::Refusal;
use super::client::Client;
use super::connection::{ATTEMPTS_MAX, Carried};
use super::forward::{Answer, Failure, Place, Ways, none_connected};
use super::hops::{self, Upgrade};
use super::http::Connection;
use super::pump::{End, Moved, pump};
use super::record::{Callee, Exchange};
use super::wire::Uplink;
use super::worker::Busy;

impl Connection {
    /// A new connection to the first endpoint that takes one.
    async fn own_connection(
        &self,
        ways: &Ways<'_>,
        exchange: &mut Exchange,
    ) -> Result<(SocketAddr, TcpStream), Failure> {
        let mut last = None;
        for attempt in 0..ATTEMPTS_MAX {
            let Some((addr, reach)) = ways.next(attempt, exchange) else {
                break;
            };
            match self.captured.connect(addr, reach).await {
                Ok(stream) => return Ok((addr, stream)),
                Err(error) => last = Some(format!("{addr}: {error}")),
            }
        }
        Err(none_connected(last.as_deref()))
    }

    /// Sends a request that asks to leave HTTP, over a connection that is not
    /// shared; if the endpoint agrees, both ends are tied together.
    pub async fn upgrade(
        self: Rc<Self>,
        ways: &Ways<'_>,
        place: &mut Place,
        upgrade: Upgrade,
        exchange: &mut Exchange,
    ) -> Result<Answer, Failure> {
        let (addr, stream) = self.own_connection(ways, exchange).await?;
        let lost = |error: &hyper::Error| (Refusal::UpstreamFailed, format!("{addr}: {error}"));
        let (mut sender, connection) = http1::handshake(TokioIo::new(Uplink::new(stream).0))
            .await
            .map_err(|error| lost(&error))?;
        spawn_local(async move { drop(connection.with_upgrades().await) });
        let mut response = sender
            .send_request(place.take())
            .await
            .map_err(|error| lost(&error))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let far = hyper::upgrade::on(&mut response);
            let agreed = Agreed {
                callee: exchange.callee().clone(),
                endpoint: addr,
                version: exchange.version.clone(),
                rule: exchange.rule.clone(),
            };
            spawn_local(self.carry(upgrade.client, far, agreed));
        } else {
            hops::strip_answer(&mut response);
        }
        Ok((response, None))
    }

    /// Moves bytes between two ends that have left HTTP, and tells how that went.
    async fn carry(self: Rc<Self>, near: OnUpgrade, far: OnUpgrade, agreed: Agreed) {
        let _busy = Busy::begin(&self.captured.worker);
        let since = Instant::now();
        let moved = Moved::default();
        // Either end may break off before the answer is out.
        let Ok((near, far)) = tokio::try_join!(near, far) else {
            return;
        };
        let (Some(near), Some(far)) = (client(near), endpoint(far)) else {
            return;
        };
        let ended = pump(near, far, &moved).await;
        self.captured.tell(&Carried {
            callee: &agreed.callee,
            endpoint: Some(agreed.endpoint),
            version: agreed.version.as_deref().unwrap_or_default(),
            rule: agreed.rule.as_deref().unwrap_or_default(),
            reason: if ended.is_err() { "reset" } else { "" },
            since,
            moved: &moved,
        });
    }
}

/// What a request that was agreed to came by.
struct Agreed {
    callee: Callee,
    endpoint: SocketAddr,
    version: Option<Arc<str>>,
    rule: Option<Arc<str>>,
}

fn client(upgraded: Upgraded) -> Option<End> {
    let parts = upgraded.downcast::<TokioIo<Client>>().ok()?;
    let (socket, unread) = parts.io.into_inner().into_parts();
    let mut read = BytesMut::from(parts.read_buf);
    read.extend_from_slice(&unread);
    let read = read.freeze();
    Some(End { socket, read })
}

fn endpoint(upgraded: Upgraded) -> Option<End> {
    let parts = upgraded.downcast::<TokioIo<Uplink>>().ok()?;
    let socket = parts.io.into_inner().into_socket();
    let read = parts.read_buf;
    Some(End { socket, read })
}
