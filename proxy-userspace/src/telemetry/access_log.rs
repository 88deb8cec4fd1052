//! The log of what happened: JSON lines to standard output or a file.
//!
//! Owns the writer thread and, per worker, a queue of finished lines. A worker
//! appends to its own queue under a lock that only the writer shares, and the
//! writer holds it just to exchange the buffer for an empty one. Must never make
//! a worker wait for the disk or the reader of a pipe: a full queue drops lines and
//! counts them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::record::Event;

/// The bytes that wait for the writer, per worker.
const QUEUE_MAX: usize = 1024 * 1024;

/// What a queue keeps of its buffer once it was written out.
const QUEUE_KEEP: usize = 64 * 1024;

/// How long lines are gathered before they are written.
const GATHER: Duration = Duration::from_millis(50);

/// How long the end of the process waits for the last lines.
const STOP_MAX: Duration = Duration::from_secs(1);

/// Where the lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogSink {
    /// Standard output.
    #[default]
    Stdout,
    /// A file, appended to; made with mode 0640 if absent.
    File(PathBuf),
    /// Nowhere: lines are not even made, but a tap still gets them.
    Off,
}

#[derive(Serialize)]
struct Line<'a> {
    time: Time,
    #[serde(flatten)]
    event: Event<'a>,
}

struct Time(Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:.3}", self.0))
    }
}

/// Writes the line of `event`, at the present time and without a line feed, into `buffer`.
pub(super) fn format(buffer: &mut Vec<u8>, event: Event<'_>) {
    buffer.clear();
    let line = Line {
        time: Time(Timestamp::now()),
        event,
    };
    serde_json::to_writer(buffer, &line).expect("a record is plain data and memory takes it");
}

/// The queues, and the thread that empties them.
#[derive(Debug)]
pub(super) struct Log {
    shared: Arc<Shared>,
    writer: Option<Writer>,
}

#[derive(Debug, Default)]
struct Shared {
    queues: Mutex<Vec<Arc<Queue>>>,
    stopping: AtomicBool,
    written: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Writer {
    thread: Thread,
    /// Closed by the thread's end.
    ended: Mutex<Receiver<()>>,
}

/// One worker's finished lines.
#[derive(Debug, Default)]
pub(super) struct Queue {
    buffer: Mutex<Buffer>,
}

#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    lines: u64,
}

impl Log {
    /// Opens the sink and starts the thread.
    pub(super) fn start(sink: &LogSink) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let out = match sink {
            LogSink::Off => {
                return Ok(Self {
                    shared,
                    writer: None,
                });
            }
            LogSink::Stdout => Out::Stdout(io::stdout()),
            LogSink::File(path) => Out::File(
                OpenOptions::new()
                    .append(true)
                    .create(true)
                    .mode(0o640)
                    .open(path)?,
            ),
        };
        let (end, ended) = mpsc::channel();
        let thread = thread::Builder::new().name("weir-log".into()).spawn({
            let shared = shared.clone();
            move || {
                run(&shared, out);
                drop(end);
            }
        })?;
        Ok(Self {
            shared,
            writer: Some(Writer {
                thread: thread.thread().clone(),
                ended: Mutex::new(ended),
            }),
        })
    }

    /// A queue for one more worker.
    pub(super) fn queue(&self) -> Arc<Queue> {
        let queue = Arc::<Queue>::default();
        self.shared.lock_queues().push(queue.clone());
        queue
    }

    pub(super) fn is_on(&self) -> bool {
        self.writer.is_some()
    }

    /// Lines handed to the sink, and lines that were dropped, since the start.
    pub(super) fn totals(&self) -> (u64, u64) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (load(&self.shared.written), load(&self.shared.dropped))
    }

    /// Counts a line that is not written.
    pub(super) fn drop_line(&self) {
        if self.is_on() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Queues a line, or drops it if the queue is full.
    pub(super) fn push(&self, queue: &Queue, line: &[u8]) {
        let Some(writer) = &self.writer else { return };
        let was_empty = {
            let mut buffer = queue.lock();
            if buffer.bytes.len() + line.len() >= QUEUE_MAX {
                return self.drop_line();
            }
            buffer.bytes.extend_from_slice(line);
            buffer.bytes.push(b'\n');
            buffer.lines += 1;
            buffer.lines == 1
        };
        if was_empty {
            writer.thread.unpark();
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let Some(writer) = &self.writer else { return };
        self.shared.stopping.store(true, Ordering::Release);
        writer.thread.unpark();
        // Not joined: a pipe that nobody reads may hold the thread for ever.
        let ended = writer.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = ended.recv_timeout(STOP_MAX);
    }
}

impl Queue {
    fn lock(&self) -> std::sync::MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn lock_queues(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Queue>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Out {
    Stdout(io::Stdout),
    File(File),
}

impl Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout(out) => {
                let mut out = out.lock();
                out.write_all(bytes)?;
                out.flush()
            }
            Self::File(out) => out.write_all(bytes),
        }
    }
}

/// The writer thread: sleeps until a queue has its first line, then gathers for a moment.
fn run(shared: &Shared, mut out: Out) {
    let mut spare = Buffer::default();
    let mut failing = false;
    loop {
        let stopping = shared.stopping.load(Ordering::Acquire);
        let queues = shared.lock_queues().clone();
        for queue in queues {
            std::mem::swap(&mut *queue.lock(), &mut spare);
            if spare.lines == 0 {
                continue;
            }
            let result = out.write(&spare.bytes);
            let counter = if result.is_ok() {
                &shared.written
            } else {
                &shared.dropped
            };
            counter.fetch_add(spare.lines, Ordering::Relaxed);
            if let (Err(error), false) = (&result, failing) {
                tracing::warn!(%error, "access log lines are lost: the sink refuses them");
            }
            failing = result.is_err();
            spare.bytes.clear();
            spare.bytes.shrink_to(QUEUE_KEEP);
            spare.lines = 0;
        }
        if stopping {
            return;
        }
        thread::park();
        if !shared.stopping.load(Ordering::Acquire) {
            thread::sleep(GATHER);
        }
    }
}

#[cfg(test)]
mod tests;
