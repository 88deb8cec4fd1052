//! From documents to objects: what the operator wrote, checked and typed.
//!
//! Text goes through [`parse`] into typed [`Object`]s, these into a set of
//! [`Objects`] that is checked as a whole, and a [`Store`] keeps what is in
//! force. Owns the meaning and the spelling of every kind. Must never touch
//! the kernel, the network or a running proxy.

mod check;
mod decode;
mod diff;
mod document;
mod encode;
mod index;
mod kind;
mod matching;
mod mistake;
mod name;
mod node;
pub mod object;
mod objects;
mod patch;
mod store;
mod transport;

pub use diff::{diff, to_yaml};
pub use document::{INPUT_MAX, Parsed, Source, parse, parse_value};
pub use encode::Document;
pub use index::{EgressSelector, Index, Owner};
pub use kind::{Kind, UnknownKind};
pub use mistake::{Mistake, Mistakes, Warning};
pub use object::{Object, ObjectName};
pub use objects::{Former, Objects};
pub use patch::{PatchError, PatchType, patch};
pub use store::{
    Author, Edit, Entry, EntryChange, HISTORY_MAX, Receipt, ResourceVersion, Stale, Store,
    StoreError, Versions,
};

#[cfg(test)]
mod properties;
