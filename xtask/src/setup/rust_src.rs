//! The standard library's source in the toolchain's sysroot: the kernel half
//! is built for a target that has no ready-made `core`.
//!
//! Owns that one directory of the sysroot. Must never leave half of it: the
//! directory that the build looks for appears last, by a rename.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::apt;
use crate::{process, workspace};

/// Debian's package of the same source, for where the toolchain's own server
/// cannot be reached.
const PACKAGE: Package = Package {
    toolchain: "1.95.0",
    path: "pool/main/r/rustc/rust-src_1.95.0+dfsg1-2~bpo13+1_all.deb",
    sha256: "7b76db5b880a77f9e52975d2baa6209d2f76d2c9c2789515c3088cb960e2c83b",
};
const RUSTUP_LIMIT: Duration = Duration::from_mins(2);
const DOWNLOAD_LIMIT: Duration = Duration::from_mins(3);
const UNPACK_LIMIT: Duration = Duration::from_mins(2);

struct Package {
    toolchain: &'static str,
    path: &'static str,
    sha256: &'static str,
}

/// Whether the source is there.
pub(crate) fn is_there(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core").is_dir()
}

/// Brings the source into the pinned toolchain: as rustup's component if
/// rustup gets it, else from Debian's package.
pub(crate) fn bring(sysroot: &Path) -> Result<()> {
    let Err(by_rustup) = add_component() else {
        return Ok(());
    };
    bring_packaged(sysroot).map_err(|by_package| {
        anyhow!(
            "rust-src can be had neither from rustup ({by_rustup:#}) nor from Debian \
             ({by_package:#}); with a network, `rustup component add rust-src` brings it"
        )
    })
}

fn add_component() -> Result<()> {
    let mut rustup = Command::new("rustup");
    rustup.current_dir(workspace::root());
    rustup.args(["component", "add", "rust-src"]);
    process::capture(&mut rustup, RUSTUP_LIMIT).map(drop)
}

/// Brings the source from Debian's package into any sysroot.
pub(crate) fn bring_packaged(sysroot: &Path) -> Result<()> {
    if !apt::is_there() {
        bail!("this machine has no apt");
    }
    let src = sysroot.join("lib/rustlib/src");
    fs::create_dir_all(&src)
        .with_context(|| format!("{} cannot be made; is it another user's?", src.display()))?;
    // On the sysroot's own file system, so that a rename is all that is left.
    let scratch = tempfile::Builder::new()
        .prefix(".rust-src-")
        .tempdir_in(&src)
        .with_context(|| format!("{} cannot be written to", src.display()))?;
    let deb = scratch.path().join("rust-src.deb");
    download(&deb)?;
    let unpacked = scratch.path().join("unpacked");
    let mut dpkg = Command::new("dpkg");
    process::capture(dpkg.arg("-x").arg(&deb).arg(&unpacked), UNPACK_LIMIT)?;
    install(&unpacked, &src.join("rust"))
}

fn download(deb: &Path) -> Result<()> {
    let mut last = anyhow!("no apt source of this machine holds Debian's `main`");
    for mirror in apt::mirrors()? {
        let uri = format!("{mirror}/{}", PACKAGE.path);
        match apt::download(&uri, deb, PACKAGE.sha256, DOWNLOAD_LIMIT) {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn install(unpacked: &Path, rust: &Path) -> Result<()> {
    let source = unpacked.join(format!("usr/src/rustc-{}", PACKAGE.toolchain));
    fs::create_dir_all(rust)?;
    for part in ["Cargo.lock", "library"] {
        fs::rename(source.join(part), rust.join(part))
            .with_context(|| format!("{} cannot be put into place", rust.join(part).display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_is_that_of_the_pinned_toolchain() {
        let pinned = fs::read_to_string(workspace::root().join("rust-toolchain.toml")).unwrap();
        assert!(pinned.contains(&format!("channel = \"{}\"", PACKAGE.toolchain)));
        assert!(PACKAGE.path.contains(PACKAGE.toolchain));
        assert_eq!(PACKAGE.sha256.len(), 64);
    }

    #[test]
    fn an_unpacked_package_becomes_the_library() {
        let scratch = tempfile::tempdir().unwrap();
        let unpacked = scratch.path().join("unpacked");
        let source = unpacked.join(format!("usr/src/rustc-{}", PACKAGE.toolchain));
        fs::create_dir_all(source.join("library/core")).unwrap();
        fs::write(source.join("Cargo.lock"), "").unwrap();
        assert!(!is_there(scratch.path()));
        install(&unpacked, &scratch.path().join("lib/rustlib/src/rust")).unwrap();
        assert!(is_there(scratch.path()));
    }
}
