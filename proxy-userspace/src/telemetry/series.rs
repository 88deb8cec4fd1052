//! Bounded families of time series, counted per worker and added up when read.
//!
//! Owns which label sets exist. On the hot path a worker finds its own cell in
//! its own table: one hash of the labels, no lock, no allocation, no cache line
//! of another worker. Only the first event of a label set takes the family's lock.
//! Must never hold more than `limit` series: past three quarters of it, new label
//! sets are folded into `other`, all but the source; past all of it, the source too.
//!
//! A series expires when nothing was counted for [`IDLE_MAX`], or for
//! [`GONE_GRACE`] if its source is no workload or service any more. An event that is
//! counted in the very moment of expiry may be lost with it.

use std::cell::{Cell as StdCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::{DefaultHashBuilder, HashTable};

/// How long a series of a source that is gone is still shown.
pub(super) const GONE_GRACE: Duration = Duration::from_mins(10);

/// How long a series without events is shown.
pub(super) const IDLE_MAX: Duration = Duration::from_hours(24);

/// What stands for labels beyond the limit.
pub(super) const OTHER: &str = "other";

/// The labels of any series. A family uses the fields it needs and leaves the
/// others empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Key<'a> {
    pub(super) source: &'a str,
    pub(super) destination: &'a str,
    pub(super) external: bool,
    /// The version of an endpoint, or the rule of a denial.
    pub(super) detail: &'a str,
    /// The status of a request; 0: none, or any.
    pub(super) code: u16,
    pub(super) reason: &'a str,
}

impl Key<'_> {
    /// The labels this is counted under when there are `count` series of at most `limit`.
    fn within(self, count: usize, limit: usize) -> Self {
        if count < limit / 4 * 3 {
            return self;
        }
        if count < limit.saturating_sub(1) {
            return Self {
                destination: OTHER,
                detail: OTHER,
                ..self
            };
        }
        Self {
            source: OTHER,
            destination: OTHER,
            external: false,
            detail: OTHER,
            code: 0,
            reason: OTHER,
        }
    }
}

/// A [`Key`] that lives on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Labels {
    source: Box<str>,
    destination: Box<str>,
    external: bool,
    detail: Box<str>,
    code: u16,
    reason: Box<str>,
}

impl Labels {
    pub(super) fn key(&self) -> Key<'_> {
        Key {
            source: &self.source,
            destination: &self.destination,
            external: self.external,
            detail: &self.detail,
            code: self.code,
            reason: &self.reason,
        }
    }
}

impl From<Key<'_>> for Labels {
    fn from(key: Key<'_>) -> Self {
        Self {
            source: key.source.into(),
            destination: key.destination.into(),
            external: key.external,
            detail: key.detail.into(),
            code: key.code,
            reason: key.reason.into(),
        }
    }
}

/// The counters of one series on one worker.
pub(super) trait Cell: Default + Send + Sync {
    /// The same, added up over the workers.
    type Sum: Default;

    /// Adds this worker's share.
    fn add_to(&self, sum: &mut Self::Sum);

    /// How many events were counted; a change means that the series is in use.
    fn events(sum: &Self::Sum) -> u64;

    /// Whether it must stay even if idle.
    fn is_pinned(_sum: &Self::Sum) -> bool {
        false
    }
}

/// A family: its series, and the cells of every worker in each.
#[derive(Debug)]
pub(super) struct Family<C> {
    limit: usize,
    series: Mutex<BTreeMap<Labels, Series<C>>>,
    /// Raised when series expire: workers then forget the cells they know.
    epoch: AtomicU64,
    folded: AtomicU64,
}

#[derive(Debug)]
struct Series<C> {
    cells: Vec<(usize, Arc<C>)>,
    events: u64,
    changed: Instant,
}

