//! Programs that use files hard do what they do undisturbed when they are stopped at random: a database in the middle of
//! its transactions, a compiler between its sources and objects, an interpreter in a tree of modules.

use wsnap_tests::chain::{Chain, Outcome, Targets, compare, measure, random_stops, seed, whole};
use wsnap_tests::guests::{Run, run};

/// CPython with a script that is given an empty directory.
fn script(name: &str) -> Run {
    let script = format!("/scripts/{name}");
    Run {
        exit: 0,
        scratch: Some("/out".to_string()),
        ..run("cpython").with_args(&["-B", &script, "/out"])
    }
}

/// How many stops must find what a test is about.
const WANTED: usize = 5;
/// How often a program is run for that. Chance decides how many stops of one run find it.
const RUNS: u64 = 20;

/// Runs in pieces that end at random, and compares; until `WANTED` stops found that `during` held for the chain.
fn stopped_at_random(run: &Run, stops: usize, during: impl Fn(&Chain<'_>) -> bool) {
    let bare = whole(run, &["--bare"]).unwrap_or_else(|error| panic!("{error}"));
    assert!(!bare.stdout.is_empty());
    let seed = seed();
    println!("To repeat this: WSNAP_TEST_SEED={seed}");
    let mut held = 0;
    for attempt in 0..RUNS {
        held += one_run(run, &bare, stops, seed.wrapping_add(attempt), &during);
        if held >= WANTED {
            return;
        }
    }
    panic!("only {held} stops of {RUNS} runs were where they should be");
}

/// Runs in pieces that end at random, and compares; returns at how many of the stops `during` held for the chain.
fn one_run(
    run: &Run,
    bare: &Outcome,
    stops: usize,
    seed: u64,
    during: impl Fn(&Chain<'_>) -> bool,
) -> usize {
    let (passed, measured) = measure(run, &[]).unwrap_or_else(|error| panic!("{error}"));
    compare(bare, &measured, &[]).unwrap_or_else(|error| panic!("{error}"));
    let stops = random_stops(passed, stops, seed);
    let mut chain = Chain::new(run, Targets::Native, &[]).unwrap_or_else(|error| panic!("{error}"));
    let mut held = 0;
    let mut go_on = |stop| -> Option<Outcome> {
        let outcome = chain.go_on(stop).unwrap_or_else(|error| panic!("{error}"));
        held += usize::from(outcome.is_none() && during(&chain));
        outcome
    };
    for stop in &stops {
        let ended = go_on(Some(*stop));
        assert_eq!(ended, None, "it ended before half of its safepoints");
    }
    let outcome = go_on(None).expect("nothing stops the last piece");
    compare(bare, &outcome, &stops).unwrap_or_else(|error| panic!("{error}"));
    held
}

fn count(outcome: &str, part: &str) -> usize {
    outcome.matches(part).count()
}

#[test]
fn a_database_survives_random_stops_inside_its_transactions() {
    let run = script("bank.py");
    stopped_at_random(&run, 40, |chain| {
        let journal = chain.sandbox().path("scratch").join("bank.db-journal");
        journal.exists()
    });
}

#[test]
fn a_database_says_of_itself_that_it_is_whole() {
    let outcome = whole(&script("bank.py"), &[]).unwrap_or_else(|error| panic!("{error}"));
    let text = String::from_utf8_lossy(&outcome.stdout).into_owned();
    assert_eq!(count(&text, "journal True"), 9, "{text}");
    for part in [
        "sum (400000, 400)\n",
        "integrity ok\n",
        "left ['bank.db']\n",
    ] {
        assert!(text.contains(part), "{part:?} is missing\n{text}");
    }
}

#[test]
fn a_compiler_and_an_importer_survive_random_stops_in_a_tree_of_modules() {
    let run = script("packages.py");
    stopped_at_random(&run, 40, |chain| {
        chain.sandbox().path("scratch").join("tree").exists()
    });
}
