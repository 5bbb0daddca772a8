//! Real programs that are stopped at random places and go on in other processes, on other targets, some of which are
//! killed: in the end they have done what they do undisturbed.
//!
//! `WSNAP_TEST_STOPS` says how often each program is stopped.

use std::time::Duration;

use fastrand::Rng;
use libtest_mimic::{Arguments, Failed, Trial};
use wsnap_tests::chain::{
    Chain, ChainError, Outcome, Targets, compare, measure, random_stops, seed, whole,
};
use wsnap_tests::guests::{Run, run};

const STOPS: usize = 25;
/// So long, in microseconds, lives a process at most that is killed.
const LIFE_MAX_US: u64 = 400_000;

fn stops() -> usize {
    let given = std::env::var("WSNAP_TEST_STOPS");
    given.map_or(STOPS, |text| text.parse().expect("a number"))
}

/// CPython with a script that is given a volume, so that its files belong to its images.
fn script(name: &str) -> Run {
    let path = format!("/scripts/{name}.py");
    Run {
        name: name.to_string(),
        exit: 0,
        volume: Some("/out".to_string()),
        ..run("cpython").with_args(&["-B", &path, "/out"])
    }
}

/// Interpreters, a solver, a database, a compiler, a compressor. Each owns all of its state.
fn programs() -> Vec<Run> {
    let named = ["quickjs", "cpython", "ruby", "boolector"].map(run);
    let scripts = ["bank", "packages", "compress"].map(script);
    named.into_iter().chain(scripts).collect()
}

fn main() {
    let arguments = Arguments::from_args();
    let trials = programs().into_iter().map(|run| {
        let name = format!("{}::survives_stops_and_kills", run.name);
        Trial::test(name, move || survives_stops_and_kills(&run))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

fn survives_stops_and_kills(run: &Run) -> Result<(), Failed> {
    let bare = whole(run, &["--bare"])?;
    if bare.stdout.is_empty() {
        return Err("what prints nothing cannot be compared".into());
    }
    let (passed, measured) = measure(run, &[])?;
    compare(&bare, &measured, &[])?;
    let seed = seed();
    let stops = random_stops(passed, stops(), seed);
    let disturbed = disturbed(run, &stops, seed);
    let compared = disturbed.and_then(|(outcome, kills)| {
        println!("{}: {} stops, {kills} kills", run.name, stops.len());
        compare(&bare, &outcome, &stops)
    });
    compared.map_err(|error| format!("{error}\nTo repeat this: WSNAP_TEST_SEED={seed}").into())
}

/// Runs a program in pieces on alternating targets. Before every other piece a process that does the same is killed.
fn disturbed(run: &Run, stops: &[u64], seed: u64) -> Result<(Outcome, u64), ChainError> {
    let mut rng = Rng::with_seed(seed);
    let mut chain = Chain::new(run, Targets::Alternating, &[])?;
    let mut kills = 0;
    for stop in stops {
        if chain.image().is_some() && rng.bool() {
            chain.start_and_kill(Some(*stop), Duration::from_micros(rng.u64(..LIFE_MAX_US)));
            kills += 1;
        }
        if let Some(outcome) = chain.go_on(Some(*stop))? {
            return Ok((outcome, kills));
        }
    }
    loop {
        if let Some(outcome) = chain.go_on(None)? {
            return Ok((outcome, kills));
        }
    }
}
