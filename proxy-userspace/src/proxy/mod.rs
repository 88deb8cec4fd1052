//! The data plane.
pub mod detect;
