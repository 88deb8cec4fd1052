//! `bpf_link` by hand: create, update, pin, open, look at.
//!
//! Owns the raw bpf(2) calls that aya 0.14 has no safe form of: replacing the
//! program behind a pinned cgroup link atomically. Must never keep a link
//! alive by accident: a [`Link`] that is neither pinned nor held detaches.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::libc;

use super::error::KernelError;

/// Commands of bpf(2), `enum bpf_cmd`.
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_DETACH: libc::c_int = 34;

/// Asks for what runs, not for what hangs there.
const BPF_F_QUERY_EFFECTIVE: u32 = 1;

/// Where on a cgroup a program runs: `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum AttachType {
    /// `BPF_CGROUP_SOCK_OPS`.
    SockOps = 3,
    /// `BPF_SK_MSG_VERDICT`: on a map of sockets, not on a cgroup.
    SkMsgVerdict = 7,
    /// `BPF_CGROUP_INET4_BIND`.
    Bind4 = 8,
    /// `BPF_CGROUP_INET6_BIND`.
    Bind6 = 9,
    /// `BPF_CGROUP_INET4_CONNECT`.
    Connect4 = 10,
    /// `BPF_CGROUP_INET6_CONNECT`.
    Connect6 = 11,
    /// `BPF_CGROUP_UDP4_SENDMSG`, Linux 4.18.
    Sendmsg4 = 14,
    /// `BPF_CGROUP_UDP6_SENDMSG`, Linux 4.18.
    Sendmsg6 = 15,
    /// `BPF_CGROUP_UDP4_RECVMSG`, Linux 5.2.
    Recvmsg4 = 19,
    /// `BPF_CGROUP_UDP6_RECVMSG`, Linux 5.2.
    Recvmsg6 = 20,
    /// `BPF_CGROUP_INET4_GETPEERNAME`, Linux 5.8.
    Getpeername4 = 29,
    /// `BPF_CGROUP_INET6_GETPEERNAME`, Linux 5.8.
    Getpeername6 = 30,
    /// `BPF_CGROUP_INET_SOCK_RELEASE`, Linux 5.9.
    SockRelease = 34,
}

/// A cgroup link: the attachment of one program to one cgroup.
#[derive(Debug)]
pub struct Link {
    fd: OwnedFd,
}

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// Id of the cgroup; 0 once that cgroup is gone.
    pub cgroup: u64,
    /// `enum bpf_attach_type`.
    pub attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct ObjPath {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoByFd {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The `query` arm, whole: the kernel writes to its end whatever size it is told.
#[repr(C)]
#[derive(Default)]
struct ProgQuery {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    pad: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// `struct bpf_link_info` up to the end of its cgroup arm.
#[repr(C)]
#[derive(Default)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
    pad: u32,
    cgroup_id: u64,
    attach_type: u32,
    pad2: u32,
}

/// One bpf(2) call. `attr` must be the command's arm of `union bpf_attr`.
fn bpf<T>(cmd: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is a live repr(C) value of the stated size; every pointer
    // in it was made from a reference that outlives the call.
    let ret =
        unsafe { libc::syscall(libc::SYS_bpf, cmd, std::ptr::from_mut(attr), size_of::<T>()) };
    if ret < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(ret)
    }
}

/// A descriptor as the 32-bit field that bpf(2) wants.
pub(super) fn field(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).expect("an open descriptor is never negative")
}

