//! Exports: see `src/transfer.rs`.

#![no_main]

#[allow(dead_code, reason = "shared with other targets")]
#[path = "../src/files.rs"]
mod files;
#[allow(dead_code, reason = "shared with other targets")]
#[path = "../src/input.rs"]
mod input;
#[allow(dead_code, reason = "shared with other targets")]
#[path = "../src/measure.rs"]
mod measure;
#[path = "../src/scratch.rs"]
mod scratch;
#[path = "../src/transfer.rs"]
mod transfer;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| transfer::check(bytes));
