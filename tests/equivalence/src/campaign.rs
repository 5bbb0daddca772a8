//! Very many generated programs, on all cores.

use crate::compare::{Difference, Places, Same, Verdict};
use crate::driver::Driven;
use crate::random::Random;
use crate::{programs, reduce, uses};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long it goes on, and from where.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// The first seed.
    pub first: u64,
    /// How many seeds are tried, if there is a limit.
    pub seeds: Option<u64>,
    /// For how long, if there is a limit.
    pub time: Option<Duration>,
    /// How many threads run programs.
    pub threads: usize,
    /// Of every how many programs it is counted what they do, which takes a run of its own.
    pub look_at_every: u64,
}

/// What the programs so far were like.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Seeds that lead to no module, or to one with something that cannot be suspended.
    pub refused: u64,
    /// Programs for which the engine had too little stack or memory, which depends on the engine.
    pub exhausted: u64,
    /// Programs that did the same in all manners.
    pub same: u64,
    /// Of these, how many returned.
    pub returned: u64,
    /// How often they were stopped in all.
    pub stops: u64,
    /// How many of them ran on Pulley, too.
    pub on_pulley: u64,
    /// How many were stored while a function of theirs was active twice.
    pub recursive: u64,
    /// How many were stored with ten frames or more.
    pub deep: u64,
    /// How many were looked at for what they do.
    pub looked_at: u64,
    /// What they do, and how many of those looked at.
    pub uses: BTreeMap<&'static str, u64>,
}

impl Tally {
    fn count(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Refused => self.refused += 1,
            Verdict::Exhausted => self.exhausted += 1,
            Verdict::Same(Same {
                returned,
                stops,
                stacks,
                on_pulley,
            }) => {
                self.same += 1;
                self.returned += u64::from(*returned);
                self.stops += u64::from(*stops);
                self.on_pulley += u64::from(*on_pulley);
                self.recursive += u64::from(stacks.recursive);
                self.deep += u64::from(stacks.frames >= 10);
            }
        }
    }

    /// Programs that were compared, or could not be.
    #[must_use]
    pub fn seeds(&self) -> u64 {
        self.refused + self.exhausted + self.same
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} programs equal after {} stops ({} returned, {} trapped; {} also on Pulley; stored {} in recursion, {} with ten \
             frames or more); {} seeds refused, {} exhausted",
            self.same,
            self.stops,
            self.returned,
            self.same - self.returned,
            self.on_pulley,
            self.recursive,
            self.deep,
            self.refused,
            self.exhausted
        )
    }
}

/// A program that did not do the same when it was stopped.
#[derive(Debug, thiserror::Error)]
#[error("seed {seed}: {difference}")]
pub struct Found {
    /// The seed that gives the program again.
    pub seed: u64,
    /// What differed.
    pub difference: Difference,
    /// The program.
    pub driven: Driven,
}

/// The program of a seed, compared.
///
/// # Errors
///
/// The program, if it differs.
pub fn check_seed(places: &Places, seed: u64) -> Result<Verdict, Box<Found>> {
    let Some(driven) = programs::of_seed(seed) else {
        return Ok(Verdict::Refused);
    };
    places.compare(seed, &driven).map_err(|difference| {
        Box::new(Found {
            seed,
            difference,
            driven,
        })
    })
}

/// Compares the programs of very many seeds; `progress` is called now and then with what has come out so far.
///
/// # Errors
///
/// The first difference found, which ends the run.
///
/// # Panics
///
/// When the operating system gives no thread.
pub fn run(
    places: &Places,
    extent: Extent,
    progress: &(dyn Fn(&Tally) + Sync),
) -> Result<Tally, Box<Found>> {
    let campaign = Campaign {
        places,
        extent,
        progress,
        started: Instant::now(),
        next: AtomicU64::new(extent.first),
        over: AtomicBool::new(false),
        tally: Mutex::default(),
    };
    let found = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..extent.threads {
            let builder = std::thread::Builder::new().stack_size(crate::driven::THREAD_STACK_BYTES);
            let work = || {
                if let Err(difference) = campaign.work() {
                    campaign.over.store(true, Ordering::Relaxed);
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    found.get_or_insert(difference);
                }
            };
            builder
                .spawn_scoped(scope, work)
                .expect("a thread can be started");
        }
    });
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let tally = campaign
        .tally
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    found.map_or(Ok(tally), Err)
}

struct Campaign<'c> {
    places: &'c Places,
    extent: Extent,
    progress: &'c (dyn Fn(&Tally) + Sync),
    started: Instant,
    next: AtomicU64,
    over: AtomicBool,
    tally: Mutex<Tally>,
}

/// After so many programs comes a report.
const PROGRESS_EVERY: u64 = 250;

impl Campaign<'_> {
    fn work(&self) -> Result<(), Box<Found>> {
        while let Some(seed) = self.next_seed() {
            let verdict = check_seed(self.places, seed)?;
            let uses = self.look_at(seed, &verdict);
            let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
            tally.count(&verdict);
            if let Some(uses) = uses {
                tally.looked_at += 1;
                for kind in uses {
                    *tally.uses.entry(kind).or_default() += 1;
                }
            }
            if tally.seeds().is_multiple_of(PROGRESS_EVERY) {
                (self.progress)(&tally);
            }
        }
        Ok(())
    }

    fn next_seed(&self) -> Option<u64> {
        let late = self
            .extent
            .time
            .is_some_and(|time| self.started.elapsed() >= time);
        if late || self.over.load(Ordering::Relaxed) {
            return None;
        }
        let seed = self.next.fetch_add(1, Ordering::Relaxed);
        let enough = self
            .extent
            .seeds
            .is_some_and(|seeds| seed - self.extent.first >= seeds);
        (!enough).then_some(seed)
    }

    fn look_at(&self, seed: u64, verdict: &Verdict) -> Option<Vec<&'static str>> {
        // The seed alone decides, so that what is counted does not depend on threads; but not by its remainder, which decides
        // what programs are like.
        let chosen = Random::new(seed).below(self.extent.look_at_every) == 0;
        let wanted = chosen && matches!(verdict, Verdict::Same(_));
        let driven = programs::of_seed(seed).filter(|_| wanted)?;
        Some(uses::of(&driven, self.places.bare()))
    }
}

/// The text of a program that is as small as can be and differs too.
///
/// # Panics
///
/// When the program is not valid.
#[must_use]
pub fn minimised(places: &Places, found: &Found) -> String {
    let differs = |driven: &Driven| places.compare(found.seed, driven).is_err();
    let smaller = reduce::reduce(&found.driven, &differs);
    wasmprinter::print_bytes(&smaller.wasm).expect("a valid module can be printed")
}
