//! See `weir::fuzzing::map_values`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir::fuzzing::map_values(bytes));
