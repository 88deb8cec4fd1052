//! The daemon's side of the kernel half: loads the programs, pins links and
//! maps, writes tables, reads events.
//!
//! The only module that talks to bpf(2). Must never decide on a connection,
//! and must never leave a state in the maps that allows more than the last
//! [`TableSet`] that was asked for.
#![expect(
    unsafe_code,
    reason = "bpf(2) has no safe form for links; every block says why it holds"
)]

mod accelerate;
mod batch;
pub(crate) mod btf;
pub mod calls;
pub mod cgroup;
mod changes;
mod error;
mod events;
mod hooks;
mod limits;
mod link;
mod load;
mod maps;
mod older;
mod peers;
mod pins;
mod read;
pub(crate) mod record;
mod rival;
pub mod uring;
mod usage;
mod write;

use std::fs;
use std::path::Path;

use aya::Ebpf;
use aya::maps::{Array, Map, MapData, SkStorage};
use proxy_common::{Beat, Counter, Ending, Event, Extent, Flow, Record as _, Workload};

pub use self::cgroup::Cgroup;
use self::changes::Changes;
pub use self::error::KernelError;
pub use self::events::{HookLog, Ring};
pub use self::hooks::hooks;
use self::hooks::{FENCES, HOOKS};
pub use self::limits::{Limits, MapLimit, TableMap};
use self::load::{attach, load_object, node_config};
use self::maps::Maps;
pub use self::peers::Peers;
pub use self::pins::Pins;
use self::pins::read_dir;
pub use self::rival::Other;
pub use self::usage::MapUsage;
use crate::tables::TableSet;

/// The kernel half, loaded and attached.
pub struct Kernel {
    /// Keeps the programs alive for links that are still to be made.
    ebpf: Ebpf,
    pins: Pins,
    maps: Maps,
    limits: Limits,
    written: TableSet,
    /// Where the hooks hang, for those that come later.
    cgroup: Cgroup,
    proxy_cgroup: u64,
    extent: Extent,
    /// For whom it may be, but for those that force it.
    allowed: Extent,
    acceleration_fault: Option<String>,
}

/// How the kernel half is loaded.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// How much the maps hold.
    pub limits: Limits,
    /// Whether the hooks write debug lines.
    pub debug: bool,
    /// Whether acceleration may be asked for.
    pub accelerate: bool,
}

/// What else a load yields.
pub struct Streams {
    /// Denials and audits.
    pub events: Ring<Event>,
    /// Ends of balanced connections.
    pub endings: Ring<Ending>,
    /// Debug lines; present only if they were asked for.
    pub log: Option<HookLog>,
}

impl Kernel {
    /// Loads the programs and takes over the maps and links that are pinned,
    /// or makes them. `proxy_cgroup` is the only cgroup that is exempt. An error
    /// leaves what was there, and nothing where nothing was.
    pub fn load(
        pins: &Pins,
        cgroup: &Cgroup,
        proxy_cgroup: &Cgroup,
        options: &LoadOptions,
    ) -> Result<(Self, Streams), KernelError> {
        let is_first = pins.is_empty()?;
        let loaded = Self::load_or_part(pins, cgroup, proxy_cgroup, options);
        if loaded.is_err()
            && is_first
            && let Err(error) = pins.remove()
        {
            tracing::warn!(%error, "what was attached before the start failed could not be removed");
        }
        loaded
    }

    /// The same, but an error leaves what was made before it.
    fn load_or_part(
        pins: &Pins,
        cgroup: &Cgroup,
        proxy_cgroup: &Cgroup,
        options: &LoadOptions,
    ) -> Result<(Self, Streams), KernelError> {
        let (limits, debug) = (options.limits.clone(), options.debug);
        pins.make()?;
        for spec in &maps::SPECS {
            maps::check_pin(spec, &limits, &pins.map(spec.name))?;
        }
        let mut ebpf = load_object(pins, options)?;
        maps::check_abi(&mut ebpf, &pins.map("ABI"))?;
        let events = Ring::take(&mut ebpf, "EVENTS")?;
        let endings = Ring::take(&mut ebpf, "ENDINGS")?;
        let log = debug.then(|| HookLog::take(&mut ebpf)).transpose()?;
        let mut maps = Maps::take(&mut ebpf)?;
        let node = node_config(&limits, proxy_cgroup.id(), Extent::Nobody);
        maps.node
            .set(0, node, 0)
            .map_err(KernelError::map("NODE"))?;
        let written = read::read(&maps)?;
        write::write_enrolled(&mut maps, written.workloads.keys())?;
        for (program, at, pin) in HOOKS {
            attach(&ebpf, program, &pins.link(pin), cgroup, at, pin)?;
        }
        let mut kernel = Self {
            ebpf,
            pins: pins.clone(),
            maps,
            limits,
            written,
            cgroup: Cgroup::open(cgroup.path())?,
            proxy_cgroup: proxy_cgroup.id(),
            extent: Extent::default(),
            allowed: Extent::default(),
            acceleration_fault: None,
        };
        if !options.accelerate {
            kernel.stop_accelerating()?;
        }
        let streams = Streams {
            events,
            endings,
            log,
        };
        Ok((kernel, streams))
    }

