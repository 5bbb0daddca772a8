//! Page maps, layers and all other files of a store: see `src/files.rs`.

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

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| files::check(bytes));
