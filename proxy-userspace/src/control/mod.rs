//! The one writer of configuration: whatever changes what is in force goes
//! through here, one change at a time, on a thread of its own.
//!
//! Owns the order of a change: check, install, store, show. Must never show a
//! configuration that is not in force, or put one in force that it did not check.

mod change;
mod dataplane;
mod plan;
mod refusal;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod view;
mod writer;

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use arc_swap::ArcSwap;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc, oneshot};

pub use self::change::{Batch, Changed, Done, Expect, Intent, Mode};
pub use self::dataplane::{
    AccelerationCase, AccelerationStatus, Dataplane, DataplaneStatus, ExplainError, ExplainQuery,
    ExplainedEndpoint, Explanation, Host, InstallError, ListenerStatus, MapStatus, OtherStatus,
    ProgramStatus, Target, WorkloadStatus,
};
pub use self::refusal::Refusal;
pub use self::view::View;
pub use self::writer::Writer;
use crate::config::{Entry, ObjectName, Objects, Store};

/// Requests that may wait for the writer. More are told to come back.
const WAITING_MAX: usize = 64;

/// Questions among them.
const LOOKS_MAX: usize = 8;

type Job = Box<dyn FnOnce(&mut Writer) + Send>;

/// A handle on the writer. The writer ends with the last of them.
#[derive(Clone)]
pub struct Control {
    jobs: mpsc::Sender<Job>,
    looks: Arc<Semaphore>,
    view: Arc<ArcSwap<View>>,
}

/// Why the stored configuration could not be put in force.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data plane does not take it.
    #[error("the stored configuration cannot be put in force: {0}")]
    Install(#[from] InstallError),
    /// The kernel gives no thread.
    #[error("no thread for the writer of configuration: {0}")]
    Thread(#[from] std::io::Error),
}

impl Control {
    /// Puts in force what was stored (both as [`Store::open`] gives them) and starts the writer. Its thread
    /// drops the data plane and ends once every handle is gone.
    pub fn start(
        store: Store,
        objects: Objects,
        dataplane: impl Dataplane,
    ) -> Result<(Self, JoinHandle<()>), StartError> {
        let mut writer = Writer::start(store, objects, Box::new(dataplane))?;
        let view = writer.view();
        let (jobs, mut waiting) = mpsc::channel::<Job>(WAITING_MAX);
        let work = move || {
            while let Some(job) = waiting.blocking_recv() {
                job(&mut writer);
            }
        };
        let thread = thread::Builder::new()
            .name("weir-control".to_owned())
            .spawn(work)?;
        let looks = Arc::new(Semaphore::new(LOOKS_MAX));
        Ok((Self { jobs, looks, view }, thread))
    }

    /// What is in force. Never waits.
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Has the writer do `job` when its turn comes.
    ///
    /// Once taken the job is done, even if nobody waits for its result any more.
    pub async fn write<T, F>(&self, job: F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: FnOnce(&mut Writer) -> Result<T, Refusal> + Send + 'static,
    {
        let (sender, result) = oneshot::channel();
        let job: Job = Box::new(move |writer| {
            // Whoever asked may have left; the change holds all the same.
            let _ = sender.send(job(writer));
        });
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => Refusal::Busy,
            TrySendError::Closed(_) => Refusal::WriterGone,
        })?;
        result.await.unwrap_or(Err(Refusal::WriterGone))
    }

    /// As [`Self::write`], for questions: only a few of them wait at a time,
    /// so that they never keep a change from its turn.
    async fn look<T, F>(&self, job: F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: FnOnce(&mut Writer) -> Result<T, Refusal> + Send + 'static,
    {
        let _place = self
            .looks
            .acquire()
            .await
            .map_err(|_| Refusal::WriterGone)?;
        self.write(job).await
    }

    /// The configurations that were in force, newest first.
    pub async fn history(&self) -> Result<Vec<Entry>, Refusal> {
        self.look(|writer| Ok(writer.history())).await
    }

    /// See [`Dataplane::explain`].
    pub async fn explain(&self, query: ExplainQuery) -> Result<Explanation, Refusal> {
        self.look(move |writer| writer.dataplane().explain(&query).map_err(Refusal::Explain))
            .await
    }

    /// See [`Dataplane::reset_older`].
    pub async fn reset_older(&self, name: ObjectName) -> Result<usize, Refusal> {
        self.write(move |writer| writer.reset_older(&name).map_err(Refusal::Install))
            .await
    }

    /// See [`Dataplane::status`].
    pub async fn status(&self) -> Result<DataplaneStatus, Refusal> {
        self.look(|writer| Ok(writer.dataplane().status())).await
    }

    /// See [`Dataplane::workloads`].
    pub async fn workloads(&self) -> Result<Vec<WorkloadStatus>, Refusal> {
        self.look(|writer| Ok(writer.dataplane().workloads())).await
    }
}
