//! One `io_uring` with one multishot receive on it, for the self-test.
//!
//! Must never outlive the case that made it, nor be on anybody's path.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd as _, OwnedFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use nix::libc::{self, c_long, c_void};

const ENTRIES: u32 = 64;
const BUFFERS: usize = 64;
const BUFFER: usize = 2_048;

/// `enum io_uring_op`.
const OP_RECV: u8 = 27;
const OP_PROVIDE_BUFFERS: u8 = 31;
/// `IOSQE_BUFFER_SELECT`, `IORING_RECV_MULTISHOT` (Linux 6.0), `IORING_CQE_F_*`.
const BUFFER_SELECT: u8 = 1 << 5;
const MULTISHOT: u16 = 1 << 1;
const HAS_BUFFER: u32 = 1;
const BUFFER_SHIFT: u32 = 16;
/// `IORING_ENTER_GETEVENTS`.
const GETEVENTS: u32 = 1;
const SQES_AT: libc::off_t = 0x1000_0000;

#[repr(C)]
#[derive(Default)]
struct SqOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    flags: u32,
    dropped: u32,
    array: u32,
    resv: [u32; 3],
}

#[repr(C)]
#[derive(Default)]
struct CqOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    overflow: u32,
    cqes: u32,
    resv: [u32; 4],
}

#[repr(C)]
#[derive(Default)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread: [u32; 2],
    features: u32,
    wq_fd: u32,
    resv: [u32; 3],
    sq: SqOffsets,
    cq: CqOffsets,
}

/// `struct io_uring_sqe`, as far as it is used.
#[repr(C)]
#[derive(Default)]
struct Entry {
    opcode: u8,
    flags: u8,
    ioprio: u16,
    fd: i32,
    offset: u64,
    addr: u64,
    len: u32,
    op_flags: u32,
    user_data: u64,
    buffer_group: u16,
    personality: u16,
    rest: [u32; 5],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Completion {
    user_data: u64,
    result: i32,
    flags: u32,
}

/// A mapping of a ring's memory.
struct Mapping {
    at: *mut c_void,
    len: usize,
}

impl Mapping {
    fn new(ring: &OwnedFd, len: usize, offset: libc::off_t) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of the ring's own memory; nothing else has it.
        let at = unsafe {
            libc::mmap(
                null_mut(),
                len,
                access,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                ring.as_raw_fd(),
                offset,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { at, len })
    }

    fn word(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: the kernel says that a word of the ring lies there, aligned; it
        // and this thread alone change it, atomically.
        unsafe { AtomicU32::from_ptr(self.at.byte_add(offset as usize).cast()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing refers to it any more.
        unsafe { libc::munmap(self.at, self.len) };
    }
}

/// A multishot receive of one socket.
pub struct MultishotReceive {
    // The ring goes first: the kernel may write to the buffers until then.
    ring: OwnedFd,
    rings: Mapping,
    _entries: Mapping,
    params: Params,
    buffers: Box<[u8]>,
}

impl MultishotReceive {
    /// Begins to receive from `socket`.
    pub fn begin(socket: &impl AsFd) -> io::Result<Self> {
        let mut params = Params::default();
        // SAFETY: `params` is the kernel's structure and outlives the call.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, ENTRIES, &raw mut params) };
        let fd = i32::try_from(told(fd)?).map_err(io::Error::other)?;
        // SAFETY: the kernel just returned this descriptor to us alone.
        let ring = unsafe { OwnedFd::from_raw_fd(fd) };
        let array = params.sq.array as usize + params.sq_entries as usize * size_of::<u32>();
        let done = params.cq.cqes as usize + params.cq_entries as usize * size_of::<Completion>();
        let rings = Mapping::new(&ring, array.max(done), 0)?;
        let entries = Mapping::new(&ring, ENTRIES as usize * size_of::<Entry>(), SQES_AT)?;
        let buffers = vec![0; BUFFERS * BUFFER].into_boxed_slice();
        let provide = Entry {
            opcode: OP_PROVIDE_BUFFERS,
            fd: i32::try_from(BUFFERS).map_err(io::Error::other)?,
            addr: buffers.as_ptr() as u64,
            len: u32::try_from(BUFFER).map_err(io::Error::other)?,
            user_data: 1,
            ..Entry::default()
        };
        let receive = Entry {
            opcode: OP_RECV,
            flags: BUFFER_SELECT,
            ioprio: MULTISHOT,
            fd: socket.as_fd().as_raw_fd(),
            user_data: 2,
            ..Entry::default()
        };
        for (index, entry) in (0_u32..).zip([provide, receive]) {
            // SAFETY: both entries and the words of the array lie in their mappings;
            // the kernel looks at them only after the tail has moved.
            unsafe {
                entries.at.cast::<Entry>().add(index as usize).write(entry);
            }
            rings
                .word(params.sq.array + index * 4)
                .store(index, Ordering::Relaxed);
        }
        rings.word(params.sq.tail).store(2, Ordering::Release);
        let this = Self {
            ring,
            rings,
            _entries: entries,
            params,
            buffers,
        };
        this.enter(2, 1)?;
        Ok(this)
    }

    /// What arrived next; empty: the end. Waits for it.
    pub fn wait(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let head = self.rings.word(self.params.cq.head);
            let at = head.load(Ordering::Relaxed);
            if at == self.rings.word(self.params.cq.tail).load(Ordering::Acquire) {
                self.enter(0, 1)?;
                continue;
            }
            let mask = self
                .rings
                .word(self.params.cq.ring_mask)
                .load(Ordering::Relaxed);
            // SAFETY: the entry lies in the ring, and the kernel has filled it.
            let done = unsafe {
                let first = self.rings.at.byte_add(self.params.cq.cqes as usize);
                first.cast::<Completion>().add((at & mask) as usize).read()
            };
            head.store(at.wrapping_add(1), Ordering::Release);
            let Ok(len) = usize::try_from(done.result) else {
                return Err(io::Error::from_raw_os_error(-done.result));
            };
            if done.user_data != 2 {
                continue;
            }
            if done.flags & HAS_BUFFER == 0 {
                return Ok(Vec::new());
            }
            fence(Ordering::Acquire);
            let start = (done.flags >> BUFFER_SHIFT) as usize * BUFFER;
            return Ok(self.buffers[start..start + len].to_vec());
        }
    }

    fn enter(&self, submit: u32, wait: u32) -> io::Result<()> {
        // SAFETY: plain arguments and no signal mask.
        told(unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.ring.as_raw_fd(),
                submit,
                wait,
                GETEVENTS,
                null_mut::<c_void>(),
                0_usize,
            )
        })
        .map(drop)
    }
}

fn told(result: c_long) -> io::Result<c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
