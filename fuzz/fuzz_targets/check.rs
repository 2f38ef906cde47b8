//! Bytes from outside into `tollgate_fuzz::check`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_fuzz::check(data));
