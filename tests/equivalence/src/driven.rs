//! Runs modules with drivers, under the engine alone or with stops, and says what can be seen afterwards.

use crate::driver::{DRIVER, Driven, memory_export};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use wsnap::snapshots::{Frame, ImageId, Store, Value};
use wsnap::wasi::{Grants, SavedState, StandardStreams, Stdio, Wasi, WasiConfig};
use wsnap::{Call, Engine, EngineConfig, Error, Instance, Options, Outcome, Program, WASI_SECTION};

/// Native stack for programs, in bytes: so much that the fuel of generated programs ends before it does.
const STACK_BYTES: usize = 64 << 20;
/// A thread that runs programs has room for that, and for the host; where it has not, a stack is made for each run.
pub const THREAD_STACK_BYTES: usize = 96 << 20;

/// What a run leaves behind.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// It could not be set up, or trapped while it was: nothing of it is left to look at.
    NotStarted(String),
    /// How it ended, and a hash of each memory.
    Ended {
        /// That it returned, or the cause of its trap.
        ending: String,
        /// The hashes, by index; the last is that of the log.
        memories: Vec<blake3::Hash>,
    },
}

/// The cause of a trap, which is the same everywhere, unlike the backtrace.
fn cause(error: &wasmtime::Error) -> String {
    error.root_cause().to_string()
}

/// An engine with settings under which every engine computes the same bits.
///
/// # Panics
///
/// When the engine does not run on this machine.
#[must_use]
pub fn bare_engine() -> wasmtime::Engine {
    let mut settings = wasmtime::Config::new();
    settings.cranelift_nan_canonicalization(true);
    settings.relaxed_simd_deterministic(true);
    settings.max_wasm_stack(STACK_BYTES);
    settings.async_stack_size(STACK_BYTES);
    wasmtime::Engine::new(&settings).expect("the engine can be set up")
}

/// An engine of ours with the same settings, for this machine or another target.
///
/// # Panics
///
/// When the engine does not know the target.
#[must_use]
pub fn engine(target: Option<&str>, rewriting: Options) -> Engine {
    let config = EngineConfig {
        target: target.map(str::to_owned),
        deterministic: true,
        stack_bytes: STACK_BYTES,
        rewriting,
        ..EngineConfig::default()
    };
    Engine::new(&config).expect("the engine can be set up")
}

/// Runs steps of a module with a driver, as it is.
///
/// # Panics
///
/// When the engine does not take the module.
#[must_use]
pub fn bare(engine: &wasmtime::Engine, driven: &Driven, steps: Range<u32>) -> Seen {
    let module =
        wasmtime::Module::from_binary(engine, &driven.wasm).expect("the engine takes the module");
    let mut store = wasmtime::Store::new(engine, ());
    bare_in(&mut store, &module, driven.memories, steps)
}

/// As [`bare`], in a given store of a module with `memories` that is compiled already.
///
/// # Panics
///
/// When the module has no driver.
pub fn bare_in(
    store: &mut wasmtime::Store<()>,
    module: &wasmtime::Module,
    memories: usize,
    steps: Range<u32>,
) -> Seen {
    stacker::maybe_grow(THREAD_STACK_BYTES - (16 << 20), THREAD_STACK_BYTES, || {
        bare_here(store, module, memories, steps)
    })
}

fn bare_here(
    mut store: &mut wasmtime::Store<()>,
    module: &wasmtime::Module,
    memories: usize,
    steps: Range<u32>,
) -> Seen {
    let instance = match wasmtime::Instance::new(&mut store, module, &[]) {
        Ok(instance) => instance,
        Err(error) => return Seen::NotStarted(cause(&error)),
    };
    let driver = instance
        .get_typed_func::<(u32, u32), ()>(&mut store, DRIVER)
        .expect("the module has a driver");
    let ending = match driver.call(&mut store, (steps.start, steps.end)) {
        Ok(()) => "returned".to_owned(),
        Err(error) => cause(&error),
    };
    let mut hash = |index| {
        let memory = instance
            .get_memory(&mut store, &memory_export(index))
            .expect("the driver exports memories");
        blake3::hash(memory.data(&store))
    };
    Seen::Ended {
        ending,
        memories: (0..memories).map(&mut hash).collect(),
    }
}

fn closed() -> StandardStreams {
    StandardStreams {
        stdin: Stdio::Closed,
        stdout: Stdio::Closed,
        stderr: Stdio::Closed,
    }
}

fn start(program: &Program, steps: Range<u32>) -> Result<Instance, Error> {
    let config = WasiConfig {
        streams: closed(),
        deterministic_seed: Some([7; 32]),
        ..WasiConfig::default()
    };
    let wasi = Wasi::new(config).expect("the host state can be set up");
    program.start(
        wasi,
        Call {
            export: DRIVER.into(),
            arguments: vec![Value::I32(steps.start as i32), Value::I32(steps.end as i32)],
        },
    )
}

fn resume(
    program: &Program,
    store: &Store,
    id: ImageId,
    stacks: &mut Stacks,
) -> Result<Instance, String> {
    let failed = |error: &dyn std::fmt::Debug| format!("image {id:?}: {error:?}");
    let image = Arc::new(store.load(id).map_err(|error| failed(&error))?);
    image.verify().map_err(|error| failed(&error))?;
    stacks.look_at(&image.manifest().frames);
    let state =
        SavedState::decode(&image.manifest().host[WASI_SECTION]).map_err(|error| failed(&error))?;
    let grants = Grants {
        streams: closed(),
        ..Grants::default()
    };
    let wasi = Wasi::restore(&state, grants).map_err(|error| failed(&error))?;
    program.resume(&image, wasi).map_err(|error| failed(&error))
}

