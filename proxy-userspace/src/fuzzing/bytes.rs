//! Values out of a fuzzer's bytes: as many as there are, then nothing.

use std::cell::Cell;

use aya::Pod;
use proxy_common::{CELLS, Cells};

use crate::kernel::record::raw;

/// What is left of an input.
pub struct Bytes<'a>(Cell<&'a [u8]>);

impl<'a> Bytes<'a> {
    /// All of it.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(Cell::new(bytes))
    }

    /// The next value, sound or not; `None`: there are not enough bytes left.
    pub fn value<T: Pod>(&self) -> Option<T> {
        let (head, rest) = self.0.get().split_at_checked(size_of::<T>())?;
        self.0.set(rest);
        raw(head)
    }

    /// The same, if the byte before it says so.
    pub fn maybe<T: Pod>(&self) -> Option<T> {
        (self.value::<u8>()? & 1 == 1).then(|| self.value())?
    }
}

/// Cells in plain memory.
#[derive(Default)]
pub struct Memory([Cell<u64>; CELLS]);

impl Cells for Memory {
    fn put(&self, cell: usize, value: u64) {
        self.0[cell].set(value);
    }

    fn get(&self, cell: usize) -> u64 {
        self.0[cell].get()
    }
}
