//! Images with changed call stacks: see `src/image.rs`.

#![no_main]

#[allow(dead_code, reason = "shared with other targets")]
#[path = "../src/image.rs"]
mod image;
#[allow(dead_code, reason = "shared with other targets")]
#[path = "../src/input.rs"]
mod input;
#[allow(dead_code, reason = "shared with other targets")]
#[path = "../src/measure.rs"]
mod measure;
#[allow(dead_code, reason = "shared with other targets")]
#[path = "../src/mutate.rs"]
mod mutate;
#[path = "../src/programs.rs"]
mod programs;
#[path = "../src/scratch.rs"]
mod scratch;
#[path = "../src/watch.rs"]
mod watch;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| image::check(bytes, true));
