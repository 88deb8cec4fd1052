//! From documents to objects: what the operator wrote, checked and typed.
pub mod object;
