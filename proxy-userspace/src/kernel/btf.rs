//! Where one member lies in one structure of the running kernel, from the
//! kernel's own type information.
//!
//! Read once, front to back, and let go of: parsed into objects it would take
//! tens of megabytes. Must never guess: a structure or member that is not there
//! is an error.

use std::fs;
use std::path::Path;

use super::error::KernelError;

/// The kernel's type information.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// First bytes of it, in the machine's byte order.
const MAGIC: u16 = 0xeb9f;

/// `BTF_KIND_STRUCT`.
const STRUCT: u32 = 4;

/// Byte offset of `member` in `struct name`.
pub fn member_offset(name: &str, member: &str) -> Result<u32, KernelError> {
    let bytes =
        fs::read(Path::new(VMLINUX)).map_err(|error| KernelError::call("read", VMLINUX, error))?;
    find(&bytes, name, member).ok_or_else(|| {
        KernelError::Load(format!(
            "{VMLINUX} tells no place of {member} in struct {name}"
        ))
    })
}

pub(crate) fn find(bytes: &[u8], name: &str, member: &str) -> Option<u32> {
    let magic = bytes.get(..2)?.try_into().ok().map(u16::from_ne_bytes)?;
    let header = |index: usize| word(bytes, 4 + index * 4).map(|value| value as usize);
    let [start, type_at, type_len, string_at, string_len] =
        [header(0)?, header(1)?, header(2)?, header(3)?, header(4)?];
    let types = bytes.get(start + type_at..)?.get(..type_len)?;
    let strings = bytes.get(start + string_at..)?.get(..string_len)?;
    if magic != MAGIC {
        return None;
    }
    let mut at = 0;
    while at < types.len() {
        let (named, info) = (word(types, at)?, word(types, at + 4)?);
        let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
        if kind == STRUCT && is(strings, named, name) {
            // With the flag a member's word holds a bit-field's size too.
            let mask = if info >> 31 == 1 {
                0x00ff_ffff
            } else {
                u32::MAX
            };
            let mut members = (0..count).map(|index| at + 12 + index * 12);
            return members.find_map(|at| {
                is(strings, word(types, at)?, member)
                    .then(|| word(types, at + 8).map(|bits| (bits & mask) / 8))?
            });
        }
        at += 12 + tail(kind, count)?;
    }
    None
}

/// Bytes that follow the common part of a type; `None`: no kind that is known.
fn tail(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        // Pointers, forwards, typedefs, qualifiers, functions, floats, type tags.
        2 | 7..=12 | 16 | 18 => 0,
        // Integers, variables, declaration tags.
        1 | 14 | 17 => 4,
        // Arrays.
        3 => 12,
        // Structures, unions, sections, wide enumerations.
        4 | 5 | 15 | 19 => count * 12,
        // Enumerations, prototypes.
        6 | 13 => count * 8,
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

/// Whether the string at `at` is `text`.
fn is(strings: &[u8], at: u32, text: &str) -> bool {
    let rest = strings.get(at as usize..).unwrap_or_default();
    rest.strip_prefix(text.as_bytes())
        .is_some_and(|rest| rest.first() == Some(&0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `int`, and `struct tcp { int a; int write; }` in BTF.
    fn sample() -> Vec<u8> {
        let strings = b"\0int\0tcp\0a\0write\0";
        let (int, tcp, a, write) = (1_u32, 5_u32, 9_u32, 11_u32);
        let types = [
            [int, 1 << 24, 4].as_slice(),
            &[32],
            &[tcp, STRUCT << 24 | 2, 8],
            &[a, 1, 0],
            &[write, 1, 32],
        ]
        .concat();
        let length = |len: usize| u32::try_from(len).unwrap();
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        let type_len = length(types.len() * 4);
        let header = [24, 0, type_len, type_len, length(strings.len())];
        for word in header.into_iter().chain(types) {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn a_member_is_found_by_name() {
        let bytes = sample();
        assert_eq!(find(&bytes, "tcp", "write"), Some(4));
        assert_eq!(find(&bytes, "tcp", "a"), Some(0));
        assert_eq!(find(&bytes, "tcp", "writ"), None);
        assert_eq!(find(&bytes, "tc", "a"), None);
    }

    #[test]
    fn what_is_cut_off_or_no_btf_finds_nothing() {
        let bytes = sample();
        for len in 0..bytes.len() - 8 {
            assert_eq!(find(&bytes[..len], "tcp", "write"), None, "{len}");
        }
        assert_eq!(find(&[0; 64], "tcp", "write"), None);
    }
}
