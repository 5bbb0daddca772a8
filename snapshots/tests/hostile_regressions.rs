//! One test for each thing that an image from a stranger once could do.

mod common;

use common::{MODULE, empty_store};
use std::fs;
use wsnap_snapshots::{Invocation, Manifest, MemoryState};

/// It was opened each time, with all its layers, and verified each time.
#[test]
fn a_memory_that_a_manifest_names_again_and_again_is_opened_once() {
    const NAMED: usize = 2000;
    let (_folder, store) = empty_store();
    let module = store.put_module(MODULE).unwrap();
    let mut manifest = Manifest::new(module, Invocation::export("run"));
    manifest.memories = vec![MemoryState::draft(1, 16); NAMED];
    let memory = vec![7; 65536];
    let id = store
        .publish(manifest, &vec![memory.as_slice(); NAMED])
        .unwrap();
    let open_files = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open_files();
    let image = store.load(id).unwrap();
    assert_eq!(image.memories().len(), NAMED);
    // The manifest and one layer, and what other tests have open meanwhile.
    assert!(open_files() < before + 100);
    assert_eq!(image.checked_len(), 65536);
    image.verify().unwrap();
}
