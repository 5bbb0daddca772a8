//! Small programs of all kinds, and true images of them: the seeds of hostile ones.

use crate::scratch::scratch;
use std::fs;
use std::sync::{Arc, OnceLock};
use tempfile::TempDir;
use wsnap::snapshots::{Manifest, Store};
use wsnap::wasi::{Preopen, StandardStreams, Stdio, VolumeGrant, Wasi, WasiConfig};
use wsnap::{Call, Engine, EngineConfig, Options, Outcome, Program};

/// Modules, each with what is special about images of it.
const MODULES: &[&str] = &[
    include_str!("../../../guest-examples/wat/argument_types.wat"),
    include_str!("../../../guest-examples/wat/deep_recursion.wat"),
    include_str!("../../../guest-examples/wat/exceptions.wat"),
    include_str!("../../../guest-examples/wat/function_references.wat"),
    include_str!("../../../guest-examples/wat/memory64.wat"),
    include_str!("../../../guest-examples/wat/multi_memory.wat"),
    include_str!("../../../guest-examples/wat/operands.wat"),
    include_str!("../../../guest-examples/wat/simd.wat"),
    include_str!("../../../guest-examples/wat/start.wat"),
    include_str!("../../../guest-examples/wat/tables.wat"),
    include_str!("../../../guest-examples/wat/tail_calls.wat"),
    include_str!("../../../guest-examples/wat/br_table.wat"),
    include_str!("../seeds/everything.wat"),
    include_str!("../seeds/host.wat"),
];

/// At which safepoints images of each module are taken.
const STOPS: [u64; 5] = [1, 2, 7, 40, 200];

/// A true image, and the program that it is of.
pub struct Seed {
    pub program: Program,
    pub manifest: Manifest,
    /// The content of the memories, volumes included.
    pub memories: Vec<Vec<u8>>,
}

/// Where programs run, and where images are kept.
pub struct Workshop {
    base: TempDir,
    pub store: Store,
    pub seeds: Vec<Seed>,
}

impl Workshop {
    /// The one of this process.
    pub fn shared() -> &'static Self {
        static WORKSHOP: OnceLock<Workshop> = OnceLock::new();
        WORKSHOP.get_or_init(Self::new)
    }

    fn new() -> Self {
        let base = scratch();
        fs::create_dir(base.path().join("inside")).expect("there is room");
        let store = Store::open(base.path().join("store")).expect("a store can be made");
        let mut workshop = Self {
            base,
            store,
            seeds: Vec::new(),
        };
        for deterministic in [false, true] {
            let config = EngineConfig {
                deterministic,
                rewriting: Options {
                    countable_safepoints: true,
                    ..Options::default()
                },
                ..EngineConfig::default()
            };
            let engine = Engine::new(&config).expect("the engine can be set up");
            for text in MODULES {
                let program = Program::new(&engine, text.as_bytes().to_vec()).expect("it compiles");
                workshop
                    .store
                    .put_module(program.wasm())
                    .expect("there is room");
                for stop in STOPS {
                    workshop.take(&program, stop);
                }
            }
        }
        assert!(
            workshop.seeds.len() > 3 * MODULES.len(),
            "programs end before they are stopped"
        );
        workshop
    }

    /// Takes an image of `program` at a safepoint, unless it has ended before.
    fn take(&mut self, program: &Program, stop: u64) {
        let config = WasiConfig {
            args: vec!["program".into()],
            preopens: self.preopens(),
            volumes: vec![VolumeGrant {
                name: "data".into(),
                guest_path: "/v".into(),
            }],
            streams: streams(),
            deterministic_seed: program.engine().config().deterministic.then_some([7; 32]),
            ..WasiConfig::default()
        };
        let wasi = Wasi::new(config).expect("the host state can be set up");
        let mut instance = program.start(wasi, Call::command()).expect("it starts");
        instance
            .stop_at_safepoint(stop)
            .expect("its safepoints can be counted");
        if !matches!(instance.run(), Ok(Outcome::Suspended(_))) {
            return;
        }
        let snapshot = instance.snapshot().expect("it can be stored");
        let id = snapshot.store(&self.store).expect("there is room");
        let image = self.store.load(id).expect("it has just been stored");
        let memories = image.memories().iter().map(|memory| {
            let mut bytes = vec![0; memory.byte_len() as usize];
            memory
                .read_at(0, &mut bytes)
                .expect("it has just been written");
            bytes
        });
        self.seeds.push(Seed {
            program: program.clone(),
            memories: memories.collect(),
            manifest: image.manifest().clone(),
        });
    }

    pub fn preopens(&self) -> Vec<Preopen> {
        vec![Preopen::open(&self.base.path().join("inside"), "/w").expect("the directory exists")]
    }
}

/// Streams that lead nowhere.
pub fn streams() -> StandardStreams {
    let null = || {
        let file = fs::File::options().read(true).write(true).open("/dev/null");
        Stdio::Descriptor(file.expect("every system has it").into())
    };
    StandardStreams {
        stdin: null(),
        stdout: null(),
        stderr: null(),
    }
}

/// The image of that id, open.
pub fn open(store: &Store, id: wsnap::snapshots::ImageId) -> Arc<wsnap::snapshots::StoredImage> {
    Arc::new(store.load(id).expect("it has just been stored"))
}
