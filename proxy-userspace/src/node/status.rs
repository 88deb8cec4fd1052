//! What `weir status` and `weir workloads` show: read off, never remembered.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::pod::Pod;
use crate::accelerate::Accelerator;
use crate::config::object::{ObjectName, Workload};
use crate::control::{
    DataplaneStatus, ListenerStatus, MapStatus, OtherStatus, ProgramStatus, WorkloadStatus,
};
use crate::kernel::{Kernel, hooks};
use crate::snapshot::Snapshot;

/// How many programs of others are listed.
const OTHERS: usize = 100;

/// The state of the kernel half and the listeners; `unwoken` says why the owners
/// of connected UDP sockets do not learn that their endpoint is dead.
pub fn status(
    kernel: &Kernel,
    pods: &BTreeMap<ObjectName, Arc<Pod>>,
    unwoken: Option<&str>,
    accelerator: &Accelerator,
) -> DataplaneStatus {
    let programs = hooks().map(|(program, hook)| ProgramStatus {
        name: program.to_owned(),
        hook: format!("cgroup/{hook}"),
        attached: kernel.is_attached(hook),
    });
    let mut others: Vec<OtherStatus> = kernel
        .others(pods.values().map(|pod| pod.cgroup()))
        .into_iter()
        .map(|other| OtherStatus {
            id: other.id,
            name: other.name,
            hook: format!("cgroup/{}", other.hook),
            cgroup: other.cgroup.display().to_string(),
        })
        .collect();
    let others_omitted = others.len().saturating_sub(OTHERS) as u64;
    others.truncate(OTHERS);
    let maps = kernel.usage().into_iter().map(|usage| MapStatus {
        name: usage.name.to_owned(),
        map_limit: usage.setting.map(str::to_owned),
        entries: usage.entries.map(|entries| entries as u64),
        capacity: usage.limit as u64,
        bytes: usage.bytes,
    });
    let listeners = pods.values().flat_map(|pod| {
        pod.listeners().iter().map(|listener| ListenerStatus {
            workload: pod.name().to_string(),
            address: std::net::SocketAddr::new(listener.addr.to_ip(), listener.port.0),
        })
    });
    let counters = kernel
        .counters()
        .into_iter()
        .map(|(counter, total)| (counter.name().to_owned(), total));
    DataplaneStatus {
        programs: programs.collect(),
        others,
        others_omitted,
        maps: maps.collect(),
        listeners: listeners.collect(),
        counters: counters.collect(),
        acceleration: accelerator.status(kernel),
        udp: match unwoken {
            None => "governed and balanced; connected sockets of dead endpoints are woken".into(),
            Some(why) => format!(
                "governed and balanced; connected sockets of dead endpoints are NOT woken: {why}"
            ),
        },
    }
}

/// Every workload of this node; `missing` says why one is not enrolled that should
/// be. What this does not look at is zero.
pub fn workloads(
    kernel: &Kernel,
    snapshot: &Snapshot,
    pods: &BTreeMap<ObjectName, Arc<Pod>>,
    missing: &BTreeMap<ObjectName, String>,
) -> Vec<(ObjectName, WorkloadStatus)> {
    let ids: BTreeMap<&ObjectName, _> = snapshot
        .sources
        .values()
        .map(|source| (&source.name, source.id))
        .collect();
    let inventory = &snapshot.objects().index().inventory;
    let status = |(name, workload): (&ObjectName, &Arc<Workload>)| {
        let asked = workload.local.as_ref().is_some_and(|spec| spec.enrolled);
        let mut status = WorkloadStatus {
            namespace: name.namespace().to_owned(),
            name: name.name().to_owned(),
            addresses: workload.addresses.clone(),
            netns: workload
                .local
                .as_ref()
                .map(|spec| spec.netns.display().to_string()),
            enrolled: asked,
            captured: false,
            why: match missing.get(name) {
                Some(why) => why.clone(),
                None => "it is not enrolled, as spec.enrolled says".into(),
            },
            pending_flows: 0,
            open_connections: 0,
            older_connections: 0,
        };
        if let Some(pod) = pods.get(name) {
            let enrolment = pod.enrolment();
            status.captured = enrolment.captured;
            status.why = enrolment.why;
            status.pending_flows = ids.get(name).map_or(0, |id| kernel.pending(*id));
            status.open_connections = pod.connections() as u64;
        }
        (name.clone(), status)
    };
    inventory.local().iter().map(status).collect()
}
