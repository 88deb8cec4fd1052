//! Pods on their way into a configuration and out of it: opened, with their
//! listeners, and fenced; and the fences off those that leave.
//!
//! Must never leave a fence on a cgroup whose pod the tables do not know: to the
//! fence the pod itself would be a namespace that nobody knows.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Instant;

use super::pod::{Pod, PodError};
use super::{Node, SharedKernel, listen, lock};
use crate::config::object::{LocalPod, ObjectName, Workload};
use crate::config::{Objects, Warning};
use crate::control::InstallError;
use crate::kernel::KernelError;
use crate::socket::Netns;

/// The pods of a configuration that is about to be put in force.
#[derive(Default)]
pub(super) struct Enrolled {
    pub(super) pods: BTreeMap<ObjectName, Arc<Pod>>,
    pub(super) newcomers: Vec<Newcomer>,
    /// Who should be among them and cannot, and why.
    pub(super) missing: BTreeMap<ObjectName, String>,
}

/// A pod and its listeners, one list per worker, that are not served yet.
pub(super) struct Newcomer {
    pub(super) pod: Arc<Pod>,
    pub(super) listeners: Vec<Vec<std::net::TcpListener>>,
}

/// What enrolment asks of the node.
pub(super) struct Gate<'a> {
    pub(super) kernel: &'a SharedKernel,
    pub(super) home: &'a Netns,
    /// How many serve each address of a pod.
    pub(super) workers: usize,
    /// The pods that are enrolled now.
    pub(super) pods: &'a BTreeMap<ObjectName, Arc<Pod>>,
    /// Whether a workload that cannot be enrolled is a mistake of whoever applies it.
    pub(super) started: bool,
}

impl Gate<'_> {
    /// Enrols what is new, drops what is gone, keeps what is the same. `former` is
    /// what is in force: what it asked for already, and could not have, is no
    /// mistake of this change. Nobody is sent to the new listeners yet.
    pub(super) fn enrol(
        &self,
        objects: &Objects,
        former: &Objects,
        warnings: &mut Vec<Warning>,
    ) -> Result<Enrolled, InstallError> {
        let mut enrolled = Enrolled::default();
        let settled_by = Instant::now() + listen::SETTLE;
        for (name, workload) in objects.index().inventory.local() {
            let Some(spec) = workload.local.as_ref().filter(|spec| spec.enrolled) else {
                continue;
            };
            if let Some(pod) = self
                .pods
                .get(name)
                .filter(|pod| is_same(pod, spec, workload))
            {
                enrolled.pods.insert(name.clone(), Arc::clone(pod));
                continue;
            }
            match self.enrol_one(spec, workload, settled_by) {
                Ok(newcomer) => {
                    enrolled
                        .pods
                        .insert(name.clone(), Arc::clone(&newcomer.pod));
                    enrolled.newcomers.push(newcomer);
                }
                Err(error) if self.must_enrol(workload, former) => {
                    return Err(InstallError::Refused(error.to_string()));
                }
                Err(error) => {
                    let why = format!("{error}; it is not enrolled");
                    warnings.push(about(name, "spec.netns", why.clone()));
                    enrolled.missing.insert(name.clone(), why);
                }
            }
        }
        check_netns(&enrolled.pods)?;
        Ok(enrolled)
    }

    /// Whether a change must be refused because this workload cannot be enrolled:
    /// it is the change that asks for it, or an enrolled pod would go free.
    fn must_enrol(&self, workload: &Workload, former: &Objects) -> bool {
        let name = &workload.name;
        let before = former.workloads.get(name).map(Arc::as_ref);
        self.started && (self.pods.contains_key(name) || before != Some(workload))
    }

    fn enrol_one(
        &self,
        spec: &LocalPod,
        workload: &Workload,
        settled_by: Instant,
    ) -> Result<Newcomer, PodError> {
        let name = &workload.name;
        let (pod, listeners) = Pod::enrol(
            name,
            spec,
            &workload.addresses,
            self.home,
            self.workers,
            settled_by,
        )?;
        let mut kernel = lock(self.kernel);
        for listener in listeners.iter().flatten() {
            let marked = kernel.mark_listener(listener);
            marked.map_err(cgroup_error(name))?;
        }
        Ok(Newcomer {
            pod: Arc::new(pod),
            listeners,
        })
    }
}

