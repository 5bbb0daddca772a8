//! A store that the first version of the format wrote is read for ever.

mod common;

use std::fs;
use std::ops::Range;
use std::path::Path;

use common::{MODULE, content, empty_store, files_in, manifest_with};
use wsnap_snapshots::{ImageId, MemoryState, MemoryUpdate, Store};

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/store-v1");
const ID: &str = "4e63c3b0e0aa5ad0e084cd8d7412bae7f99d6a4e7d68a687eba87a10bfde02c4";

/// Three pages with something in them, one of them cut short by the end of the memory.
fn first_memory() -> Vec<u8> {
    let mut memory = vec![0; 70_001];
    memory[..5].copy_from_slice(b"wsnap");
    memory[8192..8196].copy_from_slice(b"gone");
    memory[70_000] = 0xff;
    memory
}

/// The same memory later: it has grown, a page has changed, one has become zero, one is new.
fn second_memory() -> Vec<u8> {
    let mut memory = first_memory();
    memory.resize(140_001, 0);
    memory[8192..8196].fill(0);
    memory[69_632] = 1;
    memory[140_000] = 0xee;
    memory
}

/// Pages 2, 17 and 34.
const CHANGED: [Range<u64>; 3] = [8192..12_288, 69_632..73_728, 139_264..143_360];

fn publish_golden(store: &Store) -> ImageId {
    let zeros = vec![0; 3 << 16];
    let manifest = |memory: &[u8]| {
        let mut manifest = manifest_with(store.put_module(MODULE).unwrap(), &[memory]);
        manifest.memories.push(MemoryState::draft(3, 16));
        manifest
    };
    let first = first_memory();
    let id = store.publish(manifest(&first), &[&first, &zeros]).unwrap();
    store.set_tag("first", id).unwrap();

    let base = store.load(id).unwrap();
    let second = second_memory();
    let update = |memory: usize, byte_len: usize, dirty| MemoryUpdate {
        base: Some(&base.memories()[memory]),
        byte_len: byte_len as u64,
        dirty,
        source: &second,
    };
    let updates = [
        update(0, second.len(), &CHANGED),
        update(1, zeros.len(), &[]),
    ];
    let id = store
        .publish_update(manifest(&second), &updates)
        .unwrap()
        .image
        .id();
    store.set_name("job", id).unwrap();
    store.set_tag("v1", id).unwrap();
    id
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => fs::write(target, fs::read(entry.path()).unwrap()).unwrap(),
        }
    }
}

#[test]
fn a_store_of_version_1_is_read_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    // Opening a store can complete its folders, and the fixture has to stay as it is.
    copy(Path::new(FIXTURE), &path);
    let store = Store::open(path).unwrap();
    for reference in ["v1", "job", &ID[..8], ID] {
        assert_eq!(store.resolve(reference).unwrap().to_string(), ID);
    }
    let image = store.load(ID.parse().unwrap()).unwrap();
    image.verify().unwrap();
    assert_eq!(image.memories()[0].layers().len(), 2);
    assert_eq!(content(&image, 0), second_memory());
    assert_eq!(content(&image, 1), vec![0; 3 << 16]);
    assert_eq!(store.module(image.manifest().module).unwrap(), MODULE);
    let first = store.load(store.resolve("first").unwrap()).unwrap();
    first.verify().unwrap();
    assert_eq!(content(&first, 0), first_memory());
}

#[test]
fn the_state_of_the_golden_store_still_has_the_same_id_and_the_same_files() {
    let (_folder, store) = empty_store();
    assert_eq!(publish_golden(&store).to_string(), ID);
    for folder in ["images", "layers", "memories", "modules", "names", "tags"] {
        let files = files_in(&store.directory().join(folder));
        assert!(!files.is_empty());
        for file in files {
            let golden = Path::new(FIXTURE)
                .join(folder)
                .join(file.file_name().unwrap());
            assert!(
                fs::read(&file).unwrap() == fs::read(golden).unwrap(),
                "{file:?}"
            );
        }
    }
}