    /// Puts `tables` in force. On an error the former tables are restored; if
    /// that fails too, every workload is closed: egress denied, no listener.
    pub fn write(&mut self, tables: &TableSet) -> Result<(), KernelError> {
        let before = self.written.clone();
        changes::check_size(&before, tables, &self.limits)?;
        let changes = Changes::between(&before, tables);
        match write::write(&mut self.maps, &before, tables, &changes) {
            Ok(()) => {
                self.written = tables.clone();
                self.settle_acceleration();
                Ok(())
            }
            Err(error) => {
                // How far it got is unknown, so look.
                let restored = read::read(&self.maps).and_then(|now| {
                    let back = Changes::between(&now, &before);
                    write::write(&mut self.maps, &now, &before, &back)
                });
                if restored.is_err() {
                    self.close_all(&before);
                }
                self.written = read::read(&self.maps).unwrap_or(before);
                Err(if restored.is_err() {
                    KernelError::Closed(Box::new(error))
                } else {
                    error
                })
            }
        }
    }

    /// Refuses tables that would not fit with `workloads` enrolled ones.
    pub fn check_size(&self, tables: &TableSet, workloads: usize) -> Result<(), KernelError> {
        self.limits.check(TableMap::Workloads, workloads)?;
        changes::check_size(&self.written, tables, &self.limits)
    }

    /// Last resort: every workload keeps its identity and loses its ways out.
    fn close_all(&mut self, tables: &TableSet) {
        for (netns, workload) in &tables.workloads {
            if let Err(error) = self.maps.workloads.insert(netns, closed(workload), 0) {
                tracing::error!(%error, netns = netns.0, "a workload could not be closed");
            }
        }
    }

    /// Fences the cgroup of an enrolled workload.
    pub fn fence(&mut self, cgroup: &Cgroup) -> Result<(), KernelError> {
        for (program, at, hook) in FENCES {
            attach(
                &self.ebpf,
                program,
                &self.pins.fence(cgroup.id(), hook),
                cgroup,
                at,
                hook,
            )?;
        }
        Ok(())
    }

    /// Takes the fences off the cgroups that `of` picks, those of an earlier
    /// process included.
    pub fn lift_fences(&mut self, of: impl Fn(u64) -> bool) -> Result<(), KernelError> {
        let mut lifted = Ok(());
        for path in read_dir(&self.pins.fences())? {
            let id = path
                .file_name()
                .and_then(|name| name.to_str()?.split_once('-')?.0.parse().ok());
            // What has no number is no fence of ours that anybody could want.
            if id.is_none_or(&of) {
                // One that stays is no reason to leave the others.
                lifted = lifted.and(lift(&path));
            }
        }
        lifted
    }

    /// Marks a listening socket as weir's, so that the hooks send connects to it.
    pub fn mark_listener(&mut self, socket: &impl std::os::fd::AsRawFd) -> Result<(), KernelError> {
        self.maps
            .listeners
            .insert(socket, 1_u32, 0)
            .map_err(KernelError::map("LISTENERS"))
    }

    /// A handle by which one worker reads the flows of accepted sockets.
    pub fn flows(&self) -> Result<Flows, KernelError> {
        let map =
            MapData::from_pin(self.pins.map("ACCEPTED")).map_err(KernelError::map("ACCEPTED"))?;
        SkStorage::try_from(Map::SkStorage(map))
            .map(|accepted| Flows { accepted })
            .map_err(KernelError::map("ACCEPTED"))
    }

