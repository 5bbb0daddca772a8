//! Modules that nobody wrote: rewriting them gives valid modules, and stopping them changes nothing.
//!
//! `WSNAP_FUZZ_SECONDS` makes both tests go on for that long each, from the seed `WSNAP_FUZZ_SEED`.

#[path = "common/driven.rs"]
mod driven;
#[path = "common/driver.rs"]
mod driver;
#[path = "common/points.rs"]
mod points;
#[path = "common/random.rs"]
mod random;
#[path = "common/smith.rs"]
mod smith;

use driven::{Manner, Seen};
use random::Random;
use std::time::{Duration, Instant};
use wsnap::snapshots::Store;
use wsnap::{Engine, Program};
use wsnap_instrument::{CloneRequest, Error, Module, Options};

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

#[derive(Debug, Default)]
struct Validated {
    refused: u32,
    rewritten: u32,
    points: usize,
}

/// Rewrites a module and makes clones for all its points.
fn check_validity(
    engine: &wasmtime::Engine,
    wasm: &[u8],
    options: Options,
    tally: &mut Validated,
) -> Result<(), String> {
    wasmtime::Module::validate(engine, wasm)
        .map_err(|error| format!("the engine does not take it: {error:?}"))?;
    let rewritten = Module::parse(wasm)
        .and_then(|module| Ok((wsnap_instrument::rewrite(&module, options)?, module)));
    let (rewritten, module) = match rewritten {
        Ok(rewritten) => rewritten,
        Err(Error::Unsupported { .. }) => {
            tally.refused += 1;
            return Ok(());
        }
        Err(error) => return Err(format!("rewriting fails: {error:?}")),
    };
    tally.rewritten += 1;
    wasmtime::Module::validate(engine, &rewritten.wasm)
        .map_err(|error| format!("rewritten: {error:?}"))?;
    let imported =
        (0..module.function_count()).take_while(|function| module.is_imported_function(*function));
    let mut requests: Vec<CloneRequest> = imported
        .map(|function| CloneRequest {
            function,
            points: Vec::new(),
        })
        .collect();
    let imported = requests.len() as u32;
    requests.extend(points::all(wasm, imported));
    for request in requests.iter().filter(|request| !request.points.is_empty()) {
        tally.points += request.points.len();
        wsnap_instrument::layouts(&module, &rewritten.facts, request.function, &request.points)
            .map_err(|error| format!("layouts: {error:?}"))?;
    }
    let clones = wsnap_instrument::clones(&module, &rewritten.facts, &requests)
        .map_err(|error| format!("making clones fails: {error:?}"))?;
    wasmtime::Module::validate(engine, &clones.wasm)
        .map_err(|error| format!("clones: {error:?}"))?;
    Ok(())
}

