//! Programs of others on the hooks that weir needs: which of them forbids ours.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;

use aya::programs::loaded_programs;

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

/// `program "name" (id 7)`.
fn named(id: u32) -> String {
    let info = loaded_programs().flatten().find(|info| info.id() == id);
    match info.as_ref().and_then(|info| info.name_as_str()) {
        Some(name) if !name.is_empty() => format!("program `{name}` (id {id})"),
        _ => format!("the program with id {id}"),
    }
}
