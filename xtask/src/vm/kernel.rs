//! The kernels: Debian's packages of them, unpacked below `target/vm/kernels`.
//!
//! Owns that directory. Must never install a kernel, and must never leave half
//! of one: its directory appears last, by a rename.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use super::modules::{self, Module};
use crate::setup::apt::{self, Suite};
use crate::workspace;

/// The flavour that is small and made for virtual machines.
const FLAVOUR: &str = "cloud-amd64";
/// Names the package inside an unpacked kernel's directory.
const LABEL: &str = "package";
/// What the testbed's networks are made of; what a kernel loads by itself where
/// there is somebody to ask, for ending sockets; and kTLS, which acceleration
/// is tried with.
const MODULES: [&str; 5] = ["bridge", "veth", "tcp_diag", "udp_diag", "tls"];

/// A kernel to try, and the release of Debian that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kernel {
    /// Major and minor number.
    pub(super) version: &'static str,
    suite: &'static str,
}

/// The oldest that weir promises to run on, the long-term one between, and the newest.
pub(super) const KERNELS: [Kernel; 3] = [
    Kernel {
        version: "6.1",
        suite: "bookworm",
    },
    Kernel {
        version: "6.12",
        suite: "trixie",
    },
    Kernel {
        version: "7.2",
        suite: "forky",
    },
];

/// A kernel that is there to be booted.
pub(super) struct Unpacked {
    /// The package's version, as `6.1.176-1`.
    pub(super) package: String,
    /// What QEMU boots.
    pub(super) image: PathBuf,
    /// What has to be loaded, in this order.
    pub(super) modules: Vec<Module>,
}

impl Kernel {
    /// The newest package of this kernel, unpacked; what was unpacked before is kept.
    pub(super) fn bring(self) -> Result<Unpacked> {
        let dir = directory().join(self.version);
        if !dir.join(LABEL).is_file() {
            self.unpack(&dir).with_context(|| {
                format!(
                    "Linux {} of Debian {} cannot be had",
                    self.version, self.suite
                )
            })?;
        }
        open(&dir).with_context(|| {
            let dir = dir.display();
            format!("{dir} is damaged: remove it, and the kernel is fetched again")
        })
    }

    fn unpack(self, dir: &Path) -> Result<()> {
        println!(
            "vm: Linux {}: missing, is being fetched from Debian {}",
            self.version, self.suite
        );
        fs::create_dir_all(directory())?;
        let scratch = tempfile::Builder::new()
            .prefix(".kernel-")
            .tempdir_in(directory())?;
        let suite = Suite::read(self.suite, &scratch.path().join("apt"))?;
        let found = suite.names(&self.pattern())?;
        let image = newest(&found).ok_or_else(|| {
            anyhow!(
                "it has no package {}: xtask/src/vm/kernel.rs asks for it",
                self.pattern()
            )
        })?;
        let mut packages = vec![image.to_owned()];
        // Newer ones are split in parts.
        packages.extend(parts(suite.depends(image)?));
        let [debs, root] = ["debs", "root"].map(|name| scratch.path().join(name));
        fs::create_dir(&debs)?;
        suite.download(&packages, &debs)?;
        let mut version = None;
        for entry in fs::read_dir(&debs)? {
            let deb = entry?.path();
            apt::unpack(&deb, &root)?;
            version = version.or_else(|| package_version(deb.file_name()?.to_str()?));
        }
        let version = version.ok_or_else(|| anyhow!("its package has no version"))?;
        fs::write(root.join(LABEL), version)?;
        // A damaged one may lie there.
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        fs::rename(&root, dir).context("it cannot be put into place")
    }

    fn pattern(self) -> String {
        format!(
            r"^linux-image-{}\..*-{FLAVOUR}$",
            self.version.replace('.', r"\.")
        )
    }
}

fn directory() -> PathBuf {
    workspace::root().join("target/vm/kernels")
}

fn open(dir: &Path) -> Result<Unpacked> {
    let package = fs::read_to_string(dir.join(LABEL))?;
    let libraries = ["lib/modules", "usr/lib/modules"].map(|path| dir.join(path));
    let Some(release) = libraries.iter().find_map(|path| only_entry(path)) else {
        bail!("it has no modules");
    };
    // Beside the modules since 7.x, in `boot` before.
    let image = [release.join("vmlinuz")]
        .into_iter()
        .chain(begins_with(&dir.join("boot"), "vmlinuz"))
        .find(|path| path.is_file())
        .ok_or_else(|| anyhow!("it has no image to boot"))?;
    let modules = modules::gather(&release, &MODULES)?;
    Ok(Unpacked {
        package,
        image,
        modules,
    })
}

fn only_entry(dir: &Path) -> Option<PathBuf> {
    Some(fs::read_dir(dir).ok()?.next()?.ok()?.path())
}

fn begins_with(dir: &Path, prefix: &str) -> Option<PathBuf> {
    let mut entries = fs::read_dir(dir).ok()?.filter_map(Result::ok);
    let entry = entries.find(|entry| entry.file_name().to_string_lossy().starts_with(prefix))?;
    Some(entry.path())
}

/// The newest of several packages: names that differ only in their numbers.
fn newest(names: &[String]) -> Option<&str> {
    let newest = names.iter().max_by_key(|name| numbers(name))?;
    Some(newest)
}

fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

/// The packages that hold a part of the kernel, among those that an image depends on.
fn parts(depends: Vec<String>) -> impl Iterator<Item = String> {
    depends.into_iter().filter(|name| {
        ["linux-binary-", "linux-modules-"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    })
}

/// From a file name, `name_version_architecture.deb`.
fn package_version(file: &str) -> Option<String> {
    file.split('_').nth(1).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::kernel::OLDEST;

    #[test]
    fn the_oldest_kernel_is_the_one_that_is_promised() {
        let promised = format!("{}.{}", OLDEST.0, OLDEST.1);
        assert_eq!(KERNELS[0].version, promised);
        let readme = fs::read_to_string(workspace::root().join("README.md")).unwrap();
        assert!(readme.contains(&format!("Linux {promised} or newer")));
    }

    #[test]
    fn the_newest_package_is_taken() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-50-cloud-amd64",
        ];
        assert_eq!(newest(&names.map(str::to_owned)), Some(names[1]));
        let names = [
            "linux-image-6.12.117+deb13-cloud-amd64",
            "linux-image-6.12.9+deb13-cloud-amd64",
        ];
        assert_eq!(newest(&names.map(str::to_owned)), Some(names[0]));
        assert_eq!(newest(&[]), None);
        assert_eq!(KERNELS[0].pattern(), r"^linux-image-6\.1\..*-cloud-amd64$");
    }

    #[test]
    fn packages_are_understood() {
        let file = "linux-image-6.1.0-50-cloud-amd64_6.1.176-1_amd64.deb";
        assert_eq!(package_version(file).as_deref(), Some("6.1.176-1"));
        let depends = [
            "dracut",
            "|",
            "linux-base-7",
            "linux-binary-7",
            "(=",
            "linux-modules-7",
        ];
        let parts: Vec<String> = parts(depends.map(str::to_owned).into()).collect();
        assert_eq!(parts, ["linux-binary-7", "linux-modules-7"]);
    }
}
