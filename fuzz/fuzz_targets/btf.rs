//! See `weir::fuzzing::btf`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir::fuzzing::btf(bytes));
