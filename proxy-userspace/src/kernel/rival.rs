//! Whether weir's hooks run where they should, and programs of others on them: which
//! of them forbids ours.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use aya::programs::loaded_programs;

use super::Kernel;
use super::cgroup::Cgroup;
use super::hooks::HOOKS;
use super::link::{AttachType, Attached};

/// `BPF_F_ALLOW_MULTI`: others may attach too, here and below.
const ALLOW_MULTI: u32 = 2;

/// How many programs of others are told of in one line.
const TOLD_IN_LINE: usize = 3;

/// A program of somebody else on a hook that weir uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// Its id.
    pub id: u32,
    /// Its name; empty, if it has none or is gone by now.
    pub name: String,
    /// What weir calls the hook.
    pub hook: &'static str,
    /// The cgroup that it hangs on.
    pub cgroup: PathBuf,
}

impl fmt::Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (program, at) = (described(self.id, &self.name), self.cgroup.display());
        write!(f, "{program} on {} of {at}", self.hook)
    }
}

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
            Some(true) => {
                let others = line(&self.others([cgroup]));
                format!("weir's hooks run in its cgroup{others}")
            }
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

    /// Programs of others on weir's hooks, on any of `cgroups`, on that of the hooks or
    /// above: what else has a say in these.
    pub fn others<'a>(&'a self, cgroups: impl IntoIterator<Item = &'a Cgroup>) -> Vec<Other> {
        let programs = self.ebpf.programs().map(|(_, program)| program);
        let own: BTreeSet<u32> = programs
            .filter_map(|program| Some(program.info().ok()?.id()))
            .collect();
        let (mut others, mut seen) = (Vec::new(), BTreeSet::new());
        for cgroup in [&self.cgroup].into_iter().chain(cgroups) {
            for path in cgroup.path().ancestors() {
                // What is above it was seen with it.
                if !seen.insert(path) {
                    break;
                }
                let Ok(cgroup) = Cgroup::open(path) else {
                    // Above the mount point, or gone.
                    break;
                };
                others.extend(on(&cgroup).filter(|other| !own.contains(&other.id)));
            }
        }
        name(&mut others);
        others
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

/// All that hangs on weir's hooks of one cgroup, without names.
fn on(cgroup: &Cgroup) -> impl Iterator<Item = Other> {
    HOOKS.into_iter().flat_map(move |(_, at, hook)| {
        let attached = Attached::to(cgroup.as_fd(), at);
        let programs = attached.map(|attached| attached.programs);
        let programs = programs.unwrap_or_default().into_iter();
        programs.map(move |id| Other {
            id,
            name: String::new(),
            hook,
            cgroup: cgroup.path().into(),
        })
    })
}

/// Looks up what they are called, if there is anybody.
fn name(others: &mut [Other]) {
    if others.is_empty() {
        return;
    }
    let programs = loaded_programs().flatten();
    let names: BTreeMap<u32, String> = programs
        .filter_map(|info| Some((info.id(), info.name_as_str()?.to_owned())))
        .collect();
    for other in others {
        other.name = names.get(&other.id).cloned().unwrap_or_default();
    }
}

/// What follows on "weir's hooks run": who else does.
fn line(others: &[Other]) -> String {
    let (told, more) = others.split_at(others.len().min(TOLD_IN_LINE));
    let mut told: Vec<String> = told.iter().map(ToString::to_string).collect();
    if !more.is_empty() {
        told.push(format!("{} more, as `weir status` says", more.len()));
    }
    if told.is_empty() {
        String::new()
    } else {
        format!(", and so may {}", told.join(", "))
    }
}

/// A program by its id.
fn named(id: u32) -> String {
    let info = loaded_programs().flatten().find(|info| info.id() == id);
    let name = info.as_ref().and_then(|info| info.name_as_str());
    described(id, name.unwrap_or_default())
}

/// ``program `name` (id 7)``.
fn described(id: u32, name: &str) -> String {
    if name.is_empty() {
        format!("the program with id {id}")
    } else {
        format!("program `{name}` (id {id})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_does_not_grow_with_the_others() {
        let other = |id| Other {
            id,
            name: if id == 1 { "lb".into() } else { String::new() },
            hook: "connect4",
            cgroup: "/c".into(),
        };
        let others: Vec<Other> = (1..=9).map(other).collect();
        assert_eq!(line(&[]), "");
        assert_eq!(
            line(&others[..1]),
            ", and so may program `lb` (id 1) on connect4 of /c"
        );
        let last = "the program with id 3 on connect4 of /c, 6 more, as `weir status` says";
        assert!(line(&others).ends_with(last), "{}", line(&others));
    }
}
