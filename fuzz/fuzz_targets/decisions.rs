//! See `weir::fuzzing::decisions`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir::fuzzing::decisions(bytes));
