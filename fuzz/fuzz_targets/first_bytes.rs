//! See `weir::fuzzing::first_bytes`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir::fuzzing::first_bytes(bytes));
