//! Programs of the scripts, stopped at every safepoint.

use crate::sequences::Sequence;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use wsnap::snapshots::Store;
use wsnap::{Engine, Options, Program};
use wsnap_equivalence::driven::{self, Manner, Seen};
use wsnap_equivalence::driver::{self, Driven};
use wsnap_instrument::Error;

/// At how many safepoints a run is stopped at most. Of the few that have more, so many are chosen evenly;
/// `WSNAP_EVERY_SAFEPOINT` takes the limit away.
const STOPS_MAX: u64 = 10_000;

/// What has been compared.
#[derive(Debug, Default)]
pub struct Tally {
    pub programs: u32,
    pub returned: u32,
    pub runs: u32,
    pub in_place: u64,
    pub stored: u64,
    /// Programs with something that cannot be suspended.
    refused: Vec<String>,
    /// Programs that need more than the engine has switched on.
    not_taken: Vec<String>,
    /// Runs with more safepoints than stops.
    chosen: Vec<String>,
    pub differences: Vec<String>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} programs ({} return) compared in {} runs; {} stops in place, {} stored; refused: {:#?}; not taken by the engine: {:#?}; not at every safepoint: {:#?}",
            self.programs,
            self.returned,
            self.runs,
            self.in_place,
            self.stored,
            self.refused,
            self.not_taken,
            self.chosen
        )
    }
}

/// Compares all programs, on all cores.
pub fn compare(sequences: &[Sequence]) -> Tally {
    let places = Places::new();
    let tally = Mutex::default();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            let work = || {
                while let Some(sequence) = sequences.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = places.compare(sequence);
                    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                    outcome.add_to(&mut tally);
                }
            };
            let thread = std::thread::Builder::new().stack_size(driven::THREAD_STACK_BYTES);
            thread
                .spawn_scoped(scope, work)
                .expect("a thread can be started");
        }
    });
    tally.into_inner().unwrap_or_else(PoisonError::into_inner)
}

impl Tally {
    fn add_to(self, all: &mut Self) {
        all.programs += self.programs;
        all.returned += self.returned;
        all.runs += self.runs;
        all.in_place += self.in_place;
        all.stored += self.stored;
        all.refused.extend(self.refused);
        all.not_taken.extend(self.not_taken);
        all.chosen.extend(self.chosen);
        all.differences.extend(self.differences);
    }
}

struct Places {
    bare: wasmtime::Engine,
    /// With safepoints also where they are not needed, since there are more then; countable ones, and others.
    engines: [Engine; 2],
    everywhere: bool,
}

/// A program, and where it stands in the scripts.
struct Subject<'s> {
    place: &'s str,
    driven: Driven,
    module: wasmtime::Module,
    /// With countable safepoints, and without.
    programs: [Program; 2],
    store: Store,
}

impl Places {
    fn new() -> Self {
        Self {
            bare: driven::bare_engine(),
            engines: [true, false].map(|countable_safepoints| {
                let options = Options {
                    redundant_safepoints: true,
                    countable_safepoints,
                };
                driven::engine(None, options)
            }),
            everywhere: std::env::var_os("WSNAP_EVERY_SAFEPOINT").is_some(),
        }
    }

    fn compare(&self, sequence: &Sequence) -> Tally {
        let mut tally = Tally::default();
        if let Err(error) = self.try_compare(sequence, &mut tally) {
            tally
                .differences
                .push(format!("{}: {error}", sequence.place));
        }
        tally
    }

    fn try_compare(&self, sequence: &Sequence, tally: &mut Tally) -> Result<(), String> {
        let calls = sequence.calls.iter().chain(&sequence.traps);
        let calls: Vec<_> = calls.cloned().collect();
        let driven = driver::with_driver(&sequence.wasm, |text| text, "", &calls);
        let Ok(module) = wasmtime::Module::from_binary(&self.bare, &driven.wasm) else {
            tally.not_taken.push(sequence.place.clone());
            return Ok(());
        };
        let directory = driven::temporary_directory().map_err(|error| error.to_string())?;
        let store = Store::open(directory.path().join("store"));
        let [countable, plain] = &self.engines;
        let program = match Program::new(countable, driven.wasm.clone()) {
            Err(wsnap::Error::Module(Error::Unsupported { feature })) => {
                let refused = format!("{}: {feature}", sequence.place);
                tally.refused.push(refused);
                return Ok(());
            }
            program => program.map_err(|error| format!("{error:?}"))?,
        };
        let plain =
            Program::new(plain, driven.wasm.clone()).map_err(|error| format!("{error:?}"))?;
        let subject = Subject {
            place: &sequence.place,
            module,
            store: store.map_err(|error| error.to_string())?,
            programs: [program, plain],
            driven,
        };
        tally.programs += 1;
        let ending = sequence.calls.len() as u32;
        let trapping = (0..sequence.traps.len() as u32).map(|trap| ending + trap);
        let seen = self.run(&subject, 0..ending, tally)?;
        let returned = matches!(&seen, Seen::Ended { ending, .. } if ending == "returned");
        tally.returned += u32::from(returned);
        for step in trapping {
            self.run(&subject, step..step + 1, tally)?;
        }
        // What all that has left in the tables.
        let last = subject.driven.steps - 1;
        if sequence.traps.is_empty() {
            return Ok(());
        }
        self.run(&subject, last..last + 1, tally)?;
        Ok(())
    }

    /// Compares runs of some steps, and gives what the plain one showed.
    fn run(
        &self,
        subject: &Subject<'_>,
        steps: Range<u32>,
        tally: &mut Tally,
    ) -> Result<Seen, String> {
        let Subject { driven, module, .. } = subject;
        let mut store = wasmtime::Store::new(&self.bare, ());
        let expected = driven::bare_in(&mut store, module, driven.memories, steps.clone());
        tally.runs += 1;
        let passed = driven::safepoints(&subject.programs[0], driven, steps.clone())?;
        let most = if self.everywhere { u64::MAX } else { STOPS_MAX };
        let gap = passed.div_ceil(most).max(1);
        if gap > 1 {
            let place = format!("{} {steps:?}: every {gap}th", subject.place);
            tally.chosen.push(place);
        }
        for manner in [Manner::InPlace, Manner::Stored(&subject.store)] {
            let gaps = std::iter::repeat(gap);
            // Without counting there are stops at each safepoint only.
            let programs = match manner {
                _ if gap > 1 => &subject.programs[..1],
                Manner::InPlace => &subject.programs[1..],
                Manner::Stored(_) => &subject.programs[..],
            };
            let run = driven::with_stops(programs, &manner, driven, steps.clone(), gaps)?;
            match manner {
                Manner::InPlace => tally.in_place += u64::from(run.stops),
                Manner::Stored(_) => tally.stored += u64::from(run.stops),
            }
            if !is_as(&expected, &run.seen) {
                return Err(format!("{steps:?}: {:?}, expected: {expected:?}", run.seen));
            }
        }
        Ok(expected)
    }
}

/// A start function that fails leaves no instance to look at when the program runs bare.
fn is_as(expected: &Seen, seen: &Seen) -> bool {
    match (expected, seen) {
        (Seen::NotStarted(cause), Seen::Ended { ending, .. }) => cause == ending,
        _ => expected == seen,
    }
}
