//! Runs guests in this process, whole or with stops, and says what can be seen of them from outside.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use wsnap::snapshots::{ImageId, Store};
use wsnap::wasi::{Grants, SavedState, StandardStreams, Stdio, Wasi, WasiConfig};
use wsnap::{Call, Engine, EngineConfig, Instance, Options, Outcome, Program, WASI_SECTION};

/// What a run leaves behind.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub output: String,
    pub ending: String,
    pub memory: Option<blake3::Hash>,
}

/// An engine as it comes, whose programs are the fastest.
#[allow(dead_code, reason = "not every test uses it")]
pub fn plain_engine(target: Option<&str>) -> Engine {
    let config = EngineConfig {
        target: target.map(str::to_owned),
        ..EngineConfig::default()
    };
    Engine::new(&config).expect("the engine can be set up")
}

/// An engine whose programs can be stopped at any safepoint by its number.
#[allow(dead_code, reason = "not every test uses it")]
pub fn engine(target: Option<&str>, bare: bool, deterministic: bool) -> Engine {
    let target = target.map(str::to_owned);
    let config = EngineConfig {
        target,
        bare,
        deterministic,
        rewriting: Options {
            countable_safepoints: true,
            ..Options::default()
        },
        ..EngineConfig::default()
    };
    Engine::new(&config).expect("the engine can be set up")
}

/// Where a guest writes to; what it reads is empty.
pub struct Output(File);

impl Output {
    pub fn new() -> Self {
        Self(tempfile::tempfile().expect("there is room for output"))
    }

    pub fn streams(&self) -> StandardStreams {
        let output = || Stdio::Descriptor(self.0.try_clone().expect("a descriptor is left").into());
        StandardStreams {
            stdin: Stdio::Closed,
            stdout: output(),
            stderr: output(),
        }
    }

    pub fn text(mut self) -> String {
        let mut bytes = Vec::new();
        self.0
            .seek(SeekFrom::Start(0))
            .expect("files can be rewound");
        self.0.read_to_end(&mut bytes).expect("files can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

pub fn start(program: &Program, call: Call, output: &Output, deterministic: bool) -> Instance {
    let config = WasiConfig {
        args: vec!["guest".into()],
        streams: output.streams(),
        deterministic_seed: deterministic.then_some([7; 32]),
        ..WasiConfig::default()
    };
    program
        .start(
            Wasi::new(config).expect("the host state can be set up"),
            call,
        )
        .expect("the program starts")
}

#[allow(dead_code, reason = "not every test uses it")]
pub fn resume(program: &Program, store: &Store, id: ImageId, output: &Output) -> Instance {
    let image = std::sync::Arc::new(store.load(id).expect("the image is there"));
    image.verify().expect("the image is intact");
    let state = SavedState::decode(&image.manifest().host[WASI_SECTION])
        .expect("the host state is readable");
    let grants = Grants {
        streams: output.streams(),
        ..Grants::default()
    };
    let wasi = Wasi::restore(&state, grants).expect("the host state can be restored");
    program
        .resume(&image, wasi)
        .expect("the image can be resumed")
}

/// What is seen of a run that has ended.
pub fn seen(mut instance: Instance, outcome: Outcome, output: Output) -> Seen {
    let ending = match outcome {
        Outcome::Returned(values) => format!("returned {values:?}"),
        Outcome::Exited(status) => format!("exited {status}"),
        // The backtrace differs, the cause must not.
        Outcome::Trapped(trap) => {
            let text = trap.to_string();
            text.lines().next().unwrap_or_default().to_owned()
        }
        Outcome::Suspended(reason) => panic!("suspended: {reason:?}"),
    };
    let memory = instance.memory(0).map(blake3::hash);
    Seen {
        output: output.text(),
        ending,
        memory,
    }
}

/// Runs a program, storing it at each of `stops`, which count safepoints, and resuming from the image with the next of
/// `programs`. Says also how often it was stopped before it ended.
#[allow(dead_code, reason = "not every test uses it")]
pub fn stored(
    programs: &[Program],
    call: &Call,
    stops: impl Iterator<Item = u64>,
) -> (Seen, usize) {
    let directory = tempfile::tempdir().expect("there is room for a store");
    let store = Store::open(directory.path().join("store")).expect("a store can be made");
    let output = Output::new();
    let mut instance = start(&programs[0], call.clone(), &output, false);
    let mut stopped = 0;
    for stop in stops {
        instance
            .stop_at_safepoint(stop)
            .expect("its safepoints can be counted");
        match instance.run().expect("the program goes on") {
            Outcome::Suspended(_) => stopped += 1,
            outcome => return (seen(instance, outcome, output), stopped),
        }
        let snapshot = instance.snapshot().expect("it can be stored");
        let id = snapshot.store(&store).expect("the store takes it");
        instance = resume(&programs[stopped % programs.len()], &store, id, &output);
    }
    let outcome = instance.run().expect("the program goes on");
    (seen(instance, outcome, output), stopped)
}

/// Runs a module without stops and unrewritten.
pub fn whole(wasm: &[u8], call: &Call) -> Seen {
    let program =
        Program::new(&engine(None, true, false), wasm.to_vec()).expect("the module compiles");
    let output = Output::new();
    let mut instance = start(&program, call.clone(), &output, false);
    let outcome = instance.run().expect("the program runs");
    seen(instance, outcome, output)
}