    /// A handle by which the daemon says that it is alive.
    pub fn heartbeat(&self) -> Result<Heartbeat, KernelError> {
        let map = MapData::from_pin(self.pins.map("BEAT")).map_err(KernelError::map("BEAT"))?;
        Array::try_from(Map::Array(map))
            .map(|map| Heartbeat { map })
            .map_err(KernelError::map("BEAT"))
    }

    /// The kernel half's counters, summed over all CPUs.
    pub fn counters(&self) -> Vec<(Counter, u64)> {
        Counter::ALL
            .into_iter()
            .map(|counter| {
                let values = self.maps.counters.get(&(counter as u32), 0);
                (counter, values.map_or(0, |values| values.iter().sum()))
            })
            .collect()
    }

    /// Flows between `connect` and accept right now.
    pub fn flows_pending(&self) -> usize {
        self.maps.flows.keys().flatten().count()
    }

    /// The same, of one workload.
    pub fn pending(&self, workload: proxy_common::WorkloadId) -> u64 {
        self.maps.pending.get(&workload, 0).unwrap_or(0)
    }

    /// Whether the hook of this name hangs on the cgroup now.
    pub fn is_attached(&self, hook: &str) -> bool {
        let info = link::Link::open(&self.pins.link(hook)).and_then(|link| link.info());
        info.is_ok_and(|info| info.cgroup != 0)
    }

    /// Slots of the array of endpoints.
    pub fn endpoint_slots(&self) -> u32 {
        self.limits.of(TableMap::Endpoints)
    }

    /// What the maps hold.
    pub fn tables(&self) -> &TableSet {
        &self.written
    }
}

/// A workload without a way out. What is inside its pod is no business of weir's.
fn closed(workload: &Workload) -> Workload {
    Workload {
        id: workload.id,
        network: workload.network,
        own: workload.own,
        pending_max: 0,
        ..Workload::default()
    }
}

/// Detaches one hook of a fence.
fn lift(pin: &Path) -> Result<(), KernelError> {
    let named = |call| move |error| KernelError::call(call, pin.display().to_string(), error);
    let link = link::Link::open(pin).map_err(named("BPF_OBJ_GET"))?;
    link.detach().map_err(named("BPF_LINK_DETACH"))?;
    fs::remove_file(pin).map_err(named("unlink"))
}

/// Tells the hooks when the daemon was last alive.
pub struct Heartbeat {
    map: Array<MapData, Beat>,
}

impl Heartbeat {
    /// Tells them.
    pub fn tell(&mut self, beat: Beat) -> Result<(), KernelError> {
        self.map.set(0, beat, 0).map_err(KernelError::map("BEAT"))
    }
}

/// One worker's reader of what `sock_ops` handed over.
pub struct Flows {
    accepted: SkStorage<MapData, Flow>,
}

impl Flows {
    /// The flow of an accepted socket; `None`: nobody's, it came past the hooks.
    pub fn of(&self, socket: &impl std::os::fd::AsRawFd) -> Option<Flow> {
        let flow = self.accepted.get(socket, 0).ok()?;
        match flow.check() {
            Ok(()) => Some(flow),
            Err(error) => {
                tracing::error!(%error, "what the hooks noted of a connection is no flow");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proxy_common::{
        Destination, EgressDefault, LocalEntry, LocalKey, NetnsCookie, Transport, Verdict, decide,
    };

    use super::*;

    #[test]
    fn a_closed_workload_reaches_itself_and_nobody_outside() {
        let at = |text: &str| Destination::from(text.parse::<SocketAddr>().unwrap());
        let (own, outside) = (at("10.244.1.2:80"), at("203.0.113.5:80"));
        let netns = NetnsCookie(70);
        let workload = Workload {
            egress_default: EgressDefault::Allow as u8,
            own: [own.addr].into_iter().collect(),
            ..Workload::default()
        };
        let key = LocalKey {
            netns,
            addr: own.addr,
        };
        let mut tables = TableSet::default();
        tables.local.insert(key, LocalEntry::default());
        let ask = |workload: &Workload, dst| {
            decide(&tables, workload, netns, Transport::Tcp, dst).verdict
        };
        assert_eq!(ask(&workload, outside), Verdict::Direct);
        let closed = closed(&workload);
        assert_eq!(ask(&closed, own), Verdict::Direct);
        assert_eq!(ask(&closed, outside), Verdict::Deny);
    }
}
