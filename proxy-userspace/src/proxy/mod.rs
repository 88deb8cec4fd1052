//! The proxy: from an accepted connection to its end.
//!
//! Thread per core. `worker` owns a core's runtime, `connection` is one
//! connection's life, top-down; the other files are the steps it takes. Must
//! never share anything between workers on the hot path but the snapshot.

mod answer;
mod body;
mod client;
mod connection;
pub mod detect;
mod forward;
pub(crate) mod framing;
mod hops;
mod http;
mod linger;
mod pool;
mod pump;
mod record;
#[cfg(feature = "redirect")]
pub mod redirect;
mod sniff;
mod upgrade;
mod upstream;
mod wire;
mod worker;

pub use worker::{Command, Shared, Worker, WorkerHandle};
