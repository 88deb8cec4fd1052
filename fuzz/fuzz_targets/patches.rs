//! See `weir::fuzzing::patches`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir::fuzzing::patches(bytes));
