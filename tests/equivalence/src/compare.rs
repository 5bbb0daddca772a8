//! One program, run bare and with stops in all manners: what can be seen must be the same.

use crate::driven::{self, Manner, Seen, Stacks};
use crate::driver::Driven;
use crate::programs;
use crate::random::Random;
use wasmparser::{Parser, Payload};
use wsnap::snapshots::Store;
use wsnap::{Engine, Options, Program};
use wsnap_instrument::Error;

/// How often a program is stopped at most, going on in place.
const STOPS_IN_PLACE: usize = 16;
/// How often at most, going on from an image.
const STOPS_STORED: usize = 10;

/// What came of a program.
#[derive(Debug)]
pub enum Verdict {
    /// It has something that cannot be suspended.
    Refused,
    /// The engine ran out of stack or memory, which depends on the engine.
    Exhausted,
    /// It did the same in all manners.
    Same(Same),
}

/// How a program ran that did the same in all manners.
#[derive(Debug)]
pub struct Same {
    /// Whether it returned, rather than trapped.
    pub returned: bool,
    /// How often it was stopped in all.
    pub stops: u32,
    /// The call stacks that were stored.
    pub stacks: Stacks,
    /// Whether it ran on Pulley, too.
    pub on_pulley: bool,
}

/// A program that did not do the same when it was stopped, or could not go on.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Difference(String);

/// Where programs run, and where their images go meanwhile.
pub struct Places {
    bare: wasmtime::Engine,
    /// As it comes: it stops at next safepoints only.
    plain: Engine,
    here: Engine,
    /// Puts safepoints also where they are not needed.
    redundant: Engine,
    pulley: Engine,
    store: Store,
    _directory: tempfile::TempDir,
}

impl Places {
    /// Sets up engines and a store.
    ///
    /// # Errors
    ///
    /// When there is no room for a store.
    pub fn new() -> std::io::Result<Self> {
        let directory = driven::temporary_directory()?;
        let store = Store::open(directory.path().join("store")).map_err(std::io::Error::other)?;
        Ok(Self {
            bare: driven::bare_engine(),
            plain: driven::engine(None, Options::default()),
            here: driven::engine(None, countable(false)),
            redundant: driven::engine(None, countable(true)),
            pulley: driven::engine(Some("pulley64"), countable(false)),
            store,
            _directory: directory,
        })
    }

    /// The engine that runs programs as they are.
    #[must_use]
    pub fn bare(&self) -> &wasmtime::Engine {
        &self.bare
    }

    /// Runs a program whole, and with stops that follow from `seed` in several manners.
    ///
    /// # Errors
    ///
    /// The difference, if there is one.
    pub fn compare(&self, seed: u64, driven: &Driven) -> Result<Verdict, Difference> {
        self.try_compare(seed, driven).map_err(Difference)
    }

    fn try_compare(&self, seed: u64, driven: &Driven) -> Result<Verdict, String> {
        let expected = driven::bare(&self.bare, driven, driven.all());
        if is_exhausted(&expected) {
            return Ok(Verdict::Exhausted);
        }
        let new = |engine: &Engine| Program::new(engine, driven.wasm.clone());
        let here = match new(&self.here) {
            Ok(program) => program,
            Err(wsnap::Error::Module(Error::Unsupported { .. })) => return Ok(Verdict::Refused),
            Err(error) => return Err(format!("it cannot be made suspendable: {error:?}")),
        };
        let plain = new(&self.plain).map_err(|error| format!("as it comes: {error:?}"))?;
        let redundant = new(&self.redundant).map_err(|error| format!("redundantly: {error:?}"))?;
        let on_pulley = seed.is_multiple_of(2) && !has_atomics(&driven.wasm);
        let other = if on_pulley {
            new(&self.pulley).map_err(|error| format!("for Pulley: {error:?}"))?
        } else {
            redundant.clone()
        };
        let mut same = Same {
            returned: matches!(&expected, Seen::Ended { ending, .. } if ending == "returned"),
            stops: 0,
            stacks: Stacks::default(),
            on_pulley,
        };
        let mut random = Random::new(seed);
        let mut check = |what: &str, programs: &[Program], manner: Manner<'_>, stops: usize| {
            let gaps: Vec<u64> = (0..stops).map(|_| random.gap()).collect();
            let failed = |why: &str| format!("{what}, stopped after {gaps:?}: {why}");
            let gaps = gaps.iter().copied();
            let run = driven::with_stops(programs, &manner, driven, driven.all(), gaps)
                .map_err(|error| failed(&error))?;
            same.stops += run.stops;
            same.stacks.add(run.stacks);
            if is_as(&expected, &run.seen) {
                return Ok(());
            }
            Err(failed(&format!("{:?}\nexpected: {expected:?}", run.seen)))
        };
        // Wherever the others stop, this one goes on to the next safepoint.
        let here = [here, plain.clone(), other];
        let plain = [plain];
        check("unstopped", &plain, Manner::InPlace, 0)?;
        check("at each safepoint", &plain, Manner::InPlace, STOPS_IN_PLACE)?;
        check("in place", &[redundant], Manner::InPlace, STOPS_IN_PLACE)?;
        check("stored", &here, Manner::Stored(&self.store), STOPS_STORED)?;
        Ok(Verdict::Same(same))
    }
}

/// Compares the program that a fuzzer's bytes stand for: eight of them are the seed of what is chosen beside its content.
///
/// # Errors
///
/// The difference, if there is one.
pub fn check_bytes(places: &Places, bytes: &[u8]) -> Result<Verdict, Difference> {
    let Some((seed, content)) = bytes.split_first_chunk() else {
        return Ok(Verdict::Refused);
    };
    let seed = u64::from_le_bytes(*seed);
    match programs::of_bytes(seed, content) {
        Some(driven) => places.compare(seed, &driven),
        None => Ok(Verdict::Refused),
    }
}

/// Options under which safepoints can be counted.
fn countable(redundant_safepoints: bool) -> Options {
    Options {
        redundant_safepoints,
        countable_safepoints: true,
    }
}

/// Whether the run ended because the machine did not give it more: that may differ from engine to engine.
fn is_exhausted(seen: &Seen) -> bool {
    let (Seen::NotStarted(ending) | Seen::Ended { ending, .. }) = seen;
    ending.contains("call stack exhausted") || ending.contains("allocation")
}

/// A start function that fails leaves no instance to look at when the program runs bare, but is a run like any other
/// for one that can be stopped.
fn is_as(expected: &Seen, seen: &Seen) -> bool {
    match (expected, seen) {
        (Seen::NotStarted(cause), Seen::Ended { ending, .. }) => cause == ending,
        _ => expected == seen,
    }
}

/// Whether any function of a module uses atomics, which Pulley does not know.
fn has_atomics(wasm: &[u8]) -> bool {
    let bodies = Parser::new(0).parse_all(wasm).filter_map(Result::ok);
    bodies
        .filter_map(|payload| match payload {
            Payload::CodeSectionEntry(body) => body.get_operators_reader().ok(),
            _ => None,
        })
        .flat_map(|operators| operators.into_iter().filter_map(Result::ok))
        .any(|operator| format!("{operator:?}").contains("Atomic"))
}
