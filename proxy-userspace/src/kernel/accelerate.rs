//! Acceleration in the kernel: its two programs are loaded and attached only
//! while somebody wants them, and taken away when nobody does.
//!
//! Sockets that have their seats keep them, and the programs with them, until
//! their connections end: taking the programs away never tears a connection.
//! Must never tell the hooks to accelerate before both programs are attached.

use std::fs;
use std::os::fd::AsFd as _;

use aya::programs::{SkMsg, SockOps, loaded_programs};
use proxy_common::{Acceleration, Extent, Workload};

use super::error::{KernelError, chain};
use super::link::{self, AttachType, Attached, Link};
use super::load::{attach, node_config, program_fd};
use super::{Kernel, btf};

/// Seats the sockets.
const SEATING: &str = "weir_accelerate";
/// Hands bytes over.
const REDIRECT: &str = "weir_redirect";
/// Pin of the link of the first; the second hangs on its map.
const PIN: &str = "accelerate";

/// Whether a program of the object is for acceleration alone.
pub fn is_own(program: &str) -> bool {
    program == SEATING || program == REDIRECT
}

/// What [`REDIRECT`] has to know of the kernel's structures; 0: it is not known,
/// and the program is not loaded.
pub const WRITE_SEQ_OFFSET: &str = "WRITE_SEQ_OFFSET";

/// Its value here.
pub fn write_seq_offset() -> Result<u32, KernelError> {
    btf::member_offset("tcp_sock", "write_seq")
}

impl Kernel {
    /// Accelerates for workloads that neither force nor refuse it too, or no more.
    pub fn allow_acceleration(&mut self, allowed: Extent) {
        self.allowed = allowed;
        self.settle_acceleration();
    }

    /// Accelerates for whoever is to be, now that the tables are in force. What
    /// goes wrong leaves nobody accelerated, and is told: nothing else depends on it.
    pub(super) fn settle_acceleration(&mut self) {
        let forced = |workload: &Workload| workload.acceleration() == Acceleration::Force;
        let extent = match self.allowed {
            Extent::All => Extent::All,
            _ if self.written.workloads.values().any(forced) => Extent::Forced,
            _ => Extent::Nobody,
        };
        self.acceleration_fault = self.accelerate(extent).err().map(|error| {
            tracing::warn!(%error, "nobody is accelerated");
            error.to_string()
        });
    }

    /// Why nobody is accelerated though somebody is to be.
    pub fn acceleration_fault(&self) -> Option<&str> {
        self.acceleration_fault.as_deref()
    }

    /// Accelerates for `extent` from now on. An error leaves nobody accelerated.
    pub fn accelerate(&mut self, extent: Extent) -> Result<(), KernelError> {
        if extent == self.extent && (extent != Extent::Nobody || !self.pins.link(PIN).exists()) {
            return Ok(());
        }
        if extent == Extent::Nobody {
            return self.stop_accelerating();
        }
        let started = self.attach_acceleration().and_then(|()| self.tell(extent));
        if started.is_err()
            && let Err(error) = self.stop_accelerating()
        {
            tracing::warn!(%error, "acceleration could not be taken back whole");
        }
        started
    }

    /// For whom the hooks accelerate.
    pub fn extent(&self) -> Extent {
        self.extent
    }

    fn tell(&mut self, extent: Extent) -> Result<(), KernelError> {
        let node = node_config(&self.limits, self.proxy_cgroup, extent);
        self.maps
            .node
            .set(0, node, 0)
            .map_err(KernelError::map("NODE"))?;
        self.extent = extent;
        Ok(())
    }

    /// The program on the map first: no socket may sit where nothing hands over.
    fn attach_acceleration(&mut self) -> Result<(), KernelError> {
        // As in `load_object`, whose answer the programs hold.
        write_seq_offset()?;
        self.load_acceleration()?;
        let program = program_fd(&self.ebpf, REDIRECT)?;
        link::attach_to_map(program.as_fd(), self.maps.seats.fd().as_fd())
            .map_err(|error| KernelError::call("BPF_PROG_ATTACH", REDIRECT, error))?;
        attach(
            &self.ebpf,
            SEATING,
            &self.pins.link(PIN),
            &self.cgroup,
            AttachType::SockOps,
            PIN,
        )
    }

    fn load_acceleration(&mut self) -> Result<(), KernelError> {
        let missing = |name: &str| KernelError::Load(format!("the object holds no program {name}"));
        let failed = |error: aya::programs::ProgramError| KernelError::Load(chain(&error));
        let seating = self.ebpf.program_mut(SEATING);
        let seating: &mut SockOps = seating
            .ok_or_else(|| missing(SEATING))?
            .try_into()
            .map_err(failed)?;
        if seating.fd().is_err() {
            seating.load().map_err(failed)?;
        }
        let redirect = self.ebpf.program_mut(REDIRECT);
        let redirect: &mut SkMsg = redirect
            .ok_or_else(|| missing(REDIRECT))?
            .try_into()
            .map_err(failed)?;
        if redirect.fd().is_err() {
            redirect.load().map_err(failed)?;
        }
        Ok(())
    }

    /// The hooks are told first, so that nobody is seated by half.
    pub(super) fn stop_accelerating(&mut self) -> Result<(), KernelError> {
        self.tell(Extent::Nobody)?;
        let pin = self.pins.link(PIN);
        if pin.exists() {
            let path = || pin.display().to_string();
            Link::open(&pin)
                .and_then(|link| link.detach())
                .map_err(|error| KernelError::call("BPF_LINK_DETACH", path(), error))?;
            fs::remove_file(&pin).map_err(|error| KernelError::call("unlink", path(), error))?;
        }
        self.detach_redirect()?;
        // Nobody is left who would delete them.
        let offers: Vec<_> = self.maps.offers.keys().flatten().collect();
        for key in offers {
            let _gone = self.maps.offers.remove(&key);
        }
        Ok(())
    }

    /// Takes the program off the map, an earlier process's too.
    fn detach_redirect(&self) -> Result<(), KernelError> {
        let failed = |call| move |error| KernelError::call(call, "SEATS", error);
        let map = self.maps.seats.fd().as_fd();
        let attached =
            Attached::to(map, AttachType::SkMsgVerdict).map_err(failed("BPF_PROG_QUERY"))?;
        for id in attached.programs {
            let info = loaded_programs().flatten().find(|info| info.id() == id);
            let Some(program) = info.and_then(|info| info.fd().ok()) else {
                continue;
            };
            link::detach_from_map(program.as_fd(), map).map_err(failed("BPF_PROG_DETACH"))?;
        }
        Ok(())
    }
}
