//! The node: its pods, and the data plane that an apply puts in force.

mod pod;

pub use pod::{Admission, CANARY_ADDR, CANARY_PORT, Enrolment, Pod, PodError};
