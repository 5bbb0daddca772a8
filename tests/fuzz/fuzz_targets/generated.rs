//! Any program that wasm-smith makes of the bytes does the same whether it is stopped or not.

#![no_main]

use std::sync::LazyLock;
use wsnap_equivalence::compare::{Places, check_bytes};

static PLACES: LazyLock<Places> = LazyLock::new(|| Places::new().expect("there is room for a store"));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(difference) = check_bytes(&PLACES, bytes) {
        panic!("{difference}");
    }
});
