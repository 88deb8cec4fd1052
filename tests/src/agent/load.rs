//! Many requests, counted exactly: none is repeated, none is forgotten.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use tokio::task::LocalSet;

use super::http;
use super::proto::{Fault, HttpReply, Load, LoadReport};
use crate::patience::patiently;

/// How long one request may take before it counts as failed.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Failures whose words are kept.
const FAILURES_KEPT: usize = 10;

/// Sends `load.count` requests.
pub(super) fn run(load: &Load) -> Result<LoadReport, Fault> {
    let left = AtomicU64::new(load.count);
    let take = move |left: &AtomicU64| {
        let one_less = |n: u64| n.checked_sub(1);
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            .is_ok()
    };
    let go_on: GoOn = Arc::new(move || take(&left));
    drive(load, &go_on)
}

/// A load without end on a thread of its own.
pub(super) struct Running {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<LoadReport, Fault>>,
}

impl Running {
    pub(super) fn start(load: Load) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let go_on: GoOn = Arc::new(move || !seen.load(Ordering::Relaxed));
        Self {
            stop,
            thread: std::thread::spawn(move || drive(&load, &go_on)),
        }
    }

    /// What is in flight is finished first.
    pub(super) fn stop(self) -> Result<LoadReport, Fault> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| Fault::other("the load panicked"))?
    }
}

type GoOn = Arc<dyn Fn() -> bool + Send + Sync>;

fn drive(load: &Load, go_on: &GoOn) -> Result<LoadReport, Fault> {
    let report = Rc::new(RefCell::new(LoadReport::default()));
    let local = LocalSet::new();
    for _ in 0..load.connections {
        let (load, go_on, report) = (load.clone(), Arc::clone(go_on), Rc::clone(&report));
        local.spawn_local(async move {
            let mut sender = None;
            while go_on() {
                one(&load, &mut sender, &report).await;
                tokio::time::sleep(Duration::from_millis(load.pause_ms)).await;
            }
        });
    }
    http::runtime()?.block_on(local);
    Ok(report.take())
}

/// One request, on the kept connection while that is open.
async fn one(
    load: &Load,
    kept: &mut Option<SendRequest<Full<Bytes>>>,
    report: &RefCell<LoadReport>,
) {
    let begun = Instant::now();
    report.borrow_mut().sent += 1;
    let result = tokio::time::timeout(patiently(REQUEST_LIMIT), attempt(load, kept)).await;
    let result = result.unwrap_or_else(|_| Err(Fault::other("no answer in time")));
    let mut report = report.borrow_mut();
    let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    report.slowest_ms = report.slowest_ms.max(ms);
    match result {
        Ok(reply) => count(&mut report, &reply, &load.pointer),
        Err(fault) => {
            *kept = None;
            note(&mut report, fault.to_string());
        }
    }
}

async fn attempt(
    load: &Load,
    kept: &mut Option<SendRequest<Full<Bytes>>>,
) -> Result<HttpReply, Fault> {
    // A connection that the server closed after an answer takes no more: that is no failure.
    if let Some(sender) = kept
        && sender.ready().await.is_err()
    {
        *kept = None;
    }
    let sender = match kept {
        Some(sender) => sender,
        None => kept.insert(http::connect(load.addr).await?),
    };
    http::send(sender, &load.request).await
}

fn count(report: &mut LoadReport, reply: &HttpReply, pointer: &str) {
    *report.statuses.entry(reply.status).or_default() += 1;
    if !(200..300).contains(&reply.status) {
        note(report, format!("{}: {}", reply.status, reply.body));
        return;
    }
    report.ok += 1;
    let pod = reply.field(&format!("{pointer}/pod"));
    let version = reply.field(&format!("{pointer}/version"));
    *report.pods.entry(pod).or_default() += 1;
    *report.versions.entry(version).or_default() += 1;
}

fn note(report: &mut LoadReport, failure: String) {
    if report.failures.len() < FAILURES_KEPT {
        report.failures.push(failure);
    }
}
