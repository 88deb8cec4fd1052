//! See `weir::fuzzing::request_head`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir::fuzzing::request_head(bytes));
