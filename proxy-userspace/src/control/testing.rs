//! A data plane that remembers what it was told, for tests.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use super::*;
use crate::config::{self, Author, Parsed, Source, Warning};

/// A Service and two Workloads that fit each other, and a rule for them.
pub(crate) const SHOP: &str = "
apiVersion: v1
kind: Service
metadata: { name: svcb }
spec: { clusterIPs: [10.96.0.2], ports: [{ port: 80 }], selector: { app: svcb } }
---
apiVersion: weir.dev/v1
kind: Workload
metadata: { name: b1, labels: { app: svcb, version: v0.1 } }
spec: { addresses: [10.0.0.1] }
---
apiVersion: weir.dev/v1
kind: Workload
metadata: { name: b2, labels: { app: svcb, version: v0.2 } }
spec: { addresses: [10.0.0.2] }
---
apiVersion: weir.dev/v1
kind: RouteRule
metadata: { name: split }
spec:
  destination: { name: svcb }
  route:
  - { labels: { version: v0.1 }, weight: 50 }
  - { labels: { version: v0.2 }, weight: 50 }
";

/// One rule that opens an external address.
pub(crate) const EGRESS: &str = "
apiVersion: weir.dev/v1
kind: EgressRule
metadata: { name: msgd }
spec: { destination: { service: 192.0.2.1 }, ports: [{ port: 9997, protocol: http }] }
";

/// One call of `install`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Installed {
    /// Kind, namespace and name of every object.
    pub(crate) objects: Vec<String>,
    pub(crate) generation: u64,
    pub(crate) revision: u64,
}

#[derive(Default)]
pub(crate) struct Told {
    pub(crate) installs: Vec<Installed>,
    /// What the next calls of `install` fail with, first to last.
    pub(crate) failures: Vec<Option<InstallError>>,
    /// What every install warns of.
    pub(crate) warnings: Vec<Warning>,
    pub(crate) asked: Vec<ExplainQuery>,
}

/// The data plane, and the view on it that a test keeps.
#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<Told>>);

impl Recorder {
    pub(crate) fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap()
    }

    pub(crate) fn fail(&self, failures: impl IntoIterator<Item = Option<InstallError>>) {
        self.told().failures = failures.into_iter().collect();
    }
}

impl Dataplane for Recorder {
    fn install(
        &mut self,
        objects: &Objects,
        generation: u64,
        revision: u64,
    ) -> Result<Vec<Warning>, InstallError> {
        let mut told = self.told();
        if !told.failures.is_empty()
            && let Some(error) = told.failures.remove(0)
        {
            return Err(error);
        }
        let all = config::Kind::ALL
            .into_iter()
            .flat_map(|kind| objects.list(kind));
        let objects = all.map(|object| object.to_string()).collect();
        told.installs.push(Installed {
            objects,
            generation,
            revision,
        });
        Ok(told.warnings.clone())
    }

    fn check(&mut self, _objects: &Objects) -> Result<(), InstallError> {
        Ok(())
    }

    fn reset_older(&mut self, _name: &ObjectName) -> Result<usize, InstallError> {
        Ok(0)
    }

    fn explain(&self, query: &ExplainQuery) -> Result<Explanation, ExplainError> {
        self.told().asked.push(query.clone());
        if query.workload.name() == "absent" {
            return Err(ExplainError::UnknownWorkload(format!(
                "there is no workload {}",
                query.workload
            )));
        }
        Ok(Explanation {
            workload: query.workload.to_string(),
            destination: query.destination.to_string(),
            verdict: "proxy".to_owned(),
            reason: "service".to_owned(),
            generation: 7,
            ..Explanation::default()
        })
    }

    fn status(&self) -> DataplaneStatus {
        DataplaneStatus {
            acceleration: AccelerationStatus {
                mode: "auto".to_owned(),
                in_force_for: "nobody".to_owned(),
                self_test: "1 does not hold".to_owned(),
                broken: vec![AccelerationCase {
                    name: "fin".to_owned(),
                    must: "the end comes".to_owned(),
                    seen: "it did not".to_owned(),
                }],
                fault: None,
            },
            udp: "not governed".to_owned(),
            others: vec![OtherStatus {
                id: 7,
                name: "lb4".into(),
                hook: "cgroup/connect4".into(),
                cgroup: "/sys/fs/cgroup".into(),
            }],
            others_omitted: 2,
            ..DataplaneStatus::default()
        }
    }

    fn workloads(&self) -> Vec<WorkloadStatus> {
        vec![WorkloadStatus {
            namespace: "default".to_owned(),
            name: "b1".to_owned(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            netns: None,
            enrolled: true,
            captured: false,
            why: "the canary was not answered".to_owned(),
            pending_flows: 0,
            open_connections: 3,
            older_connections: 2,
        }]
    }
}

/// A writer over a store in `dir`.
pub(crate) fn start(dir: &Path, dataplane: &Recorder) -> (Control, JoinHandle<()>) {
    let (store, objects) = config::Store::open(&dir.join("state")).unwrap();
    Control::start(store, objects, dataplane.clone()).unwrap()
}

pub(crate) fn parsed(text: &str) -> Parsed {
    config::parse(&[Source::new("test", text)]).unwrap()
}

pub(crate) fn batch(text: &str) -> Batch {
    Batch {
        parsed: parsed(text),
        mode: Mode::Upsert,
        prune: None,
    }
}

pub(crate) fn intent() -> Intent {
    Intent {
        author: Author::default(),
        dry_run: false,
    }
}
