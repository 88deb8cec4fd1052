//! An agent: a process inside a pod that does what a test asks for.
//!
//! Sockets belong to the cgroup and the namespace of the process that makes
//! them, so a test cannot open a pod's socket itself. It sends requests, one
//! JSON document a line, to the agent's standard input and reads the answers
//! from its output. A test keeps the script of what happens, the agent only
//! makes the calls.

mod client;
mod datagram;
mod fault;
mod hammer;
mod http;
mod load;
pub mod proto;
mod serve;
mod server;
mod sockets;
mod storm;

pub use client::{Agent, Sock};
pub use proto::{BulkReport, Fault, HttpReply, HttpRequest, Load, LoadReport, StormReply};
pub use server::run;
