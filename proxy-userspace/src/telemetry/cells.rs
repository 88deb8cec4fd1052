//! What is counted in a series: the cells of the families.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::series::Cell;

/// Upper bounds of the duration buckets, inclusive; one more bucket takes the rest.
/// From a call on the same node to the patience of a person.
pub(super) const BOUNDS: [Duration; 15] = [
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// Upper bounds of the round-trip buckets: from a veth pair to another continent.
pub(super) const RTT_BOUNDS: [Duration; 12] = [
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
];

/// Upper bounds of the buckets of connections' durations: from one question to a day's work.
pub(super) const LIFE_BOUNDS: [Duration; 13] = [
    Duration::from_millis(1),
    Duration::from_millis(10),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_mins(1),
    Duration::from_mins(5),
    Duration::from_mins(15),
    Duration::from_hours(1),
    Duration::from_hours(6),
];

const BUCKETS: usize = BOUNDS.len() + 1;

/// HTTP requests. The number of requests is the sum of the buckets.
// Cells of different workers must not share a cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Requests {
    buckets: [AtomicU64; BUCKETS],
    micros: AtomicU64,
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
    retries: AtomicU64,
}

/// [`Requests`] of all workers.
#[derive(Debug, Default)]
pub(super) struct RequestSum {
    pub(super) buckets: [u64; BUCKETS],
    pub(super) micros: u64,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    pub(super) retries: u64,
}

impl RequestSum {
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

impl Requests {
    pub(super) fn count(
        &self,
        duration: Duration,
        request_bytes: u64,
        response_bytes: u64,
        retries: u32,
    ) {
        let bucket = BOUNDS.partition_point(|bound| *bound < duration);
        self.buckets[bucket].fetch_add(1, Relaxed);
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Relaxed);
        for (counter, amount) in [
            (&self.request_bytes, request_bytes),
            (&self.response_bytes, response_bytes),
            (&self.retries, u64::from(retries)),
        ] {
            if amount > 0 {
                counter.fetch_add(amount, Relaxed);
            }
        }
    }
}

impl Cell for Requests {
    type Sum = RequestSum;

    fn add_to(&self, sum: &mut RequestSum) {
        for (sum, bucket) in sum.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.load(Relaxed);
        }
        sum.micros += self.micros.load(Relaxed);
        sum.request_bytes += self.request_bytes.load(Relaxed);
        sum.response_bytes += self.response_bytes.load(Relaxed);
        sum.retries += self.retries.load(Relaxed);
    }

    fn events(sum: &RequestSum) -> u64 {
        sum.count()
    }
}

/// Captured connections of any protocol.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Connections {
    pub(super) opened: AtomicU64,
    pub(super) closed: AtomicU64,
}

/// [`Connections`] of all workers.
#[derive(Debug, Default)]
pub(super) struct ConnectionSum {
    pub(super) opened: u64,
    pub(super) closed: u64,
}

impl Cell for Connections {
    type Sum = ConnectionSum;

    fn add_to(&self, sum: &mut ConnectionSum) {
        // Closed first: read the other way round, a connection that opens and
        // closes in between would make more closed than opened.
        sum.closed += self.closed.load(std::sync::atomic::Ordering::Acquire);
        sum.opened += self.opened.load(Relaxed);
    }

    fn events(sum: &ConnectionSum) -> u64 {
        sum.opened + sum.closed
    }

    fn is_pinned(sum: &ConnectionSum) -> bool {
        sum.opened != sum.closed
    }
}

/// Connections whose bytes were passed through. Their number is the sum of the buckets.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Streams {
    buckets: [AtomicU64; LIFE_BOUNDS.len() + 1],
    micros: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Streams {
    pub(super) fn count(&self, duration: Duration, sent: u64, received: u64) {
        let bucket = LIFE_BOUNDS.partition_point(|bound| *bound < duration);
        self.buckets[bucket].fetch_add(1, Relaxed);
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Relaxed);
        self.sent.fetch_add(sent, Relaxed);
        self.received.fetch_add(received, Relaxed);
    }
}

/// [`Streams`] of all workers.
#[derive(Debug, Default)]
pub(super) struct StreamSum {
    pub(super) buckets: [u64; LIFE_BOUNDS.len() + 1],
    pub(super) micros: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
}

impl StreamSum {
    pub(super) fn connections(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

impl Cell for Streams {
    type Sum = StreamSum;

    fn add_to(&self, sum: &mut StreamSum) {
        for (sum, bucket) in sum.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.load(Relaxed);
        }
        sum.micros += self.micros.load(Relaxed);
        sum.sent += self.sent.load(Relaxed);
        sum.received += self.received.load(Relaxed);
    }

    fn events(sum: &StreamSum) -> u64 {
        sum.connections()
    }
}

/// What TCP itself knows of the ways that connections took.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Paths {
    buckets: [AtomicU64; RTT_BOUNDS.len() + 1],
    micros: AtomicU64,
    retransmits: AtomicU64,
    connections: AtomicU64,
}

/// [`Paths`] of all workers.
#[derive(Debug, Default)]
pub(super) struct PathSum {
    pub(super) buckets: [u64; RTT_BOUNDS.len() + 1],
    pub(super) micros: u64,
    pub(super) retransmits: u64,
    connections: u64,
}

impl PathSum {
    /// Connections whose round trips were measured.
    pub(super) fn measured(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

impl Paths {
    pub(super) fn count(&self, rtt: Option<Duration>, retransmits: u32) {
        self.connections.fetch_add(1, Relaxed);
        if retransmits > 0 {
            self.retransmits.fetch_add(retransmits.into(), Relaxed);
        }
        if let Some(rtt) = rtt {
            let bucket = RTT_BOUNDS.partition_point(|bound| *bound < rtt);
            self.buckets[bucket].fetch_add(1, Relaxed);
            let micros = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
            self.micros.fetch_add(micros, Relaxed);
        }
    }
}

impl Cell for Paths {
    type Sum = PathSum;

    fn add_to(&self, sum: &mut PathSum) {
        for (sum, bucket) in sum.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.load(Relaxed);
        }
        sum.micros += self.micros.load(Relaxed);
        sum.retransmits += self.retransmits.load(Relaxed);
        sum.connections += self.connections.load(Relaxed);
    }

    fn events(sum: &PathSum) -> u64 {
        sum.connections
    }
}

/// Anything that is only counted.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Count(pub(super) AtomicU64);

impl Cell for Count {
    type Sum = u64;

    fn add_to(&self, sum: &mut u64) {
        *sum += self.0.load(Relaxed);
    }

    fn events(sum: &u64) -> u64 {
        *sum
    }
}
