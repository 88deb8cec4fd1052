//! The testbed: pods as network namespaces with cgroups, a node that holds
//! them, and the daemon under test.
//!
//! Owns everything that the privileged tests and the demo put on the machine,
//! and takes all of it away again: on drop, on panic, on SIGINT and SIGTERM,
//! and, for a run that was killed, at the start of the next one ([`sweep`]).
//! Must never send a packet outside the network namespaces that it made.
#![forbid(unsafe_code)]

pub mod agent;
pub mod app;
mod binaries;
mod cgroup;
pub mod conformance;
pub mod dice;
pub mod docs;
pub mod explained;
pub mod launch;
pub mod mesh;
mod mount;
mod names;
mod netns;
mod node;
mod note;
mod patience;
mod pod;
mod process;
pub mod programs;
mod sweep;
mod wait;
mod weir;

pub use agent::{Agent, Fault, Sock};
pub use binaries::{tool_binary, weir_binary};
pub use cgroup::{Cgroup, Controller};
pub use netns::Netns;
pub use node::{Network, Node};
pub use note::note;
pub use patience::patiently;
pub use pod::Pod;
pub use process::Proc;
pub use sweep::{cancelled, leftovers, leftovers_of, sweep};
pub use wait::{eventually, try_eventually};
pub use weir::{CliOutput, Metrics, Weir, WeirOptions};
