//! Cargo-installed tools below `target/tools`, each pinned to one version.
//!
//! Owns that directory. Must never install anything for the whole machine.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::{process, workspace};

const INSTALL_LIMIT: Duration = Duration::from_mins(20);
const ASK_LIMIT: Duration = Duration::from_secs(20);

/// A tool that cargo builds from its source.
pub(crate) struct Tool {
    /// The crate, which is also the command.
    pub(crate) name: &'static str,
    /// The one version that is used.
    pub(crate) version: &'static str,
    /// What it is for.
    pub(crate) why: &'static str,
}

/// Links the kernel half. Its version is bound to the toolchain's: it borrows
/// rustc's own LLVM.
pub(crate) const BPF_LINKER: Tool = Tool {
    name: "bpf-linker",
    version: "0.10.4",
    why: "it links the kernel half (a minute or two)",
};

/// Looks through the dependencies' licences and sources.
pub(crate) const CARGO_DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    why: "it checks the dependencies' licences, sources and advisories (a few minutes)",
};

impl Tool {
    /// The command, if the right version is below `target/tools` or on the PATH.
    pub(crate) fn find(&self) -> Option<PathBuf> {
        let tools = workspace::tools();
        let own = tools.join("bin").join(self.name);
        let list = fs::read_to_string(tools.join(".crates.toml")).unwrap_or_default();
        if own.is_file() && self.is_listed(&list) {
            return Some(own);
        }
        env::split_paths(&env::var_os("PATH")?)
            .map(|dir| dir.join(self.name))
            .find(|file| file.is_file() && self.answers(file))
    }

    /// Builds and installs it below `target/tools`.
    pub(crate) fn bring(&self) -> Result<()> {
        let mut cargo = workspace::cargo();
        cargo.args(["install", "--quiet", "--locked", "--force", "--root"]);
        cargo.arg(workspace::tools());
        cargo.arg(format!("{}@{}", self.name, self.version));
        process::capture(&mut cargo, INSTALL_LIMIT)
            .map(drop)
            .with_context(|| {
                format!(
                    "{} {} cannot be installed; cargo must be able to reach its registry",
                    self.name, self.version
                )
            })
    }

    /// Whether cargo's list of what it installed names this version.
    fn is_listed(&self, list: &str) -> bool {
        list.contains(&format!("\"{} {} ", self.name, self.version))
    }

    fn answers(&self, file: &Path) -> bool {
        let said = process::capture(Command::new(file).arg("--version"), ASK_LIMIT);
        said.is_ok_and(|said| said.trim().ends_with(&format!(" {}", self.version)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pinned_version_counts() {
        let list = "[v1]\n\"bpf-linker 0.10.4 (registry+somewhere)\" = [\"bpf-linker\"]\n";
        assert!(BPF_LINKER.is_listed(list));
        assert!(!BPF_LINKER.is_listed(&list.replace("0.10.4", "0.10.40")));
        assert!(!CARGO_DENY.is_listed(list));
    }
}
