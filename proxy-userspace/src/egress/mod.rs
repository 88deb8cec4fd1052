//! Leaving the mesh: which names a rule stands for, and what they resolve to.
pub mod host;
pub mod names;
