//! See `weir::fuzzing::events`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir::fuzzing::events(bytes));
