//! Builds the kernel half for the BPF target and leaves the object where
//! `kernel/` embeds it. Needs what `cargo xtask setup` brings: the source of
//! the standard library, and bpf-linker (`target/tools/bin` or the PATH).

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // Asked now, not when this was compiled: a build directory may be a copy.
    let manifest = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets the manifest's directory");
    let root = Path::new(&manifest)
        .parent()
        .expect("the crate lies in the workspace");
    for input in [
        "proxy-ebpf/src",
        "proxy-ebpf/Cargo.toml",
        "proxy-common/src",
        "Cargo.lock",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    let Some(linker_dir) = linker_dir(root) else {
        fail("bpf-linker is missing: run `cargo xtask setup`");
    };
    println!(
        "cargo::rerun-if-changed={}",
        linker_dir.join("bpf-linker").display()
    );
    if !sysroot().join("lib/rustlib/src/rust/library/core").is_dir() {
        fail("the standard library's source is missing: run `cargo xtask setup`");
    }
    let target = out.join("ebpf");
    let status = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"))
        .current_dir(root)
        .args([
            "build",
            "--locked",
            "--quiet",
            "--release",
            "--package",
            "proxy-ebpf",
            "--bin",
            "weir-ebpf",
        ])
        .args([
            "--target",
            "bpfel-unknown-none",
            "-Z",
            "build-std=core",
            "--target-dir",
        ])
        .arg(&target)
        // The pinned toolchain is a stable one; the BPF target needs `build-std`.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags())
        .env("PATH", path_with(&linker_dir))
        .env_remove("RUSTC")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("building proxy-ebpf failed ({status})")),
        Err(error) => fail(&format!("cargo does not start for proxy-ebpf: {error}")),
    }
    let object = target.join("bpfel-unknown-none/release/weir-ebpf");
    println!("cargo::rustc-env=WEIR_EBPF_OBJECT={}", object.display());
}

/// Flags of the BPF build: debug information becomes the BTF that the kernel wants.
fn rustflags() -> String {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets the target architecture");
    let cfg = format!("bpf_target_arch=\"{arch}\"");
    ["--cfg", &cfg, "-Cdebuginfo=2", "-Clink-arg=--btf"].join("\u{1f}")
}

/// Where bpf-linker lies: the project's own copy first, then the PATH.
fn linker_dir(root: &Path) -> Option<PathBuf> {
    let own = root.join("target/tools/bin");
    println!("cargo::rerun-if-env-changed=PATH");
    env::split_paths(&env::var_os("PATH").unwrap_or_default())
        .chain([own.clone()])
        .filter(|dir| dir.join("bpf-linker").is_file())
        .min_by_key(|dir| *dir != own)
}

fn path_with(dir: &Path) -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = std::iter::once(dir.to_path_buf()).chain(env::split_paths(&path));
    env::join_paths(dirs).expect("a directory of the PATH holds no separator")
}

fn sysroot() -> PathBuf {
    let rustc = env::var_os("RUSTC").expect("cargo sets RUSTC");
    let output = Command::new(rustc)
        .args(["--print", "sysroot"])
        .output()
        .expect("rustc runs");
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

fn fail(why: &str) -> ! {
    println!("cargo::error={why}");
    exit(1)
}
