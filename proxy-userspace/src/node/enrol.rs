//! Pods on their way into a configuration: opened, with their listeners, and fenced.
//!
//! Must never fence a pod before all the others are ready, or one of them is refused.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Instant;

use super::pod::{Pod, PodError};
use super::{Node, listen, lock};
use crate::config::object::{LocalPod, ObjectName, Workload};
use crate::config::{Objects, Warning};
use crate::control::InstallError;
use crate::kernel::KernelError;

/// The pods of a configuration that is about to be put in force.
#[derive(Default)]
pub(super) struct Enrolled {
    pub(super) pods: BTreeMap<ObjectName, Arc<Pod>>,
    pub(super) newcomers: Vec<Newcomer>,
}

/// A pod and its listeners, one list per worker, that are not served yet.
pub(super) struct Newcomer {
    pub(super) pod: Arc<Pod>,
    pub(super) listeners: Vec<Vec<std::net::TcpListener>>,
}

impl Node {
    /// Enrols what is new, drops what is gone, keeps what is the same.
    pub(super) fn enrol(
        &self,
        objects: &Objects,
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
                Err(error) if self.started => return Err(InstallError::Refused(error.to_string())),
                Err(error) => warnings.push(dropped(name, &error)),
            }
        }
        check_netns(&enrolled.pods)?;
        self.fence(&mut enrolled, warnings)?;
        Ok(enrolled)
    }

    /// Fences what is new, when all of it is ready: from here on until the tables
    /// are in force its connects are those of a namespace that nobody knows.
    fn fence(
        &self,
        enrolled: &mut Enrolled,
        warnings: &mut Vec<Warning>,
    ) -> Result<(), InstallError> {
        let mut kernel = lock(&self.kernel);
        for newcomer in std::mem::take(&mut enrolled.newcomers) {
            let pod = &newcomer.pod;
            match kernel.fence(pod.cgroup()) {
                Ok(()) => enrolled.newcomers.push(newcomer),
                Err(error) => {
                    let error = cgroup_error(pod.name())(error);
                    if self.started {
                        return Err(InstallError::Refused(error.to_string()));
                    }
                    warnings.push(dropped(pod.name(), &error));
                    enrolled.pods.remove(pod.name());
                }
            }
        }
        Ok(())
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
            &self.home,
            self.workers.len(),
            settled_by,
        )?;
        let mut kernel = lock(&self.kernel);
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

/// What the kernel refuses for a workload.
fn cgroup_error(name: &ObjectName) -> impl Fn(KernelError) -> PodError {
    |cause| PodError::Cgroup {
        name: name.clone(),
        cause: Box::new(cause),
    }
}

/// A stored workload that is no more.
fn dropped(name: &ObjectName, error: &PodError) -> Warning {
    Warning {
        source: None,
        document: None,
        object: Some(format!("Workload {name}")),
        path: "spec.netns".into(),
        message: format!("{error}; it is not enrolled"),
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
