//! Names of what the testbed makes: each says which process it belongs to, so
//! that what a dead process left can be told from what a living one uses.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// Every namespace, cgroup and directory of the testbed begins like this.
const PREFIX: &str = "wtb-";

/// A name that no other node of any running process has: `wtb-<pid>-<n>`.
pub(crate) fn fresh() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{}-{n}", std::process::id())
}

/// The process that a name belongs to; `None` if it is no name of the testbed.
pub(crate) fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// Where nodes keep their files.
pub(crate) fn files_root() -> PathBuf {
    std::env::temp_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_owner() {
        assert_eq!(owner(&fresh()), Some(std::process::id()));
        assert_eq!(owner("wtb-12-3-client"), Some(12));
        assert_eq!(owner("cni-1234"), None);
        assert_eq!(owner("wtb-x-1"), None);
    }
}
