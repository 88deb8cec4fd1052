//! Loads the kernel half's object and attaches its programs.
//!
//! Must never attach without saying whose program is in the way.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use aya::programs::Program;
use aya::{Ebpf, EbpfLoader};
use proxy_common::{Extent, NodeConfig};

use super::error::{KernelError, chain};
use super::limits::{Limits, TableMap};
use super::link::{self, AttachType};
use super::{Cgroup, LoadOptions, Pins, accelerate, maps, rival};

/// The name of the hooks' word on whether the kernel speaks Multipath TCP.
const MULTIPATH: &str = "MULTIPATH";

/// Present in every network namespace of a kernel that does.
const MULTIPATH_SETTINGS: &str = "/proc/sys/net/mptcp";

/// What the hooks know of the node.
pub fn node_config(limits: &Limits, proxy_cgroup: u64, extent: Extent) -> NodeConfig {
    NodeConfig {
        proxy_cgroup,
        // An eighth in reserve: those that were counted a moment late still fit.
        pending_max: u64::from(limits.of(TableMap::Flows)) / 8 * 7,
        accelerate: extent as u8,
        pad: [0; 7],
    }
}

/// Loads the object with every map pinned (or taken over).
pub fn load_object(pins: &Pins, options: &LoadOptions) -> Result<Ebpf, KernelError> {
    // 0 turns the hooks' debug lines off; the verifier then drops their code.
    let level: u8 = if options.debug {
        aya_log::Level::Trace as u8
    } else {
        0
    };
    // The hooks read no kernel structure by offset, so nothing is relocated
    // against the kernel's BTF, and parsing it would cost tens of megabytes.
    let mut loader = EbpfLoader::new();
    loader
        .btf(None)
        .override_global(aya_log::LEVEL, &level, true);
    // Where it is not to be found, acceleration is refused when it is asked for.
    let offset = if options.accelerate {
        accelerate::write_seq_offset().unwrap_or(0)
    } else {
        0
    };
    loader.override_global(accelerate::WRITE_SEQ_OFFSET, &offset, true);
    let multipath = u8::from(Path::new(MULTIPATH_SETTINGS).exists());
    loader.override_global(MULTIPATH, &multipath, true);
    for spec in &maps::SPECS {
        loader.map_pin_path(spec.name, pins.map(spec.name));
        if let Some(entries) = options.limits.by_map(spec.name) {
            loader.map_max_entries(spec.name, entries);
        }
    }
    let mut ebpf = loader
        .load(crate::EBPF_OBJECT)
        .map_err(|error| KernelError::Load(chain(&error)))?;
    for (name, program) in ebpf.programs_mut() {
        if accelerate::is_own(name) {
            continue;
        }
        let loaded = match program {
            Program::CgroupSock(program) => program.load(),
            Program::CgroupSockAddr(program) => program.load(),
            Program::SockOps(program) => program.load(),
            _ => Ok(()),
        };
        loaded.map_err(|error| KernelError::Load(chain(&error)))?;
    }
    Ok(ebpf)
}

/// Makes the link at `pin` run `program`.
pub fn attach(
    ebpf: &Ebpf,
    program: &'static str,
    pin: &Path,
    cgroup: &Cgroup,
    at: AttachType,
    hook: &'static str,
) -> Result<(), KernelError> {
    let fd = program_fd(ebpf, program)?;
    link::ensure(pin, fd.as_fd(), cgroup.as_fd(), cgroup.id(), at).map_err(|error| match error {
        KernelError::Call {
            call: "BPF_LINK_CREATE",
            cause,
            ..
        } if cause.raw_os_error() == Some(nix::libc::EPERM) => KernelError::Forbidden {
            cgroup: cgroup.path().into(),
            hook,
            rival: rival::find(cgroup.path(), at),
        },
        other => other,
    })
}

/// A program's descriptor.
pub fn program_fd(ebpf: &Ebpf, name: &'static str) -> Result<OwnedFd, KernelError> {
    let missing = || KernelError::Load(format!("the object holds no program {name}"));
    let fd = ebpf
        .program(name)
        .ok_or_else(missing)?
        .fd()
        .map_err(|error| KernelError::Load(error.to_string()))?;
    let fd: BorrowedFd<'_> = fd.as_fd();
    fd.try_clone_to_owned()
        .map_err(|error| KernelError::call("dup", name, error))
}