impl<C: Cell> Family<C> {
    /// A family of at most `limit` series.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            series: Mutex::default(),
            epoch: AtomicU64::new(0),
            folded: AtomicU64::new(0),
        }
    }

    /// How often a label set was folded into `other`.
    pub(super) fn folded(&self) -> u64 {
        self.folded.load(Ordering::Relaxed)
    }

    /// Every series, added up over the workers, in the order of the labels.
    pub(super) fn sums(&self) -> Vec<(Labels, C::Sum)> {
        self.lock()
            .iter()
            .map(|(labels, series)| (labels.clone(), series.sum()))
            .collect()
    }

    /// Drops what has expired. `sources` are those that exist; `None`: not known.
    pub(super) fn sweep(&self, sources: Option<&BTreeSet<Arc<str>>>, now: Instant) {
        let mut all = self.lock();
        let before = all.len();
        all.retain(|labels, series| {
            let sum = series.sum();
            let events = C::events(&sum);
            if events != series.events {
                series.events = events;
                series.changed = now;
            }
            let source: &str = &labels.source;
            let exists = source.is_empty()
                || source == OTHER
                || sources.is_none_or(|sources| sources.contains(source));
            let patience = if exists { IDLE_MAX } else { GONE_GRACE };
            C::is_pinned(&sum) || now.duration_since(series.changed) < patience
        });
        if all.len() < before {
            self.epoch.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The cell of `worker` for these labels, or for what they are folded into.
    fn cell(&self, worker: usize, key: Key<'_>) -> Arc<C> {
        let mut all = self.lock();
        let mut labels = Labels::from(key);
        if !all.contains_key(&labels) {
            let within = key.within(all.len(), self.limit);
            if within != key {
                self.folded.fetch_add(1, Ordering::Relaxed);
                labels = Labels::from(within);
            }
        }
        let series = all.entry(labels).or_insert_with(|| Series {
            cells: Vec::new(),
            events: 0,
            changed: Instant::now(),
        });
        let known = series.cells.iter().find(|(owner, _)| *owner == worker);
        if let Some((_, cell)) = known {
            return cell.clone();
        }
        let cell = Arc::<C>::default();
        series.cells.push((worker, cell.clone()));
        cell
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Labels, Series<C>>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Cell> Series<C> {
    fn sum(&self) -> C::Sum {
        let mut sum = C::Sum::default();
        for (_, cell) in &self.cells {
            cell.add_to(&mut sum);
        }
        sum
    }
}

/// One worker's way into a family.
#[derive(Debug)]
pub(super) struct Handles<C> {
    family: Arc<Family<C>>,
    worker: usize,
    hasher: DefaultHashBuilder,
    known: RefCell<HashTable<(Labels, Arc<C>)>>,
    epoch: StdCell<u64>,
}

impl<C: Cell> Handles<C> {
    pub(super) fn new(family: Arc<Family<C>>, worker: usize) -> Self {
        Self {
            family,
            worker,
            hasher: DefaultHashBuilder::default(),
            known: RefCell::default(),
            epoch: StdCell::new(0),
        }
    }

    /// Calls `f` with this worker's cell for the labels.
    pub(super) fn with<R>(&self, key: Key<'_>, f: impl FnOnce(&Arc<C>) -> R) -> R {
        let mut known = self.known.borrow_mut();
        let epoch = self.family.epoch.load(Ordering::Relaxed);
        if self.epoch.replace(epoch) != epoch {
            known.clear();
        }
        let hash = self.hasher.hash_one(key);
        if let Some((_, cell)) = known.find(hash, |(labels, _)| labels.key() == key) {
            return f(cell);
        }
        let cell = self.family.cell(self.worker, key);
        let result = f(&cell);
        // Folded label sets are remembered too, so this needs a bound of its own.
        if known.len() >= self.family.limit {
            known.clear();
        }
        let rehash = |(labels, _): &(Labels, Arc<C>)| self.hasher.hash_one(labels.key());
        known.insert_unique(hash, (Labels::from(key), cell), rehash);
        result
    }
}

#[cfg(test)]
mod tests;
