//! The node: its pods, and the data plane that an apply puts in force.
//!
//! Owns the order in which an apply reaches the proxy and the kernel. Must
//! never leave the two with different configurations once `install` returned.

mod canary;
mod enrol;
mod explain;
mod listen;
mod older;
mod pod;
mod status;
mod waker;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use proxy_common::NetnsCookie;

pub use canary::run as run_canary;
pub use pod::{Admission, CANARY_ADDRS, CANARY_PORT, CONNECTIONS_MAX, Enrolment, Pod, PodError};

use self::canary::Canaries;
use self::enrol::{Enrolled, Gate, Newcomer};
use self::older::Listing;
use self::waker::Waker;
use crate::accelerate::Accelerator;
use crate::beside::both;
use crate::config::object::ObjectName;
use crate::config::{Objects, Warning};
use crate::control::{
    Dataplane, DataplaneStatus, ExplainError, ExplainQuery, Explanation, InstallError,
    WorkloadStatus,
};
use crate::kernel::{Kernel, KernelError};
use crate::proxy::{Command, WorkerHandle};
use crate::snapshot::{Compiler, Input, Snapshot};
use crate::socket::Netns;
use crate::tables::TableSet;
use crate::telemetry::Telemetry;

/// The kernel half, shared with whoever scrapes its counters.
pub type SharedKernel = Arc<Mutex<Kernel>>;

/// Locks the kernel half. A panic elsewhere does not make its state worse.
pub fn lock(kernel: &SharedKernel) -> MutexGuard<'_, Kernel> {
    kernel.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The data plane of this node.
pub struct Node {
    kernel: SharedKernel,
    home: Netns,
    workers: Vec<WorkerHandle>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    telemetry: Arc<Telemetry>,
    compiler: Compiler,
    pods: BTreeMap<ObjectName, Arc<Pod>>,
    /// Workloads that should be among them and cannot, and why.
    missing: BTreeMap<ObjectName, String>,
    canaries: Canaries,
    /// Of the pods that were enrolled last.
    listing: Listing,
    waker: Waker,
    accelerator: Arc<Accelerator>,
    /// The stored configuration was put in force: from now on a workload that
    /// cannot be enrolled is a mistake of whoever applies it.
    started: bool,
}

impl Node {
    /// A node without pods, whose workloads may ask `resolvers` for names.
    pub fn new(
        kernel: SharedKernel,
        workers: Vec<WorkerHandle>,
        snapshot: Arc<ArcSwap<Snapshot>>,
        telemetry: Arc<Telemetry>,
        resolvers: Vec<SocketAddr>,
        accelerator: Arc<Accelerator>,
    ) -> std::io::Result<Self> {
        let slots = lock(&kernel).endpoint_slots();
        let peers = lock(&kernel).peers().map_err(std::io::Error::other)?;
        Ok(Self {
            waker: Waker::start(Arc::clone(&snapshot), peers)?,
            canaries: Canaries::start(Arc::clone(&kernel))?,
            kernel,
            home: Netns::current()?,
            workers,
            snapshot,
            telemetry,
            compiler: Compiler::new(slots, resolvers, accelerator.mode()),
            pods: BTreeMap::new(),
            missing: BTreeMap::new(),
            listing: Listing::default(),
            accelerator,
            started: false,
        })
    }

