//! Images that are told as differences from others, against a naive model of what they must hold.

mod common;

use std::ops::Range;

use common::{MODULE, any_content, content, empty_store, manifest_with};
use fastrand::Rng;
use wsnap_snapshots::{
    ImageId, LAYERS_MAX, MemoryState, MemoryTree, MemoryUpdate, PageSource, Published, Store,
    StoreError, StoredImage, mappings_max,
};

const PAGE: usize = 4096;
const LEAF: usize = 1 << 16;

/// Publishes `memory` as an update of the only memory of `base`.
fn update(
    store: &Store,
    base: Option<&StoredImage>,
    memory: &[u8],
    dirty: &[Range<u64>],
) -> Result<Published, StoreError> {
    update_from(store, base, memory.len(), dirty, &memory)
}

fn update_from(
    store: &Store,
    base: Option<&StoredImage>,
    len: usize,
    dirty: &[Range<u64>],
    source: &dyn PageSource,
) -> Result<Published, StoreError> {
    let module = store.put_module(MODULE)?;
    let mut manifest = manifest_with(module, &[]);
    manifest.memories.push(MemoryState::draft(len as u64, 0));
    let update = MemoryUpdate {
        base: base.map(|image| &image.memories()[0]),
        byte_len: len as u64,
        dirty,
        source,
    };
    store.publish_update(manifest, &[update])
}

fn everything(len: usize) -> Vec<Range<u64>> {
    let end = len.next_multiple_of(PAGE) as u64;
    Vec::from_iter((end > 0).then_some(0..end))
}

fn pages(numbers: impl IntoIterator<Item = usize>) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for number in numbers {
        let (start, end) = ((number * PAGE) as u64, ((number + 1) * PAGE) as u64);
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => ranges.push(start..end),
        }
    }
    ranges
}

fn check_limits(image: &StoredImage) {
    let memory = &image.memories()[0];
    assert!(memory.layers().len() <= LAYERS_MAX);
    assert!(memory.extents().len() <= mappings_max(memory.byte_len()));
}

/// Changes a memory at random and returns the dirty pages, some of which have not changed.
fn change(rng: &mut Rng, memory: &mut Vec<u8>) -> Vec<Range<u64>> {
    let before = memory.len();
    if rng.u8(0..10) == 0 {
        memory.resize(before + rng.usize(0..3 * LEAF), 0);
    }
    let page_count = memory.len().div_ceil(PAGE);
    let mut dirty = std::collections::BTreeSet::new();
    for _ in 0..rng.usize(0..4) {
        let longest = if rng.u8(0..20) == 0 { page_count } else { 6 };
        let first = rng.usize(0..page_count);
        let last = (first + rng.usize(0..longest)).min(page_count - 1);
        let kind = rng.u8(0..4);
        for page in first..=last {
            dirty.insert(page);
            let range = page * PAGE..memory.len().min((page + 1) * PAGE);
            match kind {
                0 => memory[range].fill(0),
                1 => (),
                2 => memory[range.start] = rng.u8(..),
                _ => memory[range].fill_with(|| rng.u8(..)),
            }
        }
    }
    pages(dirty)
}

#[test]
fn any_chain_of_updates_holds_what_a_copy_of_the_memory_holds() {
    for seed in 0..3 {
        let mut rng = Rng::with_seed(seed);
        let (_folder, store) = empty_store();
        let len = rng.usize(1..40 * LEAF);
        let mut memory = any_content(&mut rng, len, 500);
        let mut image = update(&store, None, &memory, &everything(len))
            .unwrap()
            .image;
        let mut history: Vec<(ImageId, blake3::Hash)> = Vec::new();
        for step in 0..100 {
            let dirty = change(&mut rng, &mut memory);
            image = update(&store, Some(&image), &memory, &dirty).unwrap().image;
            let stored = &image.memories()[0];
            assert_eq!(
                stored.hash(),
                MemoryTree::of(&memory).root(),
                "seed {seed} step {step}"
            );
            assert!(content(&image, 0) == memory, "seed {seed} step {step}");
            check_limits(&image);
            history.push((image.id(), blake3::hash(&memory)));
        }
        for (id, expected) in history {
            let old = store.load(id).unwrap();
            old.verify().unwrap();
            assert_eq!(blake3::hash(&content(&old, 0)), expected);
        }
    }
}
