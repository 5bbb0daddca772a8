//! Every program of `guest-examples/runs.toml`, stopped again and again, does what it does undisturbed.
//!
//! The tests are made from the table, so that each program has its own: `cargo test --test chains recursion`.

use std::fs;

use libtest_mimic::{Arguments, Failed, Trial};
use wsnap_tests::chain::{
    Chain, ChainError, Outcome, Targets, compare, count, measure, pieces, random_stops, seed, whole,
};
use wsnap_tests::guests::{Run, runs};

const STOPS: usize = 50;
const FIRST_SAFEPOINTS: usize = 40;
/// Of programs that are large, where most stops mean compiling clones of large functions.
const STOPS_OF_LARGE: usize = 20;
/// In bytes of the module.
const LARGE: u64 = 1_000_000;

fn main() {
    let arguments = Arguments::from_args();
    let trials = runs().into_iter().flat_map(trials).collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn trials(run: Run) -> Vec<Trial> {
    let trial = |name: &str, test: fn(&Run) -> Result<(), Failed>| {
        let run = run.clone();
        Trial::test(format!("{}::{name}", run.name), move || test(&run))
    };
    vec![
        trial(
            "does_what_plain_wasmtime_does",
            does_what_plain_wasmtime_does,
        ),
        trial("survives_random_stops", survives_random_stops),
        trial(
            "survives_random_stops_on_alternating_targets",
            survives_random_stops_on_alternating_targets,
        ),
        trial(
            "survives_a_stop_at_each_of_its_first_safepoints",
            survives_its_first_safepoints,
        ),
        trial("has_one_image_per_safepoint", has_one_image_per_safepoint),
    ]
}

/// `--bare` must give what the table says, or the reference itself would be wrong.
fn does_what_plain_wasmtime_does(run: &Run) -> Result<(), Failed> {
    let bare = whole(run, &["--bare"])?;
    if bare.stdout != run.stdout.as_bytes() || bare.code != Some(run.exit) {
        return Err(format!(
            "the table expects exit code {} and:\n{}but --bare gives {bare:?}",
            run.exit, run.stdout
        )
        .into());
    }
    Ok(compare(&bare, &whole(run, &[])?, &[])?)
}

fn survives_random_stops(run: &Run) -> Result<(), Failed> {
    chain(run, Targets::Native)
}

fn survives_random_stops_on_alternating_targets(run: &Run) -> Result<(), Failed> {
    chain(run, Targets::Alternating)
}

fn chain(run: &Run, targets: Targets) -> Result<(), Failed> {
    let stops = at_most(STOPS, run)?;
    let bare = whole(run, &["--bare"])?;
    let (passed, measured) = measure(run, &[])?;
    compare(&bare, &measured, &[])?;
    let seed = seed();
    let stops = random_stops(passed, stops, seed);
    with_seed(
        seed,
        pieces(run, targets, &stops, &[]).and_then(|outcome| compare(&bare, &outcome, &stops)),
    )
}

/// One stop after the other without skipping any, so that each follows a resume at once.
fn survives_its_first_safepoints(run: &Run) -> Result<(), Failed> {
    let bare = whole(run, &["--bare"])?;
    let stops = vec![1; at_most(FIRST_SAFEPOINTS, run)?];
    Ok(compare(
        &bare,
        &pieces(run, Targets::Alternating, &stops, &[])?,
        &stops,
    )?)
}

/// With `--deterministic` the image of a safepoint doesn't depend on the stops before it, nor on the target. The last
/// safepoint is among those compared: its image holds the final memory.
fn has_one_image_per_safepoint(run: &Run) -> Result<(), Failed> {
    const DETERMINISTIC: &[&str] = &["--deterministic"];
    let seed = seed();
    let last = if is_short(run)? {
        count(run, DETERMINISTIC)?
    } else {
        measure(run, DETERMINISTIC)?.0
    };
    let mut places = random_stops(last, 3, seed);
    let rest = last - places.iter().sum::<u64>();
    if rest > 0 {
        places.push(rest);
    }
    let mut reached = 0;
    let mut chain = Chain::new(run, Targets::Alternating, DETERMINISTIC)?;
    for stop in &places {
        reached += stop;
        with_seed(seed, image_after(&mut chain, *stop, &places))?;
        for targets in [Targets::Native, Targets::Pulley] {
            // Counting on the interpreter takes long; the short programs show the same.
            if targets == Targets::Pulley && !is_short(run)? {
                continue;
            }
            let mut direct = Chain::new(run, targets, DETERMINISTIC)?;
            image_after(&mut direct, reached, &places)?;
            if direct.image() != chain.image() {
                let (direct, chain) = (direct.image(), chain.image());
                return Err(format!(
                    "at safepoint {reached} a direct run ({targets:?}) has image {direct:?}, a run that was stopped before \
                     has {chain:?}; stops {places:?}, seed {seed}"
                )
                .into());
            }
        }
    }
    Ok(())
}

fn image_after(chain: &mut Chain<'_>, stop: u64, stops: &[u64]) -> Result<(), ChainError> {
    match chain.go_on(Some(stop))? {
        None => Ok(()),
        Some(Outcome { code, .. }) => Err(ChainError::Differs {
            what: "the end",
            expected: format!("a stop at safepoint {stop}"),
            actual: format!("exit code {code:?}"),
            stops: stops.to_vec(),
        }),
    }
}

fn module_bytes(run: &Run) -> Result<u64, Failed> {
    Ok(fs::metadata(run.module_path()?)?.len())
}

/// So many stops, or fewer for a large program.
fn at_most(stops: usize, run: &Run) -> Result<usize, Failed> {
    let is_large = module_bytes(run)? > LARGE;
    Ok(if is_large {
        stops.min(STOPS_OF_LARGE)
    } else {
        stops
    })
}

/// The small modules of our own take milliseconds; other people's are measured in megabytes.
fn is_short(run: &Run) -> Result<bool, Failed> {
    Ok(module_bytes(run)? < 20_000)
}

fn with_seed(seed: u64, result: Result<(), ChainError>) -> Result<(), Failed> {
    result.map_err(|error| format!("{error}\nTo repeat this: WSNAP_TEST_SEED={seed}").into())
}
