//! Functions of unusual size and depth survive stops.

use wsnap_tests::chain::{Targets, compare, measure, pieces, random_stops, seed, whole};
use wsnap_tests::generated::{deep_nesting, many_calls};
use wsnap_tests::guests::Run;
use wsnap_tests::wsnap::Sandbox;

fn survives_stops(name: &str, text: &str) {
    let sandbox = Sandbox::new();
    let run = Run::of_module(name, sandbox.write("guest.wat", text));
    let bare = whole(&run, &["--bare"]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(bare.stdout.len(), 16, "the program prints its checksum");
    let (passed, measured) = measure(&run, &[]).unwrap_or_else(|error| panic!("{error}"));
    compare(&bare, &measured, &[]).unwrap_or_else(|error| panic!("{error}"));
    let seed = seed();
    let stops = random_stops(passed, 30, seed);
    let outcome = pieces(&run, Targets::Alternating, &stops, &[]);
    outcome
        .and_then(|outcome| compare(&bare, &outcome, &stops))
        .unwrap_or_else(|error| panic!("{error}\nTo repeat this: WSNAP_TEST_SEED={seed}"));
}

#[test]
fn a_function_with_five_thousand_calls_survives_stops() {
    survives_stops("many_calls", &many_calls(5000));
}

#[test]
fn a_loop_inside_three_hundred_blocks_with_waiting_operands_survives_stops() {
    survives_stops("deep_nesting", &deep_nesting(300));
}
