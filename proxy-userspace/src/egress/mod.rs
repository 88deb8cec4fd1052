//! Which external destinations a workload may reach.
//!
//! Owns the union of the rules (`policy`, compiled for the kernel) and the names
//! that only the proxy can check (`host`, `names`). Must never open what no rule
//! names.

pub mod host;
pub mod names;
pub mod policy;
