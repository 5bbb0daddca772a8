//! Runs modules with drivers, under the engine alone or with stops, and says what can be seen afterwards.

use crate::driver::{DRIVER, memory_export};
use wsnap::snapshots::{ImageId, Store};
use wsnap::wasi::{Grants, SavedState, StandardStreams, Stdio, Wasi, WasiConfig};
use wsnap::{Call, Engine, EngineConfig, Error, Instance, Options, Outcome, Program, WASI_SECTION};

/// Native stack for programs, in bytes: so much that the fuel of generated programs ends before it does.
const STACK_BYTES: usize = 64 << 20;
/// The thread that runs programs has room for that, and for the host.
pub const THREAD_STACK_BYTES: usize = 96 << 20;

/// What a run leaves behind.
#[derive(Debug, PartialEq)]
pub enum Seen {
    /// It could not be set up, or trapped while it was: nothing of it is left to look at.
    NotStarted(String),
    /// How it ended, and a hash of each memory.
    Ended {
        ending: String,
        memories: Vec<blake3::Hash>,
    },
}

/// The cause of a trap, which is the same everywhere, unlike the backtrace.
fn cause(error: &wasmtime::Error) -> String {
    error.root_cause().to_string()
}

/// An engine with settings under which every engine computes the same bits.
pub fn bare_engine() -> wasmtime::Engine {
    let mut settings = wasmtime::Config::new();
    settings.cranelift_nan_canonicalization(true);
    settings.relaxed_simd_deterministic(true);
    settings.max_wasm_stack(STACK_BYTES);
    settings.async_stack_size(STACK_BYTES);
    wasmtime::Engine::new(&settings).expect("the engine can be set up")
}

/// An engine of ours with the same settings, for this machine or another target.
pub fn engine(target: Option<&str>, redundant_safepoints: bool) -> Engine {
    let config = EngineConfig {
        target: target.map(str::to_owned),
        deterministic: true,
        stack_bytes: STACK_BYTES,
        rewriting: Options {
            redundant_safepoints,
        },
        ..EngineConfig::default()
    };
    Engine::new(&config).expect("the engine can be set up")
}

/// Runs the driver of a module that has `memories` of them, the log included, as it is.
pub fn bare(engine: &wasmtime::Engine, wasm: &[u8], memories: usize) -> Seen {
    let module = wasmtime::Module::from_binary(engine, wasm).expect("the engine takes the module");
    let mut store = wasmtime::Store::new(engine, ());
    let instance = match wasmtime::Instance::new(&mut store, &module, &[]) {
        Ok(instance) => instance,
        Err(error) => return Seen::NotStarted(cause(&error)),
    };
    let driver = instance
        .get_typed_func::<(), ()>(&mut store, DRIVER)
        .expect("the module has a driver");
    let ending = match driver.call(&mut store, ()) {
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

fn start(program: &Program) -> Result<Instance, Error> {
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
            arguments: Vec::new(),
        },
    )
}

fn resume(program: &Program, store: &Store, id: ImageId) -> Instance {
    let image = std::sync::Arc::new(store.load(id).expect("the image is there"));
    image.verify().expect("the image is intact");
    let state = SavedState::decode(&image.manifest().host[WASI_SECTION])
        .expect("the host state is readable");
    let grants = Grants {
        streams: closed(),
        ..Grants::default()
    };
    let wasi = Wasi::restore(&state, grants).expect("the host state can be restored");
    program
        .resume(&image, wasi)
        .expect("the image can be resumed")
}

/// How a run goes on after each stop.
pub enum Manner<'s> {
    /// In the same instance.
    InPlace,
    /// In a new one, made of an image.
    Stored(&'s Store),
}

/// A run with stops: what it left behind, and how often it was stopped.
pub struct Run {
    pub seen: Seen,
    pub stops: u32,
}

/// Runs the driver with stops at `gaps`, numbers of safepoints, going on with the next of `programs` after each.
///
/// # Errors
///
/// What went wrong and after how many stops, if a run that has begun cannot go on.
pub fn with_stops(
    programs: &[Program],
    manner: &Manner<'_>,
    memories: usize,
    gaps: impl Iterator<Item = u64>,
) -> Result<Run, String> {
    let mut instance = match start(&programs[0]) {
        Ok(instance) => instance,
        Err(Error::Instantiate(error)) => {
            return Ok(Run {
                seen: Seen::NotStarted(cause(&error)),
                stops: 0,
            });
        }
        Err(error) => return Err(format!("it does not start: {error:?}")),
    };
    let mut stops = 0;
    for gap in gaps {
        instance.stop_at_safepoint(gap);
        let so_far = stops;
        let failed = |error: &dyn std::fmt::Debug| {
            format!("after {so_far} stops, then {gap} safepoints: {error:?}")
        };
        match instance.run().map_err(|error| failed(&error))? {
            Outcome::Suspended(_) => {}
            outcome => {
                return Ok(Run {
                    seen: seen(instance, &outcome, memories),
                    stops,
                });
            }
        }
        stops += 1;
        if let Manner::Stored(store) = manner {
            let id = instance.snapshot().map_err(|error| failed(&error))?;
            let id = id.store(store).map_err(|error| failed(&error))?;
            instance = resume(&programs[stops as usize % programs.len()], store, id);
        }
    }
    let outcome = instance
        .run()
        .map_err(|error| format!("after {stops} stops: {error:?}"))?;
    Ok(Run {
        seen: seen(instance, &outcome, memories),
        stops,
    })
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