    /// Everything after the tables are in force.
    fn settle(&mut self, enrolled: Enrolled) {
        let gone: Vec<ObjectName> = self
            .pods
            .keys()
            .filter(|name| !enrolled.pods.contains_key(*name))
            .cloned()
            .collect();
        let fresh: Vec<Arc<Pod>> = enrolled
            .newcomers
            .iter()
            .map(|newcomer| Arc::clone(&newcomer.pod))
            .collect();
        for Newcomer { pod, listeners } in enrolled.newcomers {
            for (worker, listeners) in self.workers.iter().zip(listeners) {
                worker.send(Command::Serve(Arc::clone(&pod), listeners));
            }
        }
        let left = Arc::clone(&self.snapshot.load().left);
        for worker in &self.workers {
            for name in &gone {
                worker.send(Command::Leave(name.clone()));
            }
            worker.send(Command::Refresh(Arc::clone(&left)));
        }
        if !gone.is_empty() || !self.started {
            self.forget_older(enrolled.pods.values().map(Arc::as_ref));
        }
        // What an earlier process left may have died while nobody looked.
        if !self.started || self.snapshot.load().touches_udp {
            self.waker.poke();
        }
        self.pods = enrolled.pods;
        self.missing = enrolled.missing;
        self.canaries
            .watch(self.pods.values().cloned().collect(), fresh);
        let snapshot = self.snapshot.load();
        self.telemetry.set_generation(snapshot.generation);
        let sources = snapshot
            .sources
            .values()
            .map(|source| Arc::clone(&source.label));
        self.telemetry
            .set_inventory(snapshot.revision, snapshot.sources.len() as u64, sources);
    }

    /// What enrols pods, and what makes the tables: neither needs the other.
    fn halves(&mut self) -> (Gate<'_>, Tables<'_>) {
        let gate = Gate {
            kernel: &self.kernel,
            home: &self.home,
            workers: self.workers.len(),
            pods: &self.pods,
            started: self.started,
        };
        let tables = Tables {
            kernel: &self.kernel,
            compiler: &mut self.compiler,
        };
        (gate, tables)
    }

    /// Brings the kernel from the first tables to the second, and fences whom they
    /// enrol. An error leaves it at the first.
    fn put_in_force(
        &self,
        (former, next): (&TableSet, &TableSet),
        enrolled: &Enrolled,
        warnings: &mut Vec<Warning>,
    ) -> Result<(), InstallError> {
        lock(&self.kernel)
            .write(next)
            .map_err(|error| unwritten(&error))?;
        let fenced = self.fence_newcomers(enrolled, warnings);
        if fenced.is_err() {
            lock(&self.kernel)
                .write(former)
                .map_err(|error| unwritten(&error))?;
        }
        fenced
    }
}

/// What makes the tables of a configuration.
struct Tables<'a> {
    kernel: &'a SharedKernel,
    compiler: &'a mut Compiler,
}

impl Tables<'_> {
    /// The snapshot of `objects`, for which the kernel has room; its pods are not
    /// placed yet.
    fn compile(
        &mut self,
        objects: &Objects,
        generation: u64,
        revision: u64,
        former: &Snapshot,
    ) -> Result<Snapshot, InstallError> {
        let present = lock(self.kernel).tables().named.clone();
        let input = Input {
            objects,
            generation,
            revision,
            present: &present,
        };
        let snapshot = self
            .compiler
            .compile(input, former)
            .map_err(|no_room| InstallError::Refused(no_room.to_string()))?;
        let checked = check_size(self.kernel, objects, &snapshot);
        if checked.is_err() {
            self.compiler.cancel();
        }
        checked.map(|()| snapshot)
    }
}

/// Whether the kernel's tables hold a snapshot whose pods are not placed yet.
fn check_size(
    kernel: &SharedKernel,
    objects: &Objects,
    snapshot: &Snapshot,
) -> Result<(), InstallError> {
    let locals = objects.index().inventory.local().values();
    let enrolled = locals.filter(|workload| {
        let local = workload.local.as_ref();
        local.is_some_and(|local| local.enrolled)
    });
    lock(kernel)
        .check_size(&snapshot.tables, enrolled.count())
        .map_err(|error| InstallError::Refused(error.to_string()))
}

/// What it means that the tables could not be written.
fn unwritten(error: &KernelError) -> InstallError {
    match error {
        KernelError::TooLarge { .. } => InstallError::Refused(error.to_string()),
        KernelError::Closed(_) => InstallError::Closed(error.to_string()),
        _ => InstallError::Failed(error.to_string()),
    }
}