#[test]
fn generated_modules_and_clones_for_all_their_points_are_valid() {
    let engine = driven::bare_engine();
    let mut tally = Validated::default();
    for seed in seeds(2000) {
        let Some(wasm) = smith::any_module(seed) else {
            continue;
        };
        let options = Options {
            redundant_safepoints: seed % 2 == 0,
        };
        if let Err(error) = check_validity(&engine, &wasm, options, &mut tally) {
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

/// What the modules run so far were like.
#[derive(Debug, Default)]
struct Compared {
    refused: u32,
    /// The engine ran out of stack or memory, which depends on the engine.
    exhausted: u32,
    compared: u32,
    returned: u32,
    stops: u32,
}

/// Where programs run, and where their images go meanwhile.
struct Places {
    bare: wasmtime::Engine,
    here: Engine,
    /// Puts safepoints also where they are not needed.
    redundant: Engine,
    pulley: Engine,
    store: Store,
    _directory: tempfile::TempDir,
}

impl Places {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("there is room for a store");
        let store = Store::open(directory.path().join("store")).expect("a store can be made");
        let here = driven::engine(None, false);
        let redundant = driven::engine(None, true);
        let pulley = driven::engine(Some("pulley64"), false);
        Self {
            bare: driven::bare_engine(),
            here,
            redundant,
            pulley,
            store,
            _directory: directory,
        }
    }

    /// Runs a program with stops in several manners, and whole.
    fn compare(&self, seed: u64, wasm: &[u8], tally: &mut Compared) -> Result<(), String> {
        let memories = Module::parse(wasm)
            .map_err(|error| format!("parsing fails: {error:?}"))?
            .memories()
            .len();
        let expected = driven::bare(&self.bare, wasm, memories);
        if is_exhausted(&expected) {
            tally.exhausted += 1;
            return Ok(());
        }
        let new = |engine: &Engine| Program::new(engine, wasm.to_vec());
        let mut programs = match new(&self.here) {
            Ok(program) => vec![program],
            Err(wsnap::Error::Module(Error::Unsupported { .. })) => {
                tally.refused += 1;
                return Ok(());
            }
            Err(error) => return Err(format!("it cannot be made suspendable: {error:?}")),
        };
        if seed % 4 == 1 && !smith::Choices::of(seed).atomics {
            programs.push(new(&self.pulley).map_err(|error| format!("for Pulley: {error:?}"))?);
        }
        if seed % 4 == 2 {
            programs.push(new(&self.redundant).map_err(|error| format!("redundantly: {error:?}"))?);
        }
        let mut random = Random::new(seed);
        let mut check = |what: &str, programs: &[Program], manner: Manner<'_>, stops: usize| {
            let gaps: Vec<u64> = (0..stops).map(|_| random.gap()).collect();
            let run = driven::with_stops(programs, &manner, memories, gaps.iter().copied())
                .map_err(|error| format!("{what}, {gaps:?}: {error}"))?;
            tally.stops += run.stops;
            if is_as(&expected, &run.seen) {
                return Ok(());
            }
            Err(format!(
                "{what}, {gaps:?}: {:?}\nexpected: {expected:?}",
                run.seen
            ))
        };
        check("unstopped", &programs[..1], Manner::InPlace, 0)?;
        check("in place", &programs[..1], Manner::InPlace, 8)?;
        check("stored", &programs, Manner::Stored(&self.store), 5)?;
        tally.compared += 1;
        tally.returned +=
            u32::from(matches!(&expected, Seen::Ended { ending, .. } if ending == "returned"));
        Ok(())
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

fn compare_all() {
    let places = Places::new();
    let mut tally = Compared::default();
    for seed in seeds(120) {
        let Some(wasm) = smith::program(seed) else {
            tally.refused += 1;
            continue;
        };
        if let Err(error) = places.compare(seed, &wasm, &mut tally) {
            panic!("{error}\nWSNAP_FUZZ_SEED={seed}\n{}", text(&wasm));
        }
    }
    println!("{tally:?}");
    assert!(
        tally.compared > 2 * (tally.refused + tally.exhausted),
        "most programs must be compared: {tally:?}"
    );
    assert!(
        tally.returned > tally.compared / 4,
        "many programs must return: {tally:?}"
    );
    assert!(
        tally.stops > tally.compared,
        "programs must be stopped: {tally:?}"
    );
}

#[test]
fn generated_programs_end_the_same_whether_stopped_or_not() {
    let thread = std::thread::Builder::new()
        .stack_size(driven::THREAD_STACK_BYTES)
        .spawn(compare_all);
    if let Err(panic) = thread.expect("a thread can be started").join() {
        std::panic::resume_unwind(panic);
    }
}

/// Rewrites a module that was found to be treated wrongly, with clones for all its points, and runs it with stops at
/// every safepoint.
fn check_again(text: &str) {
    let wasm = wat::parse_str(text).expect("the text is a module");
    for redundant_safepoints in [false, true] {
        let options = Options {
            redundant_safepoints,
        };
        let checked = check_validity(
            &driven::bare_engine(),
            &wasm,
            options,
            &mut Validated::default(),
        );
        assert_eq!(checked, Ok(()));
    }
    let expected = driven::bare(&driven::bare_engine(), &wasm, 1);
    let program = [Program::new(&driven::engine(None, false), wasm).expect("the program compiles")];
    let run = driven::with_stops(&program, &Manner::InPlace, 1, std::iter::repeat_n(1, 50));
    let run = run.expect("the program goes on");
    assert!(run.stops > 0, "the program must be stopped");
    assert_eq!(run.seen, expected);
}

#[test]
fn an_if_without_else_that_holds_a_safepoint_passes_its_parameters_on() {
    check_again(
        r#"(module
          (memory (export "driver: memory 0") 1)
          (func $turns (param $left i32)
            (loop $again
              (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1))))))
          (func $maybe (param $value i32) (param $second i64) (param $test i32) (result i32 i64)
            local.get $value
            local.get $second
            local.get $test
            if (param i32 i64) (result i32 i64)
              i32.const 3
              call $turns
            end)
          (func (export "driver: run") (local $first i32) (local $second i64)
            (call $maybe (i32.const 7) (i64.const 8) (i32.const 1))
            local.set $second
            (call $maybe (local.get $second) (i32.const 0))
            local.set $second
            local.set $first
            (i64.store (i32.const 8) (local.get $second))
            (i32.store (i32.const 0) (local.get $first))))"#,
    );
}

/// A loop that begins with a reference to a function, and goes round with null, of a type that admits both.
fn loop_with_reference(ty: &str, null: &str) -> String {
    format!(
        r#"(module
          (type $nothing (func))
          (memory (export "driver: memory 0") 1)
          (func $something)
          (elem declare func $something)
          (func (export "driver: run") (local $turns i32) (local $nulls i32)
            (local.set $turns (i32.const 4))
            i32.const 8
            ref.func $something
            loop $again (param {ty}) (result i32)
              ref.is_null
              local.get $nulls
              i32.add
              local.set $nulls
              ref.null {null}
              (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))
              br_if $again
              drop
              local.get $nulls
            end
            i32.store))"#
    )
}

#[test]
fn a_loop_that_begins_with_a_function_of_known_type_goes_round_with_any_function() {
    check_again(&loop_with_reference("funcref", "func"));
}

#[test]
fn a_loop_that_begins_with_a_function_goes_round_with_null() {
    check_again(&loop_with_reference("(ref null $nothing)", "$nothing"));
}
