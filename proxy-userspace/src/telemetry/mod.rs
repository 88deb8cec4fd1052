//! Seeing what goes on: metrics, log lines, the live tap, the call graph, trace headers.
//!
//! Owns what is counted and how it is told. Every worker counts for itself; a
//! scrape adds up. Must never slow the data plane down: no shared cache line is
//! written per request, nothing waits, and everything that grows with traffic has
//! a limit.
//!
//! [`Telemetry`] is the control side, of which the daemon has one;
//! [`WorkerTelemetry`] is what each thread of the data plane reports to, in the
//! words of [`RequestRecord`], [`ConnectionRecord`] and [`DenialRecord`].

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Instant, SystemTime};

use prometheus_client::registry::Registry;
use proxy_common::Counter;

mod access_log;
mod allowance;
mod cells;
mod collect;
mod exposition;
mod graph;
mod labels;
mod out;
mod process;
mod record;
mod series;
pub mod server;
mod tap;
pub mod trace;
mod worker;

pub use access_log::LogSink;
pub use exposition::Format;
pub use graph::{Edge, EdgeKind, Graph};
pub use record::{ConnectionRecord, DenialRecord, DestinationKind, RequestRecord, Stage};
pub use tap::{Tap, Tapped};
pub use worker::{OpenConnection, WorkerTelemetry};

use access_log::Log;
use cells::{Connections, Count, Paths, Requests, Streams};
use series::Family;

/// The kernel half's counters, added up over the CPUs, indexed as [`Counter`].
pub type KernelTotals = [u64; Counter::ALL.len()];

type KernelSource = Box<dyn Fn() -> KernelTotals + Send + Sync>;

/// How telemetry is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// The most series a family may have; label sets beyond are counted as `other`.
    pub series_max: usize,
    /// Where log lines go.
    pub log: LogSink,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            series_max: 2000,
            log: LogSink::default(),
        }
    }
}

/// The daemon's telemetry.
#[derive(Debug)]
pub struct Telemetry {
    state: Arc<State>,
    registry: Registry,
}

/// What the control side and the workers share.
pub(crate) struct State {
    requests: Arc<Family<Requests>>,
    connections: Arc<Family<Connections>>,
    streams: Arc<Family<Streams>>,
    paths: Arc<Family<Paths>>,
    denials: Arc<Family<Count>>,
    audits: Arc<Family<Count>>,
    rejections: Arc<Family<Count>>,
    log: Log,
    tap: tap::Sender,
    workers: AtomicUsize,
    kernel: OnceLock<KernelSource>,
    flow_misses: AtomicU64,
    generation: AtomicU64,
    revision: AtomicU64,
    workloads: AtomicU64,
    /// The sources that exist; absent until the first inventory.
    sources: Mutex<Option<BTreeSet<Arc<str>>>>,
    started: SystemTime,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

impl Telemetry {
    /// Opens the log and starts its thread. An error is the log's: the file
    /// cannot be opened, or the thread not be started.
    pub fn start(options: &Options) -> io::Result<Arc<Self>> {
        let limit = options.series_max;
        let state = Arc::new(State {
            requests: Arc::new(Family::new(limit)),
            connections: Arc::new(Family::new(limit)),
            streams: Arc::new(Family::new(limit)),
            paths: Arc::new(Family::new(limit)),
            denials: Arc::new(Family::new(limit)),
            audits: Arc::new(Family::new(limit)),
            rejections: Arc::new(Family::new(limit)),
            log: Log::start(&options.log)?,
            tap: tap::Sender::default(),
            workers: AtomicUsize::new(0),
            kernel: OnceLock::new(),
            flow_misses: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            revision: AtomicU64::new(0),
            workloads: AtomicU64::new(0),
            sources: Mutex::new(None),
            started: SystemTime::now(),
        });
        let mut registry = Registry::default();
        registry.register_collector(Box::new(state.clone()));
        Ok(Arc::new(Self { state, registry }))
    }

    /// The telemetry of one more thread.
    pub fn worker(&self) -> WorkerTelemetry {
        WorkerTelemetry::new(self.state.clone())
    }

    /// Says where the kernel half's counters are read, at each scrape. Only the
    /// first call counts.
    pub fn set_kernel_source(&self, source: impl Fn() -> KernelTotals + Send + Sync + 'static) {
        if self.state.kernel.set(Box::new(source)).is_err() {
            tracing::debug!("the kernel half's counters have a source already");
        }
    }

    /// Says which generation of the rules is in force.
    pub fn set_generation(&self, generation: u64) {
        self.state.generation.store(generation, Ordering::Relaxed);
    }

    /// Says which revision of the inventory is in force, how many workloads are
    /// enrolled, and which sources exist; series of others expire.
    pub fn set_inventory(
        &self,
        revision: u64,
        workloads: u64,
        sources: impl IntoIterator<Item = Arc<str>>,
    ) {
        self.state.revision.store(revision, Ordering::Relaxed);
        self.state.workloads.store(workloads, Ordering::Relaxed);
        let sources = sources.into_iter().collect();
        *self.state.lock_sources() = Some(sources);
        self.state.sweep(Instant::now());
    }

    /// Writes the log lines that wait, for a second at most, and ends the log. For
    /// the end of the process.
    pub fn stop_log(&self) {
        self.state.log.stop();
    }

    /// Every log line from now on, whatever the access log is.
    pub fn tap(&self) -> Tap {
        self.state.tap.listen()
    }

    /// Who called whom since the start, as far as it has not expired.
    pub fn graph(&self) -> Graph {
        Graph::of(&self.state)
    }

    /// All metrics, as text.
    pub fn metrics(&self, format: Format) -> String {
        self.state.sweep(Instant::now());
        exposition::render(&self.registry, format)
    }
}

impl State {
    fn lock_sources(&self) -> std::sync::MutexGuard<'_, Option<BTreeSet<Arc<str>>>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sweep(&self, now: Instant) {
        let sources = self.lock_sources();
        let sources = sources.as_ref();
        self.requests.sweep(sources, now);
        self.connections.sweep(sources, now);
        self.streams.sweep(sources, now);
        self.paths.sweep(sources, now);
        self.denials.sweep(sources, now);
        self.audits.sweep(sources, now);
        self.rejections.sweep(sources, now);
    }
}

#[cfg(test)]
mod tests;