fn own(fd: libc::c_long) -> OwnedFd {
    let fd = i32::try_from(fd).expect("the kernel returns descriptors that fit an int");
    // SAFETY: the kernel just returned this descriptor to us alone.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}

impl Link {
    /// Attaches `program` to `cgroup`. Without flags the kernel allows several
    /// programs per hook (Linux 5.7).
    pub fn create(
        program: BorrowedFd<'_>,
        cgroup: BorrowedFd<'_>,
        at: AttachType,
    ) -> io::Result<Self> {
        let mut attr = LinkCreate {
            prog_fd: field(program),
            target_fd: field(cgroup),
            attach_type: at as u32,
            flags: 0,
        };
        bpf(BPF_LINK_CREATE, &mut attr).map(|fd| Self { fd: own(fd) })
    }

    /// Opens a pinned link.
    pub fn open(pin: &Path) -> io::Result<Self> {
        let path = c_path(pin)?;
        let mut attr = ObjPath {
            pathname: path.as_ptr() as u64,
            ..ObjPath::default()
        };
        bpf(BPF_OBJ_GET, &mut attr).map(|fd| Self { fd: own(fd) })
    }

    /// Puts another program in place of the present one; no connect falls
    /// between. ENOLINK: the cgroup is gone.
    pub fn update(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        let mut attr = LinkUpdate {
            link_fd: field(self.fd.as_fd()),
            new_prog_fd: field(program),
            ..LinkUpdate::default()
        };
        bpf(BPF_LINK_UPDATE, &mut attr).map(drop)
    }

    /// Takes the program off its cgroup, at once: a pin that goes does that
    /// only when the kernel gets to it.
    pub fn detach(&self) -> io::Result<()> {
        // The first word of the arm is all of it.
        let mut attr = [field(self.fd.as_fd()), 0];
        bpf(BPF_LINK_DETACH, &mut attr).map(drop)
    }

    /// Pins the link, so that it outlives this process.
    pub fn pin(&self, pin: &Path) -> io::Result<()> {
        let path = c_path(pin)?;
        let mut attr = ObjPath {
            pathname: path.as_ptr() as u64,
            bpf_fd: field(self.fd.as_fd()),
            file_flags: 0,
        };
        bpf(BPF_OBJ_PIN, &mut attr).map(drop)
    }

    /// Where the link is attached.
    pub fn info(&self) -> io::Result<LinkInfo> {
        let mut info = RawLinkInfo::default();
        let mut attr = InfoByFd {
            bpf_fd: field(self.fd.as_fd()),
            info_len: u32::try_from(size_of::<RawLinkInfo>()).expect("a few dozen bytes"),
            info: std::ptr::from_mut(&mut info) as u64,
        };
        bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
        Ok(LinkInfo {
            cgroup: info.cgroup_id,
            attach_type: info.attach_type,
        })
    }
}

/// The programs on one hook of one cgroup.
#[derive(Debug)]
pub struct Attached {
    /// `BPF_F_ALLOW_*`.
    pub flags: u32,
    /// Their ids.
    pub programs: Vec<u32>,
}

impl Attached {
    /// Programs that the kernel lets one hook of a cgroup have.
    const MAX: usize = 64;

    /// Those on `cgroup` itself.
    pub fn to(cgroup: BorrowedFd<'_>, at: AttachType) -> io::Result<Self> {
        Self::query(cgroup, at, 0)
    }

    /// Those that run in `cgroup`, wherever they hang; the flags are not told.
    pub fn in_force(cgroup: BorrowedFd<'_>, at: AttachType) -> io::Result<Self> {
        Self::query(cgroup, at, BPF_F_QUERY_EFFECTIVE)
    }

    fn query(cgroup: BorrowedFd<'_>, at: AttachType, query_flags: u32) -> io::Result<Self> {
        let mut ids = [0_u32; Self::MAX];
        let mut attr = ProgQuery {
            target_fd: field(cgroup),
            attach_type: at as u32,
            query_flags,
            prog_ids: ids.as_mut_ptr() as u64,
            prog_cnt: u32::try_from(Self::MAX).expect("a small number"),
            ..ProgQuery::default()
        };
        bpf(BPF_PROG_QUERY, &mut attr)?;
        let count = (attr.prog_cnt as usize).min(Self::MAX);
        Ok(Self {
            flags: attr.attach_flags,
            programs: ids[..count].to_vec(),
        })
    }
}

/// The arm of `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C)]
#[derive(Default)]
struct ProgAttach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

fn on_map(
    cmd: libc::c_int,
    program: BorrowedFd<'_>,
    map: BorrowedFd<'_>,
) -> io::Result<libc::c_long> {
    let mut attr = ProgAttach {
        target_fd: field(map),
        attach_bpf_fd: field(program),
        attach_type: AttachType::SkMsgVerdict as u32,
        attach_flags: 0,
    };
    bpf(cmd, &mut attr)
}

/// Makes `program` the one that runs on what sockets of `map` send, in place of
/// any other. Without a link: it stays as long as the map does (Linux 4.18).
pub fn attach_to_map(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<()> {
    on_map(BPF_PROG_ATTACH, program, map).map(drop)
}

/// Takes `program` off `map`; sockets that are in it keep it.
pub fn detach_from_map(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<()> {
    on_map(BPF_PROG_DETACH, program, map).map(drop)
}

/// Makes the pinned link at `pin` run `program` on `cgroup` (whose id is
/// `cgroup_id`): replaced in place if it is ours and sits there, else anew.
pub fn ensure(
    pin: &Path,
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    cgroup_id: u64,
    at: AttachType,
) -> Result<(), KernelError> {
    let named = |call| move |source| KernelError::call(call, pin.display().to_string(), source);
    if pin.exists() {
        let link = Link::open(pin).map_err(named("BPF_OBJ_GET"))?;
        let info = link.info().map_err(named("BPF_OBJ_GET_INFO_BY_FD"))?;
        // The kernel accepts a connect6 program on a connect4 link: the attach
        // type is ours to check.
        if info
            == (LinkInfo {
                cgroup: cgroup_id,
                attach_type: at as u32,
            })
        {
            match link.update(program) {
                Ok(()) => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {}
                Err(error) => return Err(named("BPF_LINK_UPDATE")(error)),
            }
        }
    }
    let link = Link::create(program, cgroup, at).map_err(named("BPF_LINK_CREATE"))?;
    if pin.exists() {
        // Attached first, so that nothing is unguarded while the old pin goes.
        std::fs::remove_file(pin).map_err(named("unlink"))?;
    }
    link.pin(pin).map_err(named("BPF_OBJ_PIN"))
}
