//! Whether weir's hooks run where they should, and programs of others on them: which
//! of them forbids ours.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;

use aya::programs::loaded_programs;

use super::Kernel;
use super::cgroup::Cgroup;
use super::link::{AttachType, Attached};

/// `BPF_F_ALLOW_MULTI`: others may attach too, here and below.
const ALLOW_MULTI: u32 = 2;

/// Who forbids a link on `cgroup`: the nearest cgroup at or above it with a
/// program that was attached without the multi flag.
pub fn find(cgroup: &Path, at: AttachType) -> String {
    for path in cgroup.ancestors() {
        let Ok(attached) = File::open(path).and_then(|dir| Attached::to(dir.as_fd(), at)) else {
            // Above the mount point.
            break;
        };
        if attached.flags & ALLOW_MULTI == 0 && !attached.programs.is_empty() {
            let programs: Vec<String> = attached.programs.iter().map(|id| named(*id)).collect();
            return format!(
                "{}, attached to {} without the multi flag",
                programs.join(" and "),
                path.display()
            );
        }
    }
    "a program that is not there any more".to_owned()
}

impl Kernel {
    /// What a person should know whose pod has this cgroup and is not captured.
    pub fn surroundings(&self, cgroup: &Cgroup) -> String {
        let (at, root) = (cgroup.path().display(), self.cgroup.path());
        match self.runs_in(cgroup) {
            Some(true) => "weir's hooks run in its cgroup".to_owned(),
            Some(false) if cgroup.path().starts_with(root) => {
                format!("weir's hooks do not run in {at} any more: `weir status` says which hang")
            }
            Some(false) => format!(
                "weir's hooks do not run in {at}: a pod's cgroup must be below {}, or weir be started with another --cgroup",
                root.display()
            ),
            None => "whether weir's hooks run in its cgroup the kernel does not say".to_owned(),
        }
    }

    /// Whether what dials in this cgroup is decided on.
    fn runs_in(&self, cgroup: &Cgroup) -> Option<bool> {
        let programs = [
            ("weir_connect4", AttachType::Connect4),
            ("weir_connect6", AttachType::Connect6),
        ];
        let runs = programs.map(|(name, at)| {
            let own = self.ebpf.program(name)?.info().ok()?.id();
            let running = Attached::in_force(cgroup.as_fd(), at).ok()?;
            Some(running.programs.contains(&own))
        });
        Some(runs[0]? && runs[1]?)
    }
}

/// `program "name" (id 7)`.
fn named(id: u32) -> String {
    let info = loaded_programs().flatten().find(|info| info.id() == id);
    match info.as_ref().and_then(|info| info.name_as_str()) {
        Some(name) if !name.is_empty() => format!("program `{name}` (id {id})"),
        _ => format!("the program with id {id}"),
    }
}
