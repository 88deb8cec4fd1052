//! What holds for any bytes at all: the fuzz targets.
//!
//! Everything that reads bytes which somebody else made is here, one function a
//! target: it refuses them or takes them, never panics, and what it takes keeps
//! its word. `fuzz/` runs these under a fuzzer; the test below runs them in
//! every test run, on what `fuzz/seeds` holds, on damage to that, and on noise.
//! Must never be part of the daemon, nor know more of a decoder than its caller.
#![expect(
    clippy::missing_panics_doc,
    reason = "a panic is how a target tells what it found"
)]

mod bytes;
mod config;
mod http;
mod kernel;
mod tables;

pub use config::{documents, patches};
pub use http::{first_bytes, request_head, trace_headers};
pub use kernel::{btf, events, map_values, netlink, proc_files};
pub use tables::decisions;

/// A target.
pub type Target = (&'static str, fn(&[u8]));

/// Every target with its name, which is that of its binary and of its seeds.
pub const TARGETS: [Target; 11] = [
    ("btf", btf),
    ("decisions", decisions),
    ("documents", documents),
    ("events", events),
    ("first_bytes", first_bytes),
    ("map_values", map_values),
    ("netlink", netlink),
    ("patches", patches),
    ("proc_files", proc_files),
    ("request_head", request_head),
    ("trace_headers", trace_headers),
];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    use super::*;

    const ROUNDS: u32 = 400;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
    }

    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let dir = root().join("seeds").join(target);
        let files = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
        paths.sort();
        paths.iter().map(|path| fs::read(path).unwrap()).collect()
    }

    /// The same inputs in every run: a red run says something about the change.
    fn runner() -> TestRunner {
        let config = Config {
            cases: ROUNDS,
            failure_persistence: None,
            ..Config::default()
        };
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
    }

    #[test]
    fn every_target_has_a_binary_and_seeds() {
        let mut binaries: Vec<String> = fs::read_dir(root().join("fuzz_targets"))
            .unwrap()
            .map(|file| {
                file.unwrap()
                    .path()
                    .file_stem()
                    .unwrap()
                    .to_string_lossy()
                    .into()
            })
            .collect();
        binaries.sort();
        assert_eq!(binaries, TARGETS.map(|(name, _)| name));
        for (name, _) in TARGETS {
            assert!(!seeds(name).is_empty(), "{name}");
        }
    }

    #[test]
    fn seeds_and_what_is_left_of_them_are_taken_or_refused() {
        for (name, target) in TARGETS {
            for seed in seeds(name) {
                let step = (seed.len() / 64).max(1);
                (0..seed.len())
                    .step_by(step)
                    .for_each(|end| target(&seed[..end]));
                target(&seed);
            }
        }
    }

    #[test]
    fn damaged_seeds_are_taken_or_refused() {
        for (name, target) in TARGETS {
            let seeds = seeds(name);
            let damage = vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
            let damaged = (prop::sample::select(seeds), damage);
            let ran = runner().run(&damaged, |(mut bytes, damage)| {
                for (at, byte) in damage {
                    let len = bytes.len();
                    bytes[at.index(len)] = byte;
                }
                target(&bytes);
                Ok(())
            });
            ran.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    #[test]
    fn noise_is_taken_or_refused() {
        for (name, target) in TARGETS {
            let ran = runner().run(&vec(any::<u8>(), 0..512), |bytes| {
                target(&bytes);
                Ok(())
            });
            ran.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}
