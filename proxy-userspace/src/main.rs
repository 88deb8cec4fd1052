//! The binary `weir`: the daemon and its command line.
use std::process::ExitCode;

/// Small, short-lived allocations are most of what a request costs in user
/// space, and what start-up freed should not count as memory in use.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    weir::cli::main()
}
