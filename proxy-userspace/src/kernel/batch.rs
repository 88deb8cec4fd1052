//! Many elements of a map in one call: to put, to remove and to read back.
//!
//! Owns the batch commands of bpf(2), which aya 0.14 has no form of. A full node
//! has hundreds of thousands of elements, and a system call costs more than an
//! element does. A batch is no transaction: the kernel takes one element after
//! the other, in order, each as atomic as if it came alone, and stops at the first
//! that fails; those before it stay. Must never be used to read a map that hooks
//! write to: what moves meanwhile may be met twice or not at all.

use std::io;
use std::os::fd::AsFd as _;

use aya::Pod;
use aya::maps::{Array, HashMap, IterableMap as _, MapData, MapError};
use aya::sys::SyscallError;
use nix::libc;

use super::link::field;

/// Elements in one call; measured: more of them make none cheaper.
const BATCH: usize = 256;

/// Commands of bpf(2), `enum bpf_cmd`; since Linux 5.6.
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_int = 26;
const BPF_MAP_DELETE_BATCH: libc::c_int = 27;

/// Where a reading stands, in words of the kernel: the number of the next bucket.
type Cursor = u64;

/// The `batch` arm of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Attr {
    /// Where to go on: a [`Cursor`], or 0 for the beginning.
    in_batch: u64,
    /// Where the kernel puts how far it got: a [`Cursor`].
    out_batch: u64,
    keys: u64,
    values: u64,
    /// Elements; afterwards those that were done.
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// A map whose elements are exactly the bytes of these types: aya compares the
/// sizes with the kernel's when it makes one of those below.
pub trait Batched {
    /// Of a key.
    type Key: Pod;
    /// Of a value.
    type Value: Pod;

    /// The map itself.
    fn data(&self) -> &MapData;
}

/// A map that keys come to and go from.
pub trait Keyed: Batched {}

impl<K: Pod, V: Pod> Batched for HashMap<MapData, K, V> {
    type Key = K;
    type Value = V;

    fn data(&self) -> &MapData {
        self.map()
    }
}

impl<K: Pod, V: Pod> Keyed for HashMap<MapData, K, V> {}

impl<V: Pod> Batched for Array<MapData, V> {
    type Key = u32;
    type Value = V;

    fn data(&self) -> &MapData {
        self.map()
    }
}

/// Puts elements, new or not, in this order. On an error those before the one
/// that failed are there: E2BIG says that the map is full.
pub fn put<M: Batched>(
    map: &mut M,
    elements: impl IntoIterator<Item = (M::Key, M::Value)>,
) -> Result<(), MapError> {
    let mut elements = elements.into_iter();
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    loop {
        keys.clear();
        values.clear();
        for (key, value) in elements.by_ref().take(BATCH) {
            keys.push(key);
            values.push(value);
        }
        if keys.is_empty() {
            return Ok(());
        }
        let mut attr = Attr {
            keys: keys.as_ptr() as u64,
            values: values.as_ptr() as u64,
            ..attr(map, keys.len())
        };
        // SAFETY: both vectors outlive the call and have `count` elements of
        // the sizes of the map's, which the kernel only reads.
        unsafe { bpf(BPF_MAP_UPDATE_BATCH, &mut attr) }.map_err(named("bpf_map_update_batch"))?;
    }
}

/// Removes elements, in this order. What is gone already has been removed.
pub fn remove<M: Keyed>(
    map: &mut M,
    keys: impl IntoIterator<Item = M::Key>,
) -> Result<(), MapError> {
    let mut all = keys.into_iter();
    loop {
        let keys: Vec<M::Key> = all.by_ref().take(BATCH).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let mut rest = keys.as_slice();
        while !rest.is_empty() {
            let mut attr = Attr {
                keys: rest.as_ptr() as u64,
                ..attr(map, rest.len())
            };
            // SAFETY: the slice outlives the call and has `count` elements of
            // the size of the map's keys, which the kernel only reads.
            match unsafe { bpf(BPF_MAP_DELETE_BATCH, &mut attr) } {
                Ok(()) => break,
                // The one after those that were done is not there: go on behind it.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                    rest = rest.get(attr.count as usize + 1..).unwrap_or_default();
                }
                Err(error) => return Err(named("bpf_map_delete_batch")(error)),
            }
        }
    }
}

