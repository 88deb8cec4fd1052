//! Which of several endpoints or routes is next, for requests; and the tables
//! by which the kernel picks endpoints for connections.
//!
//! Owns the order of picks and nothing else: what is picked, and the counter
//! that a pick advances, belong to the caller, so that a new configuration can
//! carry the counter over. Must never lock, allocate or loop in a pick: it runs
//! once per request on every worker at the same time.
mod alias;
mod blocks;
mod cycle;
mod places;
mod rotation;

pub use alias::Masses;
pub use blocks::{Blocks, GRACE, NoRoom};
pub use cycle::{Cycle, CycleError};
pub use places::{Places, Taker};
pub use rotation::Rotation;
