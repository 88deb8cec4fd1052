//! A few numbers outside the registers.
//!
//! The kernel's verifier walks every way through a loop on which a register
//! holds another constant: a search through sixteen places is soon a million
//! steps, and a kernel refuses more. Numbers that lie in a map it does not
//! follow, so that all ways through one turn of the loop are one again.

/// Room for [`CELLS`] numbers.
pub trait Cells {
    /// Puts `value` into a cell.
    fn put(&self, cell: usize, value: u64);
    /// What was put there last.
    fn get(&self, cell: usize) -> u64;
}

/// How many cells there are.
pub const CELLS: usize = 2;
