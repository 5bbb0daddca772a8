//! Random bytes for the bodies of fuzz targets, where no fuzzer chooses them.

fn number(variable: &str, default: u64) -> u64 {
    let value = std::env::var(variable);
    value.map_or(default, |value| value.parse().expect("a number"))
}

/// Feeds so many rounds of random bytes, each of which follows from its number alone: `WSNAP_TEST_ROUNDS` of them if that is
/// set, from `WSNAP_TEST_SEED` on.
///
/// # Panics
///
/// If a round does.
pub fn rounds(default: u64, check: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    let first = number("WSNAP_TEST_SEED", 1);
    for round in first..first + number("WSNAP_TEST_ROUNDS", default) {
        let mut bytes = vec![0; 200];
        blake3::Hasher::new()
            .update(&round.to_le_bytes())
            .finalize_xof()
            .fill(&mut bytes);
        let checked = std::panic::catch_unwind(|| check(&bytes));
        assert!(checked.is_ok(), "round {round}");
    }
}
