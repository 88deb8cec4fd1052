//! See `weir::fuzzing::documents`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir::fuzzing::documents(bytes));
