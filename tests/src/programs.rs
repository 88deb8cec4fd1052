//! Which BPF programs a process holds.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};

/// The ids of the programs that `process` has descriptors of.
pub fn held_by(process: u32) -> Result<BTreeSet<u32>> {
    let dir = format!("/proc/{process}/fdinfo");
    let mut ids = BTreeSet::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("{dir} cannot be read"))? {
        // A descriptor may be closed between the two.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        ids.extend(id(&text));
    }
    Ok(ids)
}

fn id(fdinfo: &str) -> Option<u32> {
    let line = fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("prog_id:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_of_programs_are_told_from_others() {
        assert_eq!(id("pos:\t0\nprog_type:\t18\nprog_id:\t42\n"), Some(42));
        assert_eq!(id("pos:\t0\nmap_id:\t42\n"), None);
    }
}
