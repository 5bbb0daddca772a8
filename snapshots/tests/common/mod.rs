//! What several test files share: states made from a seed.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use wsnap_snapshots::{
    Elements, Exception, Frame, FrameState, GlobalState, ImageId, Invocation, Manifest, MemoryHash,
    MemoryState, MemoryUpdate, ModuleHash, NewRecord, Phase, Record, RecordId, Store, StoredImage,
    TableState, Value,
};

pub const MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// Any manifest that the format allows, with every kind of field.
pub fn any_manifest(rng: &mut Rng) -> Manifest {
    let exceptions = rng.u32(0..4);
    let mut host = std::collections::BTreeMap::new();
    for _ in 0..rng.usize(0..3) {
        host.insert(any_text(rng), any_bytes(rng, 40));
    }
    Manifest {
        module: ModuleHash(rng.u128(..).to_le_bytes().repeat(2).try_into().unwrap()),
        deterministic: rng.bool(),
        invocation: Invocation {
            phase: if rng.bool() {
                Phase::Start
            } else {
                Phase::Export
            },
            export: any_text(rng),
            arguments: any_values(rng, exceptions),
        },
        memories: (0..rng.usize(0..3)).map(|_| any_memory(rng)).collect(),
        globals: any_indices(rng)
            .into_iter()
            .map(|index| GlobalState {
                index,
                value: any_value(rng, exceptions),
            })
            .collect(),
        tables: any_indices(rng)
            .into_iter()
            .map(|index| any_table(rng, index, exceptions))
            .collect(),
        dropped_data: any_indices(rng),
        dropped_elements: any_indices(rng),
        exceptions: (0..exceptions)
            .map(|_| Exception {
                tag: rng.u32(..),
                fields: any_values(rng, exceptions),
            })
            .collect(),
        frames: (0..rng.usize(0..4))
            .map(|_| any_frame(rng, exceptions))
            .collect(),
        host,
    }
}

fn any_text(rng: &mut Rng) -> String {
    (0..rng.usize(0..8)).map(|_| rng.char(..)).collect()
}

fn any_bytes(rng: &mut Rng, len_max: usize) -> Vec<u8> {
    (0..rng.usize(0..=len_max)).map(|_| rng.u8(..)).collect()
}

fn any_indices(rng: &mut Rng) -> Vec<u32> {
    let mut indices: Vec<u32> = (0..rng.usize(0..4)).map(|_| rng.u32(..)).collect();
    indices.sort_unstable();
    indices.dedup();
    indices
}

fn any_memory(rng: &mut Rng) -> MemoryState {
    let page_size_log2 = if rng.bool() { 0 } else { 16 };
    MemoryState {
        pages: rng.u64(0..=(1 << 48) >> page_size_log2),
        page_size_log2,
        content: MemoryHash(rng.u128(..).to_le_bytes().repeat(2).try_into().unwrap()),
    }
}

fn any_table(rng: &mut Rng, index: u32, exceptions: u32) -> TableState {
    let mut elements = Elements::default();
    for _ in 0..rng.usize(0..4) {
        elements.push_run(rng.u64(0..1000), any_value(rng, exceptions));
    }
    TableState { index, elements }
}

fn any_frame(rng: &mut Rng, exceptions: u32) -> Frame {
    let state = [FrameState::Calling, FrameState::Next, FrameState::HostCall][rng.usize(0..3)];
    Frame {
        function: rng.u32(..),
        offset: if state == FrameState::HostCall {
            0
        } else {
            rng.u32(..)
        },
        state,
        locals: any_indices(rng)
            .into_iter()
            .map(|index| (index, any_value(rng, exceptions)))
            .collect(),
        operands: any_values(rng, exceptions),
    }
}

fn any_values(rng: &mut Rng, exceptions: u32) -> Vec<Value> {
    (0..rng.usize(0..5))
        .map(|_| any_value(rng, exceptions))
        .collect()
}

fn any_value(rng: &mut Rng, exceptions: u32) -> Value {
    match rng.u8(0..10) {
        0 => Value::I32(rng.i32(..)),
        1 => Value::I64(rng.i64(..)),
        2 => Value::F32(rng.u32(..)),
        3 => Value::F64(rng.u64(..)),
        4 => Value::V128(rng.u128(..)),
        5 => Value::FuncRef(None),
        6 => Value::FuncRef(Some(rng.u32(..))),
        7 => Value::ExternRefNull,
        8 if exceptions > 0 => Value::ExnRef(Some(rng.u32(0..exceptions))),
        _ => Value::ExnRef(None),
    }
}