/// All elements, in no order.
pub fn read<M: Keyed>(map: &M) -> Elements<'_, M> {
    Elements {
        map,
        keys: Vec::new(),
        values: Vec::new(),
        at: 0,
        room: BATCH,
        cursor: Box::default(),
        stage: Stage::Begin,
    }
}

/// What [`read`] reads. After an error it ends.
pub struct Elements<'a, M: Keyed> {
    map: &'a M,
    /// The present batch, and how much of it was handed on.
    keys: Vec<M::Key>,
    values: Vec<M::Value>,
    at: usize,
    /// Elements that a batch may have.
    room: usize,
    cursor: Box<Cursor>,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begin,
    Amid,
    End,
}

impl<M: Keyed> Elements<'_, M> {
    /// The next batch, in place of the present one.
    fn fill(&mut self) -> Result<(), MapError> {
        self.at = 0;
        self.keys.clear();
        self.values.clear();
        self.keys.reserve(self.room);
        self.values.reserve(self.room);
        let cursor = std::ptr::from_mut(&mut *self.cursor) as u64;
        let mut attr = Attr {
            in_batch: if self.stage == Stage::Begin {
                0
            } else {
                cursor
            },
            out_batch: cursor,
            keys: self.keys.as_mut_ptr() as u64,
            values: self.values.as_mut_ptr() as u64,
            ..attr(self.map, self.room)
        };
        // SAFETY: both vectors have room for `count` elements of the sizes of the
        // map's, and the cursor for the number of a bucket; all outlive the call,
        // and nobody else refers to them.
        let result = unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) };
        self.stage = Stage::Amid;
        match result.as_ref().map_err(io::Error::raw_os_error) {
            Ok(()) => {}
            Err(Some(libc::ENOENT)) => self.stage = Stage::End,
            // Of a hash map the kernel hands out whole buckets, and the next one
            // has more. None has more than the map, so this ends.
            Err(Some(libc::ENOSPC)) => {
                self.room *= 2;
                return Ok(());
            }
            Err(_) => return result.map_err(named("bpf_map_lookup_batch")),
        }
        let count = (attr.count as usize).min(self.room);
        // SAFETY: the kernel wrote `count` elements into each, all their bytes,
        // and any bytes are a `Pod`.
        unsafe {
            self.keys.set_len(count);
            self.values.set_len(count);
        }
        Ok(())
    }
}

impl<M: Keyed> Iterator for Elements<'_, M> {
    type Item = Result<(M::Key, M::Value), MapError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let (Some(key), Some(value)) = (self.keys.get(self.at), self.values.get(self.at)) {
                self.at += 1;
                return Some(Ok((*key, *value)));
            }
            if self.stage == Stage::End {
                return None;
            }
            if let Err(error) = self.fill() {
                self.stage = Stage::End;
                return Some(Err(error));
            }
        }
    }
}

fn attr(map: &impl Batched, count: usize) -> Attr {
    Attr {
        count: u32::try_from(count).expect("a batch is no larger than a map"),
        map_fd: field(map.data().fd().as_fd()),
        ..Attr::default()
    }
}

/// One bpf(2) call.
///
/// # Safety
/// What the command reads or writes by `attr` must be there for `count` elements
/// of the map, and of no Rust reference while it is written.
unsafe fn bpf(command: libc::c_int, attr: &mut Attr) -> io::Result<()> {
    // SAFETY: `attr` is live, of the stated size, and the arm of all three
    // commands; the rest is the caller's.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<Attr>(),
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// As aya tells of its calls.
fn named(call: &'static str) -> impl Fn(io::Error) -> MapError {
    move |io_error| SyscallError { call, io_error }.into()
}
