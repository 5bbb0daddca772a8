//! Images that are told as differences from others, against a naive model of what they must hold.

mod common;

use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;

use common::{MODULE, any_content, content, empty_store, files_in, manifest_with};
use fastrand::Rng;
use wsnap_snapshots::{
    Damage, ImageId, LAYERS_MAX, MemoryState, MemoryTree, MemoryUpdate, PageSource, Published,
    Store, StoreError, StoredImage, mappings_max,
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

/// What the files of a store take on the disk, in bytes.
fn disk_bytes(store: &Store) -> u64 {
    let folders = ["images", "layers", "memories", "names", "tags", "tmp"];
    let files = folders
        .into_iter()
        .flat_map(|folder| files_in(&store.directory().join(folder)));
    let single = store.directory().join("verified");
    files
        .chain([single])
        .map(|path| fs::metadata(path).unwrap().blocks() * 512)
        .sum()
}

/// A memory of so many pages of which none is zero and no two are equal.
fn full_memory(page_count: usize) -> Vec<u8> {
    let mut memory = vec![7; page_count * PAGE];
    for (number, page) in memory.chunks_mut(PAGE).enumerate() {
        page[..8].copy_from_slice(&number.to_le_bytes());
    }
    memory
}

#[test]
fn seven_dirty_pages_take_64_kib_on_the_disk_at_most() {
    let (_folder, store) = empty_store();
    let mut memory = full_memory(4000);
    let base = update(&store, None, &memory, &everything(memory.len())).unwrap();
    let before = disk_bytes(&store);
    let dirty = [1, 500, 1000, 1500, 2500, 3000, 3999];
    dirty.iter().for_each(|page| memory[page * PAGE + 9] ^= 1);
    let next = update(&store, Some(&base.image), &memory, &pages(dirty)).unwrap();
    let added = disk_bytes(&store) - before;
    assert!(added <= 64 << 10, "{added}");
    assert!(next.added_bytes > 7 * PAGE as u64 && next.added_bytes <= added);
    assert_eq!(next.image.memories()[0].layers().len(), 2);
}

#[test]
fn one_percent_of_dirty_pages_costs_two_percent_more_than_the_pages_at_most() {
    let (_folder, store) = empty_store();
    let mut memory = full_memory(20_000);
    let base = update(&store, None, &memory, &everything(memory.len())).unwrap();
    let mut rng = Rng::with_seed(1);
    let dirty: std::collections::BTreeSet<usize> = (0..200).map(|_| rng.usize(0..20_000)).collect();
    dirty.iter().for_each(|page| memory[page * PAGE] ^= 0x80);
    let bytes = (dirty.len() * PAGE) as u64;
    let next = update(&store, Some(&base.image), &memory, &pages(dirty)).unwrap();
    // The header of the layer is a page, which counts for nothing in a larger memory.
    assert!(next.added_bytes - PAGE as u64 <= bytes + bytes / 50);
}

#[test]
fn pages_that_have_not_changed_cost_nothing() {
    let (_folder, store) = empty_store();
    let memory = full_memory(100);
    let base = update(&store, None, &memory, &everything(memory.len())).unwrap();
    let before = disk_bytes(&store);
    for dirty in [everything(memory.len()), pages([3, 50]), Vec::new()] {
        let same = update(&store, Some(&base.image), &memory, &dirty).unwrap();
        assert_eq!((same.image.id(), same.added_bytes), (base.image.id(), 0));
    }
    assert_eq!(disk_bytes(&store), before);
}

#[test]
fn a_page_that_becomes_zero_takes_no_space_and_stays_zero_when_the_memory_grows() {
    let (_folder, store) = empty_store();
    let mut memory = full_memory(40);
    let base = update(&store, None, &memory, &everything(memory.len())).unwrap();
    memory[35 * PAGE..].fill(0);
    memory.resize(60 * PAGE, 0);
    let next = update(&store, Some(&base.image), &memory, &pages(35..40)).unwrap();
    assert!(content(&next.image, 0) == memory);
    assert_eq!(next.image.memories()[0].layers()[1].page_bytes(), 0);
    assert_eq!(next.image.memories()[0].stored_len(), 35 * PAGE as u64);
}

#[test]
fn a_long_chain_of_small_updates_lies_in_few_layers() {
    let (_folder, store) = empty_store();
    let mut memory = full_memory(700);
    let mut image = update(&store, None, &memory, &everything(memory.len()))
        .unwrap()
        .image;
    let mut added = 0;
    let mut ids = Vec::new();
    for step in 0..400 {
        let page = step * 13 % 700;
        memory[page * PAGE + 100] ^= 1;
        let next = update(&store, Some(&image), &memory, &pages([page])).unwrap();
        added += next.added_bytes;
        image = next.image;
        check_limits(&image);
        ids.push(image.id());
    }
    assert!(content(&image, 0) == memory);
    for id in ids {
        store.load(id).unwrap().verify().unwrap();
    }
    // A page, its share of taking over, header, index, page map and manifest.
    assert!(added / 400 < 8 * PAGE as u64, "{added}");
}

#[test]
fn a_memory_cut_up_into_too_many_pieces_is_joined() {
    let (_folder, store) = empty_store();
    let mut memory = full_memory(2000);
    let base = update(&store, None, &memory, &everything(memory.len())).unwrap();
    let dirty: Vec<usize> = (0..2000).step_by(3).collect();
    dirty.iter().for_each(|page| memory[page * PAGE + 5] = 9);
    let next = update(&store, Some(&base.image), &memory, &pages(dirty)).unwrap();
    assert!(next.image.memories()[0].extents().len() <= mappings_max(memory.len() as u64));
    assert!(content(&next.image, 0) == memory);
    next.image.verify().unwrap();
}

#[test]
fn zeros_between_pieces_that_are_joined_take_no_space() {
    let (_folder, store) = empty_store();
    let mut memory = vec![0; 5000 * PAGE];
    for page in (0..5000).step_by(5) {
        memory[page * PAGE] = 1;
    }
    let image = update(&store, None, &memory, &everything(memory.len()))
        .unwrap()
        .image;
    assert!(image.memories()[0].extents().len() <= mappings_max(memory.len() as u64));
    assert!(content(&image, 0) == memory);
    image.verify().unwrap();
    let added = disk_bytes(&store);
    assert!(added < 1020 * PAGE as u64, "{added}");
}

#[test]
fn flattening_leaves_one_layer_and_the_same_content() {
    let (_folder, store) = empty_store();
    let mut memory = full_memory(100);
    let mut image = update(&store, None, &memory, &everything(memory.len()))
        .unwrap()
        .image;
    for page in [5, 50, 99, 20] {
        let range = page * PAGE..(page + 1) * PAGE;
        memory[range].fill(if page == 20 { 0 } else { 3 });
        image = update(&store, Some(&image), &memory, &pages([page]))
            .unwrap()
            .image;
    }
    assert_eq!(image.memories()[0].layers().len(), 5);
    store.flatten(image.id()).unwrap();
    let flat = store.load(image.id()).unwrap();
    assert_eq!(flat.memories()[0].layers().len(), 1);
    assert_eq!(
        flat.memories()[0].layers()[0].page_bytes(),
        99 * PAGE as u64
    );
    assert!(content(&flat, 0) == memory);
    flat.verify().unwrap();
    image.verify().unwrap();
    let before = disk_bytes(&store);
    store.flatten(image.id()).unwrap();
    assert_eq!(disk_bytes(&store), before);
}

#[test]
fn a_base_whose_layers_are_gone_is_still_a_base() {
    for page_map_too in [false, true] {
        let (_folder, store) = empty_store();
        let mut memory = full_memory(60);
        let first = update(&store, None, &memory, &everything(memory.len()))
            .unwrap()
            .image;
        memory[7 * PAGE] ^= 1;
        let base = update(&store, Some(&first), &memory, &pages([7]))
            .unwrap()
            .image;
        // Somebody lays the memory out anew and deletes what is not needed any more; the open image still reads it.
        store.flatten(base.id()).unwrap();
        for layer in base.memories()[0].layers() {
            fs::remove_file(layer.path()).unwrap();
        }
        if page_map_too {
            let name = base.memories()[0].hash().to_string();
            fs::remove_file(store.directory().join("memories").join(name)).unwrap();
        }
        memory[8 * PAGE] ^= 1;
        let next = update(&store, Some(&base), &memory, &pages([8]))
            .unwrap()
            .image;
        assert!(content(&next, 0) == memory);
        store.load(next.id()).unwrap().verify().unwrap();
    }
}

#[test]
fn stretches_that_make_no_sense_are_refused() {
    let (_folder, store) = empty_store();
    let memory = full_memory(10);
    let base = update(&store, None, &memory, &everything(memory.len()))
        .unwrap()
        .image;
    let page = PAGE as u64;
    let cases: [(usize, &[(u64, u64)]); 7] = [
        (0, &[(1, page)]),
        (0, &[(0, page + 1)]),
        (0, &[(page, page)]),
        (0, &[(0, 11 * page)]),
        (0, &[(page, 3 * page), (2 * page, 4 * page)]),
        (0, &[(4 * page, 5 * page), (0, page)]),
        (1, &[]),
    ];
    for (missing, dirty) in cases {
        let dirty: Vec<Range<u64>> = dirty.iter().map(|(start, end)| *start..*end).collect();
        let len = memory.len() - missing;
        match update_from(&store, Some(&base), len, &dirty, &memory) {
            Err(StoreError::MemoryMismatch { .. }) => (),
            other => panic!("{dirty:?}: {other:?}"),
        }
    }
}

/// A memory whose bytes cannot be read from some offset on.
struct Broken(Vec<u8>, u64);

impl PageSource for Broken {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if offset + buffer.len() as u64 > self.1 {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        self.0.read_at(offset, buffer)
    }
}

#[test]
fn a_source_that_fails_leaves_nothing_behind() {
    let (_folder, store) = empty_store();
    let memory = full_memory(5000);
    for broken_from in [0, 9 << 20, memory.len() as u64 - 1] {
        let source = Broken(memory.clone(), broken_from);
        match update_from(
            &store,
            None,
            memory.len(),
            &everything(memory.len()),
            &source,
        ) {
            Err(StoreError::Source { offset, source }) => {
                assert!(offset + (1 << 20) > broken_from, "{offset}");
                assert_eq!(source.kind(), io::ErrorKind::ConnectionReset);
            }
            other => panic!("{other:?}"),
        }
        for folder in ["tmp", "layers", "memories", "images"] {
            assert!(files_in(&store.directory().join(folder)).is_empty());
        }
    }
}

#[test]
fn a_source_is_asked_for_dirty_bytes_only_and_once_each() {
    struct Counting<'a>(&'a [u8], std::sync::Mutex<Vec<Range<u64>>>);
    impl PageSource for Counting<'_> {
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            let end = offset + buffer.len() as u64;
            self.1.lock().unwrap().push(offset..end);
            self.0.read_at(offset, buffer)
        }
    }
    let (_folder, store) = empty_store();
    let mut memory = full_memory(3000);
    let base = update(&store, None, &memory, &everything(memory.len()))
        .unwrap()
        .image;
    memory[100 * PAGE..2500 * PAGE]
        .iter_mut()
        .for_each(|byte| *byte ^= 1);
    let dirty = pages([3, 17, 18].into_iter().chain(100..2500));
    let source = Counting(&memory, Default::default());
    update_from(&store, Some(&base), memory.len(), &dirty, &source).unwrap();
    let mut read = source.1.into_inner().unwrap();
    read.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in read {
        match joined.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => joined.push(range),
        }
    }
    assert_eq!(joined, dirty);
}

