//! Modules that nobody wrote: rewriting them gives valid modules, and stopping them changes nothing.
//!
//! The command `equivalence` goes on with the programs for as long as one likes. `WSNAP_FUZZ_SECONDS` makes the test of validity
//! go on for that long, from the seed `WSNAP_FUZZ_SEED`.

use std::time::{Duration, Instant};
use wsnap_equivalence::campaign::{self, Extent};
use wsnap_equivalence::compare::{self, Places, Verdict};
use wsnap_equivalence::random::Random;
use wsnap_equivalence::validity::{self, Validated};
use wsnap_equivalence::{driven, programs, uses};
use wsnap_instrument::Options;

/// The seeds of a test: `count` of them from zero, or as many as the environment gives time for.
fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(
            text.parse::<u64>()
                .unwrap_or_else(|error| panic!("{name}={text}: {error}")),
        )
    };
    let first = number("WSNAP_FUZZ_SEED").unwrap_or(0);
    let limit = number("WSNAP_FUZZ_SECONDS").map(Duration::from_secs);
    let started = Instant::now();
    (first..).take_while(move |seed| {
        limit.map_or(seed - first < count, |limit| started.elapsed() < limit)
    })
}

/// The module as text, for a message.
fn text(wasm: &[u8]) -> String {
    wasmprinter::print_bytes(wasm).unwrap_or_else(|error| format!("{error}: {wasm:?}"))
}

#[test]
fn generated_modules_and_clones_for_all_their_points_are_valid() {
    let engine = driven::bare_engine();
    let mut tally = Validated::default();
    for seed in seeds(2000) {
        let Some(wasm) = programs::any_module(seed) else {
            continue;
        };
        let options = Options {
            redundant_safepoints: seed % 2 == 0,
            countable_safepoints: seed % 4 < 2,
        };
        if let Err(error) = validity::check(&engine, &wasm, options, &mut tally) {
            panic!("{error}\nWSNAP_FUZZ_SEED={seed}\n{}", text(&wasm));
        }
    }
    println!("{tally:?}");
    assert!(
        tally.rewritten > tally.refused,
        "most modules must not be refused: {tally:?}"
    );
    assert!(
        tally.points as u32 > tally.rewritten,
        "modules must have points: {tally:?}"
    );
}

/// How many of the programs must show each kind of behaviour, in percent.
const COMMON_PERCENT: u64 = 10;

#[test]
fn generated_programs_end_the_same_whether_stopped_or_not() {
    let extent = Extent {
        first: 0,
        seeds: Some(160),
        time: None,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        look_at_every: 1,
    };
    let places = Places::new().expect("there is room for a store");
    let tally = campaign::run(&places, extent, &|_| {});
    let tally = tally.unwrap_or_else(|found| panic!("{found}\n{}", text(&found.driven.wasm)));
    println!("{tally}\n{:#?}", tally.uses);
    assert!(
        tally.same > 2 * (tally.refused + tally.exhausted),
        "most programs must be compared: {tally}"
    );
    assert!(
        tally.returned > tally.same / 4,
        "many programs must return: {tally}"
    );
    assert!(
        tally.stops > 8 * tally.same,
        "programs must be stopped: {tally}"
    );
    let count = |kind: &str| tally.uses.get(kind).copied().unwrap_or(0);
    let rare: Vec<_> = uses::common()
        .filter(|kind| count(kind) * 100 < COMMON_PERCENT * tally.looked_at)
        .collect();
    assert!(rare.is_empty(), "what programs do must be common: {rare:?}");
}

#[test]
fn the_bytes_of_a_fuzzer_give_programs_that_end_the_same_whether_stopped_or_not() {
    let places = Places::new().expect("there is room for a store");
    let mut random = Random::new(1);
    let mut same = 0;
    for length in (0..24).map(|step| step * 100) {
        let bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        match compare::check_bytes(&places, &bytes) {
            Ok(verdict) => same += u32::from(matches!(verdict, Verdict::Same(_))),
            Err(difference) => panic!("{difference}: {bytes:?}"),
        }
    }
    assert!(same > 8, "programs must be compared, not only {same}");
}
