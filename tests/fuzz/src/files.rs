//! Stores from strangers: files of a true one, changed, with whatever checksums and names they need fitting again.

use crate::input::{Input, disturb_bytes};
use crate::measure;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use wsnap_snapshots::{ImageId, Invocation, Manifest, MemoryState, MemoryUpdate, Store};

const MODULE: &[u8] = b"\0asm\x01\0\0\0";
const PAGE: usize = 4096;

/// So much reading a store may take for each byte of its files, and whatever they are: buffers for each core.
const BYTES_PER_BYTE: usize = 50;
const BYTES_ALWAYS: usize = 16 << 20;

/// What the page maps' fields are in front of the layers' names, and the checksum behind them.
const LAYERS: usize = 28;
const CHECKSUM: usize = 32;

/// A memory of some leaves, of which the second image changes pages in the first, in the middle and at the end.
const MEMORY_BYTES: usize = 5 * 65536;

/// A store's files, by their paths in it, and an image in it.
struct Seed {
    files: BTreeMap<PathBuf, Vec<u8>>,
    image: ImageId,
}

fn seed() -> &'static Seed {
    static SEED: OnceLock<Seed> = OnceLock::new();
    SEED.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = directory.path().join("store");
        let (store, image) = true_store(&root);
        drop(store);
        let mut files = BTreeMap::new();
        collect(&root, &root, &mut files);
        Seed { files, image }
    })
}

/// A store in `root` with two images, the second of which has two layers.
pub fn true_store(root: &Path) -> (Store, ImageId) {
    let store = Store::open(root).expect("a store can be made");
    let module = store.put_module(MODULE).expect("there is room");
    let mut manifest = Manifest::new(module, Invocation::export("run"));
    manifest.memories.push(MemoryState::draft(5, 16));
    let mut memory = vec![0; MEMORY_BYTES];
    for page in [0, 1, 3, 20, 21, 40, 79] {
        memory[page * PAGE..][..PAGE].fill(page as u8 + 1);
    }
    let first = store
        .publish(manifest.clone(), &[&memory])
        .expect("there is room");
    let base = store.load(first).expect("it has just been stored");
    // A page that is zero again, one that is another, one that is new, and another at the end.
    for (page, byte) in [(1, 0), (3, 9), (50, 8), (79, 7)] {
        memory[page * PAGE..][..PAGE].fill(byte);
    }
    let dirty = [1, 3, 50, 79].map(|page: u64| page * PAGE as u64..(page + 1) * PAGE as u64);
    let update = MemoryUpdate {
        base: Some(&base.memories()[0]),
        byte_len: memory.len() as u64,
        dirty: &dirty,
        source: &memory,
    };
    let published = store
        .publish_update(manifest, &[update])
        .expect("there is room");
    let image = published.image.id();
    drop((published, base));
    (store, image)
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(folder).expect("it is a folder") {
        let path = entry.expect("it is readable").path();
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            let bytes = fs::read(&path).expect("it is readable");
            files.insert(
                path.strip_prefix(root).expect("it is inside").to_owned(),
                bytes,
            );
        }
    }
}

/// Changes the layers' names, or anything else of a page map, whose checksum fits afterwards.
fn disturb_map(input: &mut Input<'_>, map: &mut Vec<u8>) {
    map.truncate(map.len().saturating_sub(CHECKSUM));
    disturb_bytes(input, map);
    let checksum = blake3::hash(map);
    map.extend_from_slice(checksum.as_bytes());
}

/// Changes the index of a layer, whose header and name fit afterwards; returns the name.
fn disturb_layer(input: &mut Input<'_>, layer: &mut Vec<u8>) -> [u8; 32] {
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    };
    let index_len = (number(&layer[84..92]) as usize).min(layer.len() - PAGE);
    let mut index = layer.split_off(layer.len() - index_len);
    disturb_bytes(input, &mut index);
    if input.once_in(4) {
        let pages = layer.len() - PAGE;
        layer.resize(PAGE + pages / 2 / PAGE * PAGE, 0);
    }
    let mut pages = (layer.len() - PAGE) as u64;
    if input.once_in(4) {
        pages = input.anything(pages);
    }
    let mut hasher =
        blake3::Hasher::new_keyed(b"wsnap layer\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    hasher.update(&layer[44..76]).update(&index);
    let id = *hasher.finalize().as_bytes();
    layer[12..44].copy_from_slice(&id);
    layer[76..84].copy_from_slice(&pages.to_le_bytes());
    layer[84..92].copy_from_slice(&(index.len() as u64).to_le_bytes());
    layer.extend_from_slice(&index);
    id
}

