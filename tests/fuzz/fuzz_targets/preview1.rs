//! Any calls of preview 1 with any arguments: see `src/preview1.rs`.

#![no_main]

#[path = "../src/preview1.rs"]
mod preview1;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| preview1::check(bytes));