/// A memory of `len` bytes, zero but for `dirty` bytes all over it.
pub fn any_content(rng: &mut Rng, len: usize, dirty: usize) -> Vec<u8> {
    let mut memory = vec![0; len];
    for _ in 0..dirty {
        memory[rng.usize(0..len)] = rng.u8(1..);
    }
    memory
}

/// An empty store, and the folder that deletes it in the end.
pub fn empty_store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    (folder, store)
}

/// Publishes a program stopped in its export, with memories of one-byte pages.
pub fn publish(store: &Store, memories: &[&[u8]]) -> Result<ImageId, wsnap_snapshots::StoreError> {
    let module = store.put_module(MODULE)?;
    store.publish(manifest_with(module, memories), memories)
}

pub fn manifest_with(module: ModuleHash, memories: &[&[u8]]) -> Manifest {
    let mut manifest = Manifest::new(module, Invocation::export("_start"));
    manifest.memories = memories
        .iter()
        .map(|memory| MemoryState::draft(memory.len() as u64, 0))
        .collect();
    manifest.frames.push(Frame {
        function: 3,
        offset: 77,
        state: FrameState::Calling,
        locals: vec![(0, Value::I32(-1))],
        operands: vec![Value::F64(0x7ff8_0000_0000_0001)],
    });
    manifest
}

/// The memory as somebody who maps or reads the extents would see it.
pub fn content(image: &StoredImage, memory: usize) -> Vec<u8> {
    let memory = &image.memories()[memory];
    let mut bytes = vec![0; (memory.byte_len() as usize).next_multiple_of(4096)];
    for extent in memory.extents() {
        let mut file = Vec::new();
        File::open(memory.layers()[extent.layer as usize].path())
            .unwrap()
            .read_to_end(&mut file)
            .unwrap();
        let (start, end) = (extent.memory_offset as usize, extent.memory_end() as usize);
        bytes[start..end]
            .copy_from_slice(&file[extent.layer_offset as usize..extent.layer_end() as usize]);
    }
    bytes.truncate(memory.byte_len() as usize);
    bytes
}

/// The only file in a folder of a store.
pub fn only_file(store: &Store, folder: &str) -> PathBuf {
    let files = files_in(&store.directory().join(folder));
    assert_eq!(files.len(), 1, "{files:?}");
    files.into_iter().next().unwrap()
}

pub fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

/// Publishes an image that only `seed` decides on, with one page of its own.
pub fn publish_seed(store: &Store, seed: u64) -> ImageId {
    let mut memory = vec![0; 3 * 4096];
    memory[4096..4104].copy_from_slice(&(seed + 1).to_le_bytes());
    publish(store, &[&memory]).unwrap()
}

/// Records a snapshot of the program `name` at `taken_at_ms`.
pub fn record(
    store: &Store,
    image: ImageId,
    parent: Option<RecordId>,
    taken_at_ms: u64,
    name: Option<&str>,
) -> Record {
    let mut record = NewRecord::new(image, taken_at_ms, "snap");
    record.parent = parent;
    record.name = name.map(str::to_owned);
    store.put_record(record).unwrap()
}

/// The path and content of every file below a folder.
pub fn tree(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for path in files_in(folder) {
        match path.is_dir() {
            true => files.extend(tree(&path)),
            false => files.push((path.clone(), std::fs::read(&path).unwrap())),
        }
    }
    files
}

/// The space in bytes that the files below a folder take.
pub fn disk_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;

    let files = tree(folder);
    files
        .iter()
        .map(|(path, _)| path.metadata().unwrap().blocks() * 512)
        .sum()
}

/// Publishes the program of `base` after it has written `byte` all over some of its pages.
pub fn publish_change(
    store: &Store,
    base: &StoredImage,
    pages: std::ops::Range<u64>,
    byte: u8,
) -> StoredImage {
    let stored = &base.memories()[0];
    let mut memory = vec![0; stored.byte_len() as usize];
    stored.read_at(0, &mut memory).unwrap();
    let dirty = pages.start * 4096..pages.end * 4096;
    memory[dirty.start as usize..dirty.end as usize].fill(byte);
    let update = MemoryUpdate {
        base: Some(stored),
        byte_len: stored.byte_len(),
        dirty: &[dirty],
        source: &&memory[..],
    };
    let manifest = base.manifest().clone();
    store.publish_update(manifest, &[update]).unwrap().image
}
