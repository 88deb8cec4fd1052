//! Connections, of TCP and of UDP sockets with a peer, that are older than the
//! enrolment of their workload: nobody decided on them. They are noted when enrolment
//! takes effect, counted as long as they last, and closed when an operator asks for that.
//! Must never be asked for before the lists are there.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use proxy_common::{Destination, NetnsCookie, Target};

use super::pod::Pod;
use super::{Node, SharedKernel, lock};
use crate::config::ObjectName;
use crate::control::InstallError;
use crate::diag::Connection;
use crate::socket::Netns;

/// So many pods are listed before an apply is answered: whoever has enrolled one may
/// start it then, and nothing that it dials is older. For each list the kernel goes
/// through its table of all namespaces' sockets: a millisecond, and longer than anything
/// else takes for a pod.
const AT_ONCE: usize = 16;

/// The sockets of many pods are being listed. Whoever asks for older connections waits
/// for that; the apply that brought the pods does not.
#[derive(Default)]
pub(super) struct Listing(Mutex<Option<JoinHandle<()>>>);

impl Listing {
    /// Lists few at once, and many on one core meanwhile: the others are the answer's.
    fn begin(&self, kernel: SharedKernel, pods: Vec<Arc<Pod>>) {
        self.wait();
        if pods.len() <= AT_ONCE {
            note_all(&kernel, &pods);
        } else {
            *self.thread() = Some(thread::spawn(move || note_all(&kernel, &pods)));
        }
    }

    /// Waits until the lists are there.
    fn wait(&self) {
        let thread = self.thread().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("connections older than the enrolment are not all known");
        }
    }

    fn thread(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        self.wait();
    }
}

fn note_all(kernel: &SharedKernel, pods: &[Arc<Pod>]) {
    if pods.is_empty() {
        return;
    }
    match Netns::current() {
        Ok(home) => pods.iter().for_each(|pod| note(kernel, &home, pod)),
        Err(error) => tracing::warn!(%error, "connections older than the enrolment are not known"),
    }
}

impl Node {
    /// Notes what is open in pods that have just been enrolled, or begins to. A connect
    /// that is decided on until that is done may be among it: rather one too many.
    pub(super) fn note_older(&self, pods: Vec<Arc<Pod>>) {
        self.listing.begin(Arc::clone(&self.kernel), pods);
    }

    /// How many of a pod's older connections are left.
    pub(super) fn older(&self, pod: &Pod) -> usize {
        self.listing.wait();
        match self.older_connections(pod) {
            Ok(connections) => connections.len(),
            Err(error) => {
                tracing::warn!(workload = %pod.name(), %error, "its sockets cannot be listed");
                0
            }
        }
    }

    /// Closes the older connections of a workload; tells how many.
    pub(super) fn reset_older(&self, name: &ObjectName) -> Result<usize, InstallError> {
        self.listing.wait();
        let refused = |text: String| InstallError::Refused(text);
        let pod = self.pods.get(name).ok_or_else(|| {
            refused(format!(
                "{name} is no enrolled workload of this node: see `weir workloads`"
            ))
        })?;
        let failed = |error: std::io::Error| {
            refused(format!(
                "the older connections of {name} could not all be closed: {error} (the kernel needs CONFIG_INET_DIAG_DESTROY)"
            ))
        };
        let diag = pod.netns().diag(&self.home).map_err(failed)?;
        let connections = self.older_connections(pod).map_err(failed)?;
        let mut closed = 0;
        for connection in &connections {
            match diag.destroy(connection) {
                Ok(()) => closed += 1,
                // Its owner was faster.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(closed)
    }

    /// Forgets connections in namespaces that are not enrolled any more.
    pub(super) fn forget_older<'a>(&self, enrolled: impl Iterator<Item = &'a Pod>) {
        self.listing.wait();
        let enrolled: BTreeSet<NetnsCookie> = enrolled.map(|pod| pod.netns().cookie()).collect();
        lock(&self.kernel).forget_older(|netns, _| enrolled.contains(&netns));
    }

    fn older_connections(&self, pod: &Pod) -> std::io::Result<Vec<Connection>> {
        let netns = pod.netns().cookie();
        let noted = lock(&self.kernel).older(netns);
        if noted.is_empty() {
            return Ok(Vec::new());
        }
        let mut connections = dialled(&self.home, pod)?;
        // One that dialled again since is as old as that dial.
        connections.retain(|connection| {
            let peer = Target::new(Destination::from(connection.peer));
            noted.get(&connection.cookie) == Some(&peer)
        });
        let alive: BTreeSet<_> = connections
            .iter()
            .map(|connection| connection.cookie)
            .collect();
        lock(&self.kernel).forget_older(|of, socket| of != netns || alive.contains(&socket));
        Ok(connections)
    }
}

fn note(kernel: &SharedKernel, home: &Netns, pod: &Pod) {
    let noted = dialled(home, pod).map_err(|error| error.to_string());
    let noted = noted.and_then(|connections| {
        lock(kernel)
            .remember_older(pod.netns().cookie(), &connections)
            .map_err(|error| error.to_string())
    });
    if let Err(error) = noted {
        tracing::warn!(workload = %pod.name(), error, "connections older than the enrolment are not known");
    }
}

fn dialled(home: &Netns, pod: &Pod) -> std::io::Result<Vec<Connection>> {
    let own: Vec<_> = pod.local().iter().map(|addr| addr.ip).collect();
    pod.netns().diag(home)?.dialled(&own)
}