/// Changes a file of the store, and what has to follow from it in others.
fn disturb_files(input: &mut Input<'_>, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    let kind = |folder: &str| {
        let of_kind = files.keys().filter(|path| path.starts_with(folder));
        of_kind.cloned().collect::<Vec<PathBuf>>()
    };
    let (maps, layers) = (kind("memories"), kind("layers"));
    match input.byte() % 4 {
        0 => {
            let all: Vec<PathBuf> = files.keys().cloned().collect();
            let path = &all[input.index(all.len())];
            files
                .entry(path.clone())
                .and_modify(|bytes| disturb_bytes(input, bytes));
        }
        1 => {
            let path = &maps[input.index(maps.len())];
            files
                .entry(path.clone())
                .and_modify(|map| disturb_map(input, map));
        }
        _ => {
            let path = &layers[input.index(layers.len())];
            let mut layer = files.remove(path).expect("it was listed");
            let before = layer[12..44].to_vec();
            let id = disturb_layer(input, &mut layer);
            let name = blake3::Hash::from_bytes(id).to_hex();
            files.insert(Path::new("layers").join(name.as_str()), layer);
            for map in maps {
                files.entry(map).and_modify(|map| {
                    map.truncate(map.len() - CHECKSUM);
                    for layer in map[LAYERS..]
                        .chunks_exact_mut(32)
                        .filter(|layer| **layer == before)
                    {
                        layer.copy_from_slice(&id);
                    }
                    let checksum = blake3::hash(map);
                    map.extend_from_slice(checksum.as_bytes());
                });
            }
        }
    }
}

/// Opens an image of a store whose files are changed as `bytes` say.
///
/// # Panics
///
/// If something does not hold.
pub fn check(bytes: &[u8]) {
    let seed = seed();
    let mut turn = measure::turn();
    let mut input = Input::new(bytes);
    let mut files = seed.files.clone();
    disturb_files(&mut input, &mut files);
    let length: usize = files.values().map(Vec::len).sum();
    let directory = crate::scratch::scratch();
    for (path, bytes) in &files {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().expect("it is inside")).expect("there is room");
        fs::write(path, bytes).expect("there is room");
    }
    turn.restart();
    let Ok(store) = Store::open(directory.path()) else {
        return;
    };
    if let Ok(image) = store.load(seed.image) {
        for memory in image.memories() {
            let mut end = 0;
            for extent in memory.extents() {
                assert!(
                    extent.memory_offset >= end && extent.length > 0,
                    "{extent:?}"
                );
                end = extent.memory_end();
                let layer = &memory.layers()[extent.layer as usize];
                let file = layer.file().metadata().expect("it is open");
                assert!(
                    extent.layer_end() <= file.len(),
                    "{extent:?} of {} bytes",
                    file.len()
                );
            }
            assert!(end <= memory.byte_len().next_multiple_of(PAGE as u64));
        }
        if image.verify().is_ok() {
            let mut memory = vec![0; MEMORY_BYTES];
            image.memories()[0]
                .read_at(0, &mut memory)
                .expect("it has been verified");
            let pages = [(0, 1), (1, 0), (3, 9), (20, 21), (50, 8), (79, 7)];
            let fits = |(page, byte): (usize, u8)| {
                memory[page * PAGE..][..PAGE]
                    .iter()
                    .all(|found| *found == byte)
            };
            assert!(
                pages.into_iter().all(fits),
                "what was verified has another content"
            );
        }
    }
    turn.took_at_most(BYTES_ALWAYS + length * BYTES_PER_BYTE);
}
