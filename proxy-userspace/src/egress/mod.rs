//! Which external destinations a workload may reach.
pub mod policy;
