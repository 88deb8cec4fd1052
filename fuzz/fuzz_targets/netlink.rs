//! See `weir::fuzzing::netlink`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir::fuzzing::netlink(bytes));
