//! What `weir status` and `weir workloads` show: read off, never remembered.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::pod::Pod;
use crate::accelerate::Accelerator;
use crate::config::object::ObjectName;
use crate::control::{DataplaneStatus, ListenerStatus, MapStatus, ProgramStatus, WorkloadStatus};
use crate::kernel::{Kernel, hooks};
use crate::snapshot::Snapshot;

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
    let maps = kernel.usage().into_iter().map(|usage| MapStatus {
        name: usage.map.map().to_owned(),
        entries: Some(usage.entries as u64),
        capacity: u64::from(usage.limit),
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

/// Every enrolled workload.
pub fn workloads(
    kernel: &Kernel,
    snapshot: &Snapshot,
    pods: &BTreeMap<ObjectName, Arc<Pod>>,
) -> Vec<WorkloadStatus> {
    let ids: BTreeMap<&ObjectName, _> = snapshot
        .sources
        .values()
        .map(|source| (&source.name, source.id))
        .collect();
    pods.values()
        .map(|pod| {
            let enrolment = pod.enrolment();
            WorkloadStatus {
                namespace: pod.name().namespace.clone(),
                name: pod.name().name.clone(),
                addresses: pod.claimed().to_vec(),
                netns: Some(pod.spec().netns.display().to_string()),
                enrolled: true,
                captured: enrolment.captured,
                why: enrolment.why,
                pending_flows: ids.get(pod.name()).map_or(0, |id| kernel.pending(*id)),
                open_connections: pod.connections() as u64,
                older_connections: 0,
            }
        })
        .collect()
}
