//! Stores as snapshots of programs leave them, made without running any.

use wsnap::snapshots::{
    ImageId, Invocation, Manifest, MemoryState, NewRecord, Record, Store, Value,
};

use crate::sandbox::Sandbox;

pub const PAGE: usize = 4096;
/// When the first record was taken: 2026-01-01T00:00:00Z.
pub const START_MS: u64 = 1_767_225_600_000;
pub const HOUR_MS: u64 = 3_600_000;

pub const MODULE: &str = r#"(module (memory 4) (global $n (mut i32) (i32.const 0))
    (func $main (export "_start") (call $work)) (func $work (loop $again (br $again))))"#;

/// The store of a sandbox.
pub struct Stored {
    pub store: Store,
}

impl Stored {
    pub fn new(sandbox: &Sandbox) -> Self {
        let store = Store::open(sandbox.path("store")).expect("a store");
        Self { store }
    }

    /// The manifest of a program with one memory of four pages of 64 KiB and one global.
    pub fn manifest(&self, global: i32) -> Manifest {
        let wasm = wat::parse_str(MODULE).expect("a module");
        let module = self.store.put_module(&wasm).expect("stored");
        let mut manifest = Manifest::new(module, Invocation::export("_start"));
        manifest.memories.push(MemoryState::draft(4, 16));
        manifest.globals.push(wsnap::snapshots::GlobalState {
            index: 0,
            value: Value::I32(global),
        });
        manifest
    }

    /// Stores an image that has `global`, and the byte `fill` in the page `global` of its memory.
    pub fn image(&self, global: u8, fill: u8) -> ImageId {
        let mut memory = vec![0; 4 << 16];
        memory[usize::from(global) % 64 * PAGE..][..PAGE].fill(fill);
        let manifest = self.manifest(global.into());
        self.store.publish(manifest, &[&memory]).expect("stored")
    }

    /// Stores a record of the snapshot that was taken so many hours after the first.
    pub fn record(
        &self,
        image: ImageId,
        parent: Option<&Record>,
        hours: u64,
        name: Option<&str>,
    ) -> Record {
        let mut record = NewRecord::new(image, START_MS + hours * HOUR_MS, "snap");
        record.parent = parent.map(|parent| parent.id);
        record.name = name.map(str::to_owned);
        record.added_bytes = 4096;
        self.store.put_record(record).expect("stored")
    }
}

/// The first digits of an id, as tables show them.
pub fn short(id: ImageId) -> String {
    id.to_string()[..12].to_owned()
}
