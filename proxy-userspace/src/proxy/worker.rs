//! One core's share of the proxy: a thread, its runtime, its listeners, its
//! upstream connections, its counters.
//!
//! Must never wait for another worker. The control side sends commands; the
//! snapshot is the only thing that is read from outside.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::client::Head;
use super::connection;
use super::pool::Pool;
use super::sniff::ServerFirst;
use crate::config::object::ObjectName;
use crate::egress::names::Names;
use crate::heart::{self, Pulse};
use crate::kernel::Flows;
use crate::node::Pod;
use crate::snapshot::Snapshot;
use crate::socket::Netns;
use crate::telemetry::WorkerTelemetry;
use crate::telemetry::trace::Tracer;

/// Commands that may wait for a worker.
const COMMANDS_MAX: usize = 1_024;

/// How often idle connections and slow heads are looked at.
const TICK: Duration = Duration::from_millis(500);

/// Pause after an `accept` that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a worker that stops lets its connections finish.
const DRAIN: Duration = Duration::from_secs(5);

/// What the control side tells a worker.
pub enum Command {
    /// Accept on these listeners of a pod.
    Serve(Arc<Pod>, Vec<StdListener>),
    /// Accept no more for this workload.
    Leave(ObjectName),
    /// The snapshot has changed: let go of what it does not know any more, and
    /// of these endpoints.
    Refresh(Arc<HashSet<SocketAddr>>),
    /// Accept nothing more, let the connections finish, and end.
    Stop,
}

/// What all workers are given.
pub struct Shared {
    /// The configuration in force.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Resolves host names of egress rules.
    pub names: Arc<Names>,
}

/// A worker, as its own thread sees it.
pub struct Worker {
    /// The node's namespace, in which the thread lives.
    pub home: Netns,
    /// Reads what `sock_ops` left on accepted sockets.
    pub flows: Flows,
    /// The configuration in force.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// The same, as seen last. Counted twice so that a request that holds on to
    /// it costs no counter that another core writes too.
    #[expect(
        clippy::redundant_allocation,
        reason = "the outer count is this core's own"
    )]
    seen: RefCell<Rc<Arc<Snapshot>>>,
    /// Idle upstream connections.
    pub pool: Pool,
    /// Heads that may become slow.
    pub heads: Heads,
    /// Services whose servers speak first.
    pub server_first: ServerFirst,
    /// Where requests and connections are told.
    pub telemetry: WorkerTelemetry,
    /// Request ids and trace headers.
    pub tracer: Tracer,
    /// Resolves host names of egress rules.
    pub names: Arc<Names>,
    /// Requests and byte streams in flight.
    busy: Cell<usize>,
    /// How to stop accepting for each pod.
    pods: RefCell<HashMap<ObjectName, watch::Sender<()>>>,
}

impl Worker {
    /// The configuration in force at this moment. The worker's own handle, so
    /// that holding it costs no shared counter.
    pub fn snapshot(&self) -> Rc<Arc<Snapshot>> {
        let now = self.snapshot.load();
        let mut seen = self.seen.borrow_mut();
        if !Arc::ptr_eq(&now, &seen) {
            *seen = Rc::new(Arc::clone(&now));
        }
        Rc::clone(&seen)
    }
}

/// The control side's end of a worker.
pub struct WorkerHandle {
    commands: mpsc::Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl WorkerHandle {
    /// Starts worker `index` on a thread of its own.
    pub fn start(
        index: usize,
        shared: &Shared,
        flows: Flows,
        pulse: Arc<Pulse>,
        telemetry: WorkerTelemetry,
    ) -> io::Result<Self> {
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let snapshot = Arc::clone(&shared.snapshot);
        let names = Arc::clone(&shared.names);
        let home = Netns::current()?;
        let thread = std::thread::Builder::new()
            .name(format!("weir-worker-{index}"))
            .spawn(move || {
                let runtime = match Builder::new_current_thread()
                    .enable_all()
                    .build_local(LocalOptions::default())
                {
                    Ok(runtime) => runtime,
                    Err(error) => return tracing::error!(%error, "a worker has no runtime"),
                };
                let seen = RefCell::new(Rc::new(snapshot.load_full()));
                let worker = Rc::new(Worker {
                    home,
                    flows,
                    snapshot,
                    seen,
                    pool: Pool::default(),
                    heads: Heads::default(),
                    server_first: ServerFirst::default(),
                    telemetry,
                    tracer: Tracer::new(crate::telemetry::trace::Sampling::default()),
                    names,
                    busy: Cell::new(0),
                    pods: RefCell::default(),
                });
                runtime.block_on(run(worker, inbox, &pulse));
            })?;
        Ok(Self {
            commands,
            thread: Some(thread),
        })
    }

    /// Sends a command; the worker carries it out in turn. Blocks while the
    /// worker has too many of them to do.
    pub fn send(&self, command: Command) {
        if self.commands.blocking_send(command).is_err() {
            // Its thread is gone, and with it the process's use: say so loudly.
            tracing::error!("a worker has ended; restart weir");
        }
    }

    /// Waits for the worker to end after [`Command::Stop`].
    pub fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a worker ended by a panic");
        }
    }
}

