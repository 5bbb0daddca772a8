//! Host state: see `src/host_state.rs`.

#![no_main]

#[path = "../src/host_state.rs"]
mod host_state;
#[allow(dead_code, reason = "shared with other targets")]
#[path = "../src/input.rs"]
mod input;
#[allow(dead_code, reason = "shared with other targets")]
#[path = "../src/measure.rs"]
mod measure;
#[path = "../src/scratch.rs"]
mod scratch;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| host_state::check(bytes));