/// Flips a byte of a layer, in place.
fn damage(path: &std::path::Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn damage_in_a_base_does_not_pass_for_content() {
    let (_folder, store) = empty_store();
    let mut memory = full_memory(64);
    let base = update(&store, None, &memory, &everything(memory.len()))
        .unwrap()
        .image;
    let layer = base.memories()[0].layers()[0].path().to_owned();
    damage(&layer, 4096 + 5 * PAGE);
    let base = store.load(base.id()).unwrap();
    memory[0] ^= 1;
    match update(&store, Some(&base), &memory, &pages([0])) {
        Err(StoreError::Damaged {
            what: "layer",
            path,
            source: Damage::Leaf { offset: 0 },
        }) => assert_eq!(path, layer),
        other => panic!("{other:?}"),
    }
    // Where the damaged bytes are not needed the update succeeds, and they are found as before.
    memory[0] ^= 1;
    memory[40 * PAGE] ^= 1;
    let next = update(&store, Some(&base), &memory, &pages([40]))
        .unwrap()
        .image;
    match next.verify() {
        Err(StoreError::DamagedMemory { offset: 0, .. }) => (),
        other => panic!("{other:?}"),
    }
    match store.flatten(next.id()) {
        Err(StoreError::Damaged {
            source: Damage::Leaf { offset: 0 },
            ..
        }) => (),
        other => panic!("{other:?}"),
    }
    assert!(files_in(&store.directory().join("tmp")).is_empty());
}