impl Node {
    /// Fences what is new, when the tables know it. An error leaves nothing of it.
    pub(super) fn fence_newcomers(
        &self,
        enrolled: &Enrolled,
        warnings: &mut Vec<Warning>,
    ) -> Result<(), InstallError> {
        for Newcomer { pod, .. } in &enrolled.newcomers {
            let fenced = lock(&self.kernel).fence(pod.cgroup());
            match fenced.map_err(cgroup_error(pod.name())) {
                Ok(()) => {}
                Err(error) if self.started => {
                    let before = cgroups(&self.pods);
                    self.unfence(|id| !before.contains(&id));
                    return Err(InstallError::Refused(error.to_string()));
                }
                // It was enrolled before: better without its fence than not at all.
                Err(error) => warnings.push(about(
                    pod.name(),
                    "spec.cgroup",
                    format!("{error}; the namespaces that it makes for itself are not denied"),
                )),
            }
        }
        Ok(())
    }

    /// Before the tables forget those that leave.
    pub(super) fn unfence_leavers(&self, enrolled: &Enrolled) {
        let staying = cgroups(&enrolled.pods);
        self.unfence(|id| !staying.contains(&id));
    }

    /// Nobody left after all.
    pub(super) fn fence_leavers(&self, enrolled: &Enrolled) {
        let staying = cgroups(&enrolled.pods);
        let pods = self.pods.values();
        for pod in pods.filter(|pod| !staying.contains(&pod.cgroup().id())) {
            if let Err(error) = lock(&self.kernel).fence(pod.cgroup()) {
                tracing::error!(%error, pod = %pod.name(), "a pod lost its fence");
            }
        }
    }

    fn unfence(&self, of: impl Fn(u64) -> bool) {
        if let Err(error) = lock(&self.kernel).lift_fences(of) {
            tracing::warn!(%error, "a fence of a workload that is not enrolled could not be removed");
        }
    }
}

fn cgroups(pods: &BTreeMap<ObjectName, Arc<Pod>>) -> BTreeSet<u64> {
    pods.values().map(|pod| pod.cgroup().id()).collect()
}

/// What the kernel refuses for a workload.
fn cgroup_error(name: &ObjectName) -> impl Fn(KernelError) -> PodError {
    |cause| PodError::Cgroup {
        name: name.clone(),
        cause: Box::new(cause),
    }
}

/// What is to be said of a stored workload.
fn about(name: &ObjectName, path: &str, message: String) -> Warning {
    Warning {
        source: None,
        document: None,
        object: Some(format!("Workload {name}")),
        path: path.into(),
        message,
    }
}

/// Whether the pod is what the workload now asks for, its namespace included:
/// a pod that was made again has another one behind the same path. A path that
/// is gone says nothing: the pod may be on its way out, and is served to its end.
fn is_same(pod: &Pod, spec: &LocalPod, workload: &Workload) -> bool {
    let same_netns = std::fs::metadata(&spec.netns)
        .map_or(true, |now| (now.dev(), now.ino()) == pod.netns().identity());
    pod.spec() == spec && pod.claimed() == workload.addresses && same_netns
}

/// Two workloads in one namespace would decide on each other's connections.
fn check_netns(pods: &BTreeMap<ObjectName, Arc<Pod>>) -> Result<(), InstallError> {
    let mut owners = BTreeMap::new();
    for (name, pod) in pods {
        if let Some(other) = owners.insert(pod.netns().cookie(), name) {
            return Err(InstallError::Refused(format!(
                "workloads {other} and {name} share one network namespace ({}): a namespace can be enrolled once",
                pod.spec().netns.display()
            )));
        }
    }
    Ok(())
}
