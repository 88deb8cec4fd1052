//! What the running kernel must offer: its version, BTF, cgroup v2, bpffs.
//!
//! Owns the sentences that say what is missing and what to do about it. The
//! only thing it may change is to mount a bpffs where there is none.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use nix::mount::{MsFlags, mount};

pub(crate) const OLDEST: (u32, u32) = (6, 1);
const RELEASE: &str = "/proc/sys/kernel/osrelease";
const BTF: &str = "/sys/kernel/btf/vmlinux";
const MOUNTINFO: &str = "/proc/self/mountinfo";
const BPFFS: &str = "/sys/fs/bpf";

/// An error unless the kernel is new enough and carries its own types.
pub(crate) fn check() -> Result<()> {
    let release = fs::read_to_string(RELEASE).with_context(|| format!("{RELEASE} is missing"))?;
    let release = release.trim();
    let version = version(release).ok_or_else(|| anyhow!("kernel release `{release}`?"))?;
    if version < OLDEST {
        bail!(
            "kernel {release} is older than {}.{}, the first that weir supports: boot a newer one",
            OLDEST.0,
            OLDEST.1
        );
    }
    if !Path::new(BTF).is_file() {
        bail!(
            "the kernel has no BTF ({BTF}): boot one built with CONFIG_DEBUG_INFO_BTF, \
             as distributions' are"
        );
    }
    Ok(())
}

/// Where cgroup v2 is mounted.
pub(crate) fn cgroup2() -> Result<PathBuf> {
    mounted("cgroup2")?.ok_or_else(|| {
        anyhow!(
            "cgroup v2 is mounted nowhere: as root, `mkdir -p /sys/fs/cgroup/unified && \
             mount -t cgroup2 none /sys/fs/cgroup/unified`"
        )
    })
}

/// Where a bpffs is mounted, if anywhere.
pub(crate) fn bpffs() -> Result<Option<PathBuf>> {
    mounted("bpf")
}

/// Mounts a bpffs at its usual place. Needs root.
pub(crate) fn mount_bpffs() -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), BPFFS, Some("bpf"), flags, Some("mode=0700")).with_context(|| {
        format!("{BPFFS} takes no bpffs: mount one elsewhere and give it to `weir run --bpffs`")
    })
}

fn mounted(kind: &str) -> Result<Option<PathBuf>> {
    let text = fs::read_to_string(MOUNTINFO).with_context(|| format!("{MOUNTINFO} is missing"))?;
    Ok(mount_point(&text, kind))
}

/// Major and minor number of a release such as `6.1.0-13-cloud-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let (major, rest) = release.split_once('.')?;
    let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The first mount point of a file system of this kind.
fn mount_point(mountinfo: &str, kind: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let point = before.split(' ').nth(4)?;
        let found = after.split(' ').next()? == kind;
        found.then(|| unescape(point).into())
    })
}

/// The kernel writes white space and backslashes in a path as `\ooo`.
fn unescape(path: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(path.to_owned(), |path, (code, text)| {
        path.replace(code, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_understood() {
        for (release, expected) in [
            ("6.1.0-13-cloud-amd64", Some((6, 1))),
            ("6.18.44-fc-v595", Some((6, 18))),
            ("5.15-generic", Some((5, 15))),
            ("10.0", Some((10, 0))),
            ("six", None),
            ("6.x", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
        assert!(version("5.19.0").unwrap() < OLDEST);
        assert!(version("6.1").unwrap() >= OLDEST);
        assert!(version("10.0").unwrap() >= OLDEST);
    }

    #[test]
    fn mount_points_are_found() {
        let text = "\
22 27 0:21 / /proc rw,relatime shared:12 - proc proc rw
30 23 0:26 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu
31 23 0:27 / /sys/fs/cgroup/my\\040own rw - cgroup2 cgroup2 rw
32 23 0:28 / /sys/fs/bpf rw shared:1 master:2 - bpf bpf rw,mode=700
";
        let point = |kind| mount_point(text, kind);
        assert_eq!(point("cgroup2"), Some("/sys/fs/cgroup/my own".into()));
        assert_eq!(point("bpf"), Some("/sys/fs/bpf".into()));
        assert_eq!(point("ext4"), None);
    }
}
