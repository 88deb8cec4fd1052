//! The modules that a kernel needs for the testbed, each after those that it
//! depends on.
//!
//! Reads a kernel's module tree. Must never ask the tools of the running
//! kernel: they know only their own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// One module, ready to be loaded.
pub(super) struct Module {
    /// Its name, with underscores.
    pub(super) name: String,
    /// The object, unpacked.
    pub(super) object: Vec<u8>,
}

/// The modules `wanted` and all below them, in the order of loading; what is
/// built into the kernel needs none. `dir` is the kernel's `lib/modules/<release>`.
pub(super) fn gather(dir: &Path, wanted: &[&str]) -> Result<Vec<Module>> {
    let mut tree = Tree {
        files: BTreeMap::new(),
        // Some packages come without that list; then all is expected as a module.
        built_in: fs::read_to_string(dir.join("modules.builtin"))
            .unwrap_or_default()
            .lines()
            .filter_map(module_name)
            .collect(),
        seen: BTreeSet::new(),
        modules: Vec::new(),
    };
    tree.index(&dir.join("kernel"))?;
    for name in wanted {
        tree.add(name)?;
    }
    Ok(tree.modules)
}

struct Tree {
    files: BTreeMap<String, PathBuf>,
    built_in: BTreeSet<String>,
    seen: BTreeSet<String>,
    modules: Vec<Module>,
}

impl Tree {
    fn index(&mut self, dir: &Path) -> Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                self.index(&entry.path())?;
            } else if let Some(name) = entry.file_name().to_str().and_then(module_name) {
                self.files.insert(name, entry.path());
            }
        }
        Ok(())
    }

    /// A name is looked at once, so that this ends on any tree.
    fn add(&mut self, name: &str) -> Result<()> {
        if self.built_in.contains(name) || !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(file) = self.files.get(name) else {
            bail!("the kernel has no module {name}");
        };
        let object = read(file).with_context(|| format!("{} cannot be read", file.display()))?;
        for below in depends(&object) {
            self.add(&below)?;
        }
        let name = name.to_owned();
        self.modules.push(Module { name, object });
        Ok(())
    }
}

fn read(file: &Path) -> Result<Vec<u8>> {
    if file.extension().is_some_and(|extension| extension == "ko") {
        return Ok(fs::read(file)?);
    }
    let mut xz = Command::new("busybox");
    let output = xz
        .args(["xz", "-dc"])
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .context("busybox does not start")?;
    if !output.status.success() {
        bail!("busybox cannot unpack it ({})", output.status);
    }
    Ok(output.stdout)
}

/// The name of the module in a file such as `kernel/net/802/stp.ko.xz`; the
/// kernel takes `-` and `_` for the same.
fn module_name(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let name = file
        .strip_suffix(".xz")
        .unwrap_or(file)
        .strip_suffix(".ko")?;
    Some(name.replace('-', "_"))
}

/// The modules that must be loaded before this one: it says so itself, in a
/// list of texts that end with a NUL.
fn depends(object: &[u8]) -> Vec<String> {
    let text = object
        .split(|byte| *byte == 0)
        .find_map(|text| text.strip_prefix(b"depends="));
    let text = String::from_utf8_lossy(text.unwrap_or_default());
    let names = text.split(',').filter(|name| !name.is_empty());
    names.map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_depends_on() {
        assert_eq!(
            depends(b"\x7fELF\0license=GPL\0depends=stp,nf-x\0name=b\0"),
            ["stp", "nf_x"]
        );
        assert!(depends(b"\0depends=\0").is_empty());
        assert!(depends(b"xdepends=a\0").is_empty());
    }

    #[test]
    fn names_come_from_files() {
        assert_eq!(
            module_name("kernel/net/802/stp.ko.xz").as_deref(),
            Some("stp")
        );
        assert_eq!(module_name("br-x.ko").as_deref(), Some("br_x"));
        assert_eq!(module_name("modules.order"), None);
    }

    #[test]
    fn modules_come_after_what_they_depend_on() {
        let dir = tempfile::tempdir().unwrap();
        let net = dir.path().join("kernel/net");
        fs::create_dir_all(&net).unwrap();
        for (name, below) in [
            ("bridge", "stp,llc,core"),
            ("stp", "llc"),
            ("llc", ""),
            ("veth", ""),
        ] {
            let object = format!("\0depends={below}\0");
            fs::write(net.join(format!("{name}.ko")), object).unwrap();
        }
        fs::write(dir.path().join("modules.builtin"), "kernel/core.ko\n").unwrap();
        let modules = gather(dir.path(), &["bridge", "veth", "core"]).unwrap();
        let names: Vec<&str> = modules.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["llc", "stp", "bridge", "veth"]);
        let error = gather(dir.path(), &["dummy"]).err().unwrap();
        assert!(error.to_string().contains("dummy"), "{error}");
    }
}
