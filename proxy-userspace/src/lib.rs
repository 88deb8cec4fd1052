//! weir: the node's daemon and its command line, as a library that the binary
//! and the tests share.
#![deny(unsafe_code)]

pub mod accelerate;
pub mod admin;
pub mod balance;
mod beside;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod diag;
pub mod egress;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod heart;
pub mod kernel;
pub mod node;
pub mod proxy;
mod report;
pub mod snapshot;
pub mod socket;
pub mod tables;
pub mod telemetry;

/// The kernel half, as built by `build.rs`.
pub static EBPF_OBJECT: &[u8] = aya::include_bytes_aligned!(env!("WEIR_EBPF_OBJECT"));