impl Dataplane for Node {
    fn install(
        &mut self,
        objects: &Objects,
        generation: u64,
        revision: u64,
    ) -> Result<Vec<Warning>, InstallError> {
        let former = self.snapshot.load_full();
        let mut warnings = Vec::new();
        // Before anything changes: what the tables refuse is said first, as a dry run
        // says it, and listeners that were opened meanwhile are closed.
        let (gate, mut tables) = self.halves();
        let (enrolled, compiled) = both(
            || gate.enrol(objects, former.objects(), &mut warnings),
            || tables.compile(objects, generation, revision, &former),
        );
        let mut snapshot = compiled?;
        let enrolled = match enrolled {
            Ok(enrolled) => enrolled,
            Err(error) => {
                self.compiler.cancel();
                return Err(error);
            }
        };
        if let Err(no_room) = self.compiler.place(&enrolled.pods, &former, &mut snapshot) {
            return Err(InstallError::Refused(no_room.to_string()));
        }
        let snapshot = Arc::new(snapshot);
        // The proxy first: whatever the kernel sends it by the new tables, it knows.
        self.snapshot.store(Arc::clone(&snapshot));
        let known: BTreeSet<NetnsCookie> = {
            let kernel = lock(&self.kernel);
            kernel.tables().workloads.keys().copied().collect()
        };
        self.unfence_leavers(&enrolled);
        let tables = (&former.tables, &snapshot.tables);
        if let Err(error) = self.put_in_force(tables, &enrolled, &mut warnings) {
            self.fence_leavers(&enrolled);
            self.snapshot.store(former);
            return Err(error);
        }
        let newcomers = enrolled.newcomers.iter().map(|newcomer| &newcomer.pod);
        // What an earlier process enrolled was governed all the time.
        let fresh = newcomers.filter(|pod| !known.contains(&pod.netns().cookie()));
        let fresh = fresh.cloned().collect();
        self.settle(enrolled);
        self.note_older(fresh);
        self.started = true;
        Ok(warnings)
    }

    fn check(&mut self, objects: &Objects) -> Result<(), InstallError> {
        let former = self.snapshot.load_full();
        let (_, mut tables) = self.halves();
        let mut snapshot = tables.compile(objects, former.generation, former.revision, &former)?;
        // Of the pods only those that are there: to enrol the others is no dry run.
        let placed = self.compiler.place(&self.pods, &former, &mut snapshot);
        let checked = placed
            .map_err(|no_room| InstallError::Refused(no_room.to_string()))
            .and_then(|()| check_size(&self.kernel, objects, &snapshot));
        self.compiler.cancel();
        checked
    }

    fn explain(&self, query: &ExplainQuery) -> Result<Explanation, ExplainError> {
        explain::explain(&self.snapshot.load(), query)
    }

    fn status(&self) -> DataplaneStatus {
        let unwoken = self.waker.missing();
        status::status(&lock(&self.kernel), &self.pods, unwoken, &self.accelerator)
    }

    fn workloads(&self) -> Vec<WorkloadStatus> {
        let (pods, missing) = (&self.pods, &self.missing);
        let mut workloads =
            status::workloads(&lock(&self.kernel), &self.snapshot.load(), pods, missing);
        for (name, workload) in &mut workloads {
            if let Some(pod) = pods.get(name) {
                workload.older_connections = self.older(pod) as u64;
            }
        }
        workloads
            .into_iter()
            .map(|(_, workload)| workload)
            .collect()
    }

    fn reset_older(&mut self, name: &ObjectName) -> Result<usize, InstallError> {
        Node::reset_older(self, name)
    }
}

impl Drop for Node {
    /// Lets the workers finish what is in flight. The kernel half stays: egress
    /// policy goes on holding without the daemon.
    fn drop(&mut self) {
        for worker in &self.workers {
            worker.send(Command::Stop);
        }
        for worker in &mut self.workers {
            worker.join();
        }
    }
}
