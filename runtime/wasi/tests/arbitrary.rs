//! Calls with arbitrary arguments and memory: the body of the fuzz target, fed with random bytes for about a second.

#[path = "../../../tests/fuzz/src/preview1.rs"]
mod preview1;

fn number(variable: &str, default: u64) -> u64 {
    let value = std::env::var(variable);
    value.map_or(default, |value| value.parse().expect("a number"))
}

#[test]
fn no_call_panics_leaves_its_directory_or_breaks_the_state() {
    let first = number("WSNAP_TEST_SEED", 1);
    for round in first..first + number("WSNAP_TEST_ROUNDS", 400) {
        // Each round's bytes follow from its number alone.
        let mut bytes = vec![0; 4000];
        blake3::Hasher::new()
            .update(&round.to_le_bytes())
            .finalize_xof()
            .fill(&mut bytes);
        let checked = std::panic::catch_unwind(|| preview1::check(&bytes));
        assert!(checked.is_ok(), "round {round}");
    }
}