/// The worker's main task.
async fn run(worker: Rc<Worker>, mut inbox: mpsc::Receiver<Command>, pulse: &Pulse) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heart = interval(heart::PERIOD);
    heart.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            command = inbox.recv() => match command {
                Some(Command::Serve(pod, listeners)) => worker.serve(&pod, listeners),
                Some(Command::Leave(name)) => worker.leave(&name),
                Some(Command::Refresh(left)) => worker.refresh(&left),
                Some(Command::Stop) | None => break,
            },
            _ = heart.tick() => pulse.beat(),
            _ = tick.tick() => {
                let now = Instant::now();
                worker.pool.expire(now);
                worker.heads.expire(now);
            }
        }
    }
    worker.pods.borrow_mut().clear();
    let deadline = Instant::now() + DRAIN;
    while worker.busy.get() > 0 && Instant::now() < deadline {
        sleep(ACCEPT_PAUSE).await;
    }
}

impl Worker {
    /// Accepts on the listeners of a pod until told to leave it.
    fn serve(self: &Rc<Self>, pod: &Arc<Pod>, listeners: Vec<StdListener>) {
        let (stop, stopped) = watch::channel(());
        self.pods.borrow_mut().insert(pod.name().clone(), stop);
        for listener in listeners {
            match TcpListener::from_std(listener) {
                Ok(listener) => drop(spawn_local(accept(
                    Rc::clone(self),
                    Arc::clone(pod),
                    listener,
                    stopped.clone(),
                ))),
                Err(error) => {
                    tracing::error!(workload = %pod.name(), %error, "a listener cannot be served");
                }
            }
        }
    }

    fn leave(&self, name: &ObjectName) {
        self.pods.borrow_mut().remove(name);
    }

    /// Lets go of idle connections and memories that nobody can use any more.
    fn refresh(&self, left: &HashSet<SocketAddr>) {
        let snapshot = self.snapshot();
        self.pool
            .prune(|key| snapshot.sources.contains_key(&key.source) && !left.contains(&key.to));
        self.server_first
            .retain(|service| snapshot.services.contains_key(&service));
    }
}

/// Accepts until the other end of `stopped` is dropped, then what is already in the
/// queue: those clients believe that they are connected.
async fn accept(
    worker: Rc<Worker>,
    pod: Arc<Pod>,
    listener: TcpListener,
    mut stopped: watch::Receiver<()>,
) {
    let stopped = stopped.changed();
    tokio::pin!(stopped);
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            _ = &mut stopped => break,
        };
        match accepted {
            Ok((client, peer)) => begin(&worker, &pod, client, peer),
            Err(error) => {
                tracing::warn!(workload = %pod.name(), %error, "accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    while let Ok(Ok((client, peer))) = timeout(Duration::ZERO, listener.accept()).await {
        begin(&worker, &pod, client, peer);
    }
}

fn begin(worker: &Rc<Worker>, pod: &Arc<Pod>, client: TcpStream, peer: SocketAddr) {
    spawn_local(connection::serve(
        Rc::clone(worker),
        client,
        peer,
        pod.admit(),
    ));
}

/// Heads that may become slow, each with its own limit.
#[derive(Default)]
pub struct Heads {
    watched: RefCell<Vec<(Weak<Head>, Duration)>>,
}

impl Heads {
    /// Watches the heads of one connection until it ends.
    pub fn watch(&self, head: &Arc<Head>, limit: Duration) {
        self.watched
            .borrow_mut()
            .push((Arc::downgrade(head), limit));
    }

    fn expire(&self, now: Instant) {
        self.watched.borrow_mut().retain(|(head, limit)| {
            head.upgrade()
                .inspect(|head| {
                    if !head.expire(now, *limit) {
                        head.look();
                    }
                })
                .is_some()
        });
    }
}

/// Something in flight that a stopping worker waits for.
pub struct Busy(Rc<Worker>);

impl Busy {
    /// From now until the drop.
    pub fn begin(worker: &Rc<Worker>) -> Self {
        worker.busy.set(worker.busy.get() + 1);
        Self(Rc::clone(worker))
    }

    /// The worker that would wait.
    pub fn worker(&self) -> &Rc<Worker> {
        &self.0
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.set(self.0.busy.get() - 1);
    }
}