/// A directory for images that nobody needs for long: in memory, where there is a file system for that, since every image
/// is synced.
///
/// # Errors
///
/// When there is no room.
pub fn temporary_directory() -> std::io::Result<tempfile::TempDir> {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())
}

/// How a run goes on after each stop.
pub enum Manner<'s> {
    /// In the same instance.
    InPlace,
    /// In a new one, made of an image.
    Stored(&'s Store),
}

/// What the call stacks were like at which a run was stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stacks {
    /// The most frames.
    pub frames: usize,
    /// Whether a function was active twice.
    pub recursive: bool,
}

impl Stacks {
    /// Takes in what another run has shown.
    pub fn add(&mut self, other: Self) {
        self.frames = self.frames.max(other.frames);
        self.recursive |= other.recursive;
    }

    fn look_at(&mut self, frames: &[Frame]) {
        self.frames = self.frames.max(frames.len());
        let mut seen = HashSet::new();
        self.recursive |= !frames.iter().all(|frame| seen.insert(frame.function));
    }
}

/// A run with stops: what it left behind, and how it was stopped.
#[derive(Debug)]
pub struct Run {
    /// What can be seen.
    pub seen: Seen,
    /// How often it was stopped.
    pub stops: u32,
    /// The call stacks that were stored.
    pub stacks: Stacks,
}

/// Runs steps of the driver with stops at `gaps`, numbers of safepoints where these can be counted, going on with the next of `programs` after each.
///
/// # Errors
///
/// What went wrong and after how many stops, if a run that has begun cannot go on.
pub fn with_stops(
    programs: &[Program],
    manner: &Manner<'_>,
    driven: &Driven,
    steps: Range<u32>,
    gaps: impl Iterator<Item = u64>,
) -> Result<Run, String> {
    let mut stacks = Stacks::default();
    let mut stops = 0;
    let mut instance = match start(&programs[0], steps) {
        Ok(instance) => instance,
        Err(Error::Instantiate(error)) => {
            return Ok(Run {
                seen: Seen::NotStarted(cause(&error)),
                stops,
                stacks,
            });
        }
        Err(error) => return Err(format!("it does not start: {error:?}")),
    };
    let mut gaps = gaps.fuse();
    loop {
        let gap = gaps.next();
        if let Some(gap) = gap {
            // Where safepoints are not counted, the next one has to do.
            let rewriting = instance.program().engine().config().rewriting;
            let gap = if rewriting.countable_safepoints {
                gap
            } else {
                1
            };
            instance
                .stop_at_safepoint(gap)
                .map_err(|error| format!("it cannot be stopped: {error:?}"))?;
        }
        let so_far = stops;
        let failed = |error: &dyn std::fmt::Debug| {
            format!("after {so_far} stops, then {gap:?} safepoints: {error:?}")
        };
        match instance.run().map_err(|error| failed(&error))? {
            Outcome::Suspended(_) => stops += 1,
            outcome => {
                return Ok(Run {
                    seen: seen(instance, &outcome, driven.memories),
                    stops,
                    stacks,
                });
            }
        }
        if let Manner::Stored(store) = manner {
            let snapshot = instance.snapshot().map_err(|error| failed(&error))?;
            let id = snapshot.store(store).map_err(|error| failed(&error))?;
            let program = &programs[stops as usize % programs.len()];
            instance = resume(program, store, id, &mut stacks).map_err(|error| failed(&error))?;
        }
    }
}

/// How many safepoints a run passes, or up to a quarter more, if there are many.
///
/// # Errors
///
/// What went wrong.
pub fn safepoints(program: &Program, driven: &Driven, steps: Range<u32>) -> Result<u64, String> {
    let mut passed = 0;
    let gaps = std::iter::repeat_with(|| {
        let gap = (passed / 4).max(1000);
        passed += gap;
        gap
    });
    let gaps: Vec<u64> = gaps.take(150).collect();
    let program = std::slice::from_ref(program);
    let run = with_stops(
        program,
        &Manner::InPlace,
        driven,
        steps,
        gaps.iter().copied(),
    )?;
    Ok(gaps[..=run.stops as usize].iter().sum())
}

/// The last cause in the report of a trap, which stands before the backtrace.
fn root_cause(report: &str) -> &str {
    let causes = report.lines().next().unwrap_or_default();
    causes
        .rfind("wasm trap: ")
        .map_or(causes, |start| &causes[start..])
}

fn seen(mut instance: Instance, outcome: &Outcome, memories: usize) -> Seen {
    let ending = match outcome {
        Outcome::Returned(values) if values.is_empty() => "returned".to_owned(),
        Outcome::Trapped(trap) => root_cause(&trap.to_string()).to_owned(),
        other => format!("{other:?}"),
    };
    let mut hash = |index| {
        blake3::hash(
            instance
                .memory(index)
                .expect("the program has so many memories"),
        )
    };
    Seen::Ended {
        ending,
        memories: (0..memories as u32).map(&mut hash).collect(),
    }
}
