//! A store that the first version of the format wrote is read for ever.

mod common;

use std::fs;
use std::path::Path;

use common::{MODULE, content, empty_store, manifest_with};
use wsnap_snapshots::{ImageId, MemoryState, Store};

const ID: &str = "cb2cb35d1cc46d5382b68b8fc8cf643821d224fecbd676869538a9f3021054e5";

/// Two pages with something in them, one of them cut short by the end of the memory.
fn golden_memory() -> Vec<u8> {
    let mut memory = vec![0; 70_001];
    memory[..5].copy_from_slice(b"wsnap");
    memory[70_000] = 0xff;
    memory
}

fn publish_golden(store: &Store) -> ImageId {
    let memory = golden_memory();
    let mut manifest = manifest_with(store.put_module(MODULE).unwrap(), &[&memory]);
    manifest.memories.push(MemoryState::draft(3, 16));
    let id = store
        .publish(manifest, &[&memory, &vec![0; 3 << 16]])
        .unwrap();
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
    copy(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store-v1"),
        &path,
    );
    let store = Store::open(path).unwrap();
    for reference in ["v1", "job", &ID[..8], ID] {
        assert_eq!(store.resolve(reference).unwrap().to_string(), ID);
    }
    let image = store.load(ID.parse().unwrap()).unwrap();
    image.verify().unwrap();
    assert_eq!(content(&image, 0), golden_memory());
    assert_eq!(content(&image, 1), vec![0; 3 << 16]);
    assert_eq!(store.module(image.manifest().module).unwrap(), MODULE);
}

#[test]
fn the_state_of_the_golden_store_still_has_the_same_id() {
    let (_folder, store) = empty_store();
    assert_eq!(publish_golden(&store).to_string(), ID);
}
