//! Each kind of damage to a store is found and named, without a panic, and without trusting a length.

mod common;

use std::fs;
use std::path::Path;

use common::{any_content, empty_store, only_file, publish};
use fastrand::Rng;
use wsnap_snapshots::{Damage, DecodeError, ImageId, MemoryUpdate, ModuleHash, Store, StoreError};

/// Where fields of a page map start.
const BYTE_LEN: usize = 12;
const LAYER_COUNT: usize = 20;
const FIRST_LAYER: usize = 28;

/// Where fields of the header of a layer start.
const ID: usize = 12;
const MEMORY: usize = 44;
const PAGE_BYTES: usize = 76;
const INDEX_LEN: usize = 84;
const HEADER_END: usize = 92;

/// Where the index of the layer of [`victim`] starts in the file, and its fields in the index: two entries, and the
/// hashes of two leaves.
const INDEX: usize = 5 * 4096;
const FIRST: usize = 8;
const SECOND: usize = FIRST + 17;
const LEAF_COUNT: usize = SECOND + 17;
const LEAVES: usize = LEAF_COUNT + 8;
const INDEX_END: usize = LEAVES + 64;

/// A store with one image whose single memory has pages 2 and 3, and 32 and the padded 33, so leaves 0 and 2.
fn victim() -> (tempfile::TempDir, Store, ImageId) {
    let (folder, store) = empty_store();
    let id = publish(&store, &[&victim_memory()]).unwrap();
    (folder, store, id)
}

fn victim_memory() -> Vec<u8> {
    let mut memory = vec![0; 33 * 4096 + 50];
    for at in [2 * 4096, 3 * 4096 + 5, 32 * 4096 + 1, 33 * 4096 + 49] {
        memory[at] = 0xaa;
    }
    memory
}

/// Changes a file in place of the published one, which is write-protected.
fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Changes the page map and makes its checksum fit, as a malicious sender would.
fn forge_map(store: &Store, forgery: impl FnOnce(&mut Vec<u8>)) {
    change(&only_file(store, "memories"), |bytes| {
        bytes.truncate(bytes.len() - 32);
        forgery(bytes);
        let checksum = blake3::hash(bytes);
        bytes.extend(checksum.as_bytes());
    });
}

/// Changes the index of the layer and makes everything else fit: the layer's name, its header and the page map.
fn forge_index(store: &Store, forgery: impl FnOnce(&mut Vec<u8>)) {
    let path = only_file(store, "layers");
    let mut bytes = fs::read(&path).unwrap();
    fs::remove_file(path).unwrap();
    let mut index = bytes.split_off(INDEX);
    forgery(&mut index);
    let mut key = [0; 32];
    key[..11].copy_from_slice(b"wsnap layer");
    let mut id = blake3::Hasher::new_keyed(&key);
    id.update(&bytes[MEMORY..PAGE_BYTES]).update(&index);
    let id = id.finalize();
    bytes[ID..MEMORY].copy_from_slice(id.as_bytes());
    bytes[INDEX_LEN..HEADER_END].copy_from_slice(&(index.len() as u64).to_le_bytes());
    bytes.extend(index);
    let name = id.to_hex().to_string();
    fs::write(store.directory().join("layers").join(name), bytes).unwrap();
    forge_map(store, |map| {
        map[FIRST_LAYER..][..32].copy_from_slice(id.as_bytes())
    });
}

fn put(bytes: &mut [u8], at: usize, number: u64) {
    bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
}

/// What [`Store::load`] finds damaged.
fn damage(store: &Store, id: ImageId) -> (&'static str, Damage) {
    match store.load(id) {
        Err(StoreError::Damaged { what, source, path }) => {
            assert!(path.starts_with(store.directory()));
            (what, source)
        }
        other => panic!("{other:?}"),
    }
}

fn map_damage(store: &Store, id: ImageId) -> DecodeError {
    match damage(store, id) {
        ("page map", Damage::Decode(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn index_damage(store: &Store, id: ImageId) -> DecodeError {
    match damage(store, id) {
        ("layer", Damage::Decode(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn any_flipped_bit_in_a_manifest_is_found() {
    let (_folder, store, id) = victim();
    let path = only_file(&store, "images");
    let intact = fs::read(&path).unwrap();
    for at in 0..intact.len() {
        change(&path, |bytes| bytes[at] ^= 4);
        match damage(&store, id) {
            ("image", Damage::Hash { found }) => assert_ne!(found, id.to_string()),
            other => panic!("byte {at}: {other:?}"),
        }
        change(&path, |bytes| bytes[at] ^= 4);
    }
    store.load(id).unwrap().verify().unwrap();
}

#[test]
fn any_flipped_bit_in_a_page_map_is_found() {
    let (_folder, store, id) = victim();
    let path = only_file(&store, "memories");
    for at in 0..fs::metadata(&path).unwrap().len() as usize {
        change(&path, |bytes| bytes[at] ^= 1);
        match map_damage(&store, id) {
            DecodeError::NotThisFormat { format: "page map" } => assert!(at < 8),
            DecodeError::Version {
                format: "page map",
                supported: 1,
                ..
            } => assert!((8..12).contains(&at)),
            DecodeError::Checksum => assert!(at >= 12),
            other => panic!("byte {at}: {other}"),
        }
        change(&path, |bytes| bytes[at] ^= 1);
    }
    store.load(id).unwrap().verify().unwrap();
}

#[test]
fn any_flipped_bit_in_a_layer_is_found() {
    let (_folder, store, id) = victim();
    let path = only_file(&store, "layers");
    for at in (0..INDEX).step_by(37).chain(INDEX..INDEX + INDEX_END) {
        change(&path, |bytes| bytes[at] ^= 0x80);
        match at {
            0..8 => assert_eq!(
                damage(&store, id),
                (
                    "layer",
                    DecodeError::NotThisFormat { format: "layer" }.into()
                )
            ),
            8..12 => match damage(&store, id) {
                (
                    "layer",
                    Damage::Decode(DecodeError::Version {
                        format: "layer", ..
                    }),
                ) => (),
                other => panic!("byte {at}: {other:?}"),
            },
            ID..MEMORY => match damage(&store, id) {
                ("layer", Damage::OtherLayer { .. }) => (),
                other => panic!("byte {at}: {other:?}"),
            },
            MEMORY..PAGE_BYTES | INDEX.. => match damage(&store, id) {
                ("layer", Damage::Hash { found }) => assert!(!path.ends_with(found)),
                other => panic!("byte {at}: {other:?}"),
            },
            PAGE_BYTES..HEADER_END => match damage(&store, id) {
                ("layer", Damage::Size { expected, found }) => {
                    assert_eq!(found, (INDEX + INDEX_END) as u64);
                    assert!(expected > found);
                }
                other => panic!("byte {at}: {other:?}"),
            },
            HEADER_END..4096 => {
                let error = DecodeError::TrailingBytes { offset: HEADER_END };
                assert_eq!(damage(&store, id), ("layer", error.into()), "byte {at}");
            }
            _ => match store.load(id).unwrap().verify() {
                Err(StoreError::DamagedMemory {
                    image,
                    memory: 0,
                    offset,
                }) => {
                    // Two pages belong to leaf 0, the other two to leaf 2; the padding at the very end counts too.
                    assert_eq!(
                        (image, offset),
                        (id, if at < 3 * 4096 { 0 } else { 2 << 16 }),
                        "byte {at}"
                    );
                }
                other => panic!("byte {at}: {other:?}"),
            },
        }
        change(&path, |bytes| bytes[at] ^= 0x80);
    }
    store.load(id).unwrap().verify().unwrap();
}

#[test]
fn any_flipped_bit_in_a_record_and_any_cut_is_found() {
    let (_folder, store, id) = victim();
    let record = common::record(&store, id, None, 1, Some("job"));
    let path = only_file(&store, "records");
    let intact = fs::read(&path).unwrap();
    let flipped = (0..intact.len() * 8).map(|bit| {
        let mut bytes = intact.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    });
    let cut = (0..intact.len()).map(|len| intact[..len].to_vec());
    for bytes in flipped.chain(cut) {
        fs::write(&path, &bytes).unwrap();
        match store.records() {
            Err(StoreError::Damaged {
                what: "record",
                path: named,
                source: Damage::RecordChecksum,
            }) => assert_eq!(named, path),
            other => panic!("{other:?}"),
        }
        // Nobody deletes anything while it is not known what is needed.
        match store.gc(&Default::default()) {
            Err(StoreError::Damaged { what: "record", .. }) => (),
            other => panic!("{other:?}"),
        }
    }
    fs::write(&path, &intact).unwrap();
    assert_eq!(store.records().unwrap(), [record]);
}

#[test]
fn a_flipped_bit_in_a_module_is_found() {
    let (_folder, store, _) = victim();
    change(&only_file(&store, "modules"), |bytes| bytes[5] ^= 1);
    match store.module(ModuleHash::of(common::MODULE)) {
        Err(StoreError::Damaged {
            what: "module",
            source: Damage::Hash { .. },
            ..
        }) => (),
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_cut_short_or_lengthened_are_found() {
    for folder in ["images", "memories", "layers"] {
        let (_folder, store, id) = victim();
        let path = only_file(&store, folder);
        let len = fs::metadata(&path).unwrap().len() as usize;
        for other in [0, 1, 7, 11, 12, 40, 43, 44, len - 1, len + 1, len + 4096] {
            change(&path, |bytes| bytes.resize(other, 0));
            match (folder, damage(&store, id)) {
                ("images", ("image", Damage::Hash { .. })) => (),
                ("memories", ("page map", Damage::Decode(error))) => match error {
                    DecodeError::NotThisFormat { .. } => assert!(other < 8),
                    DecodeError::Truncated { .. } => assert!(other < 44),
                    DecodeError::Checksum => assert!(other >= 44),
                    error => panic!("{other} bytes: {error}"),
                },
                ("layers", ("layer", Damage::Size { found, .. })) => {
                    assert_eq!(found, other as u64)
                }
                (_, error) => panic!("{folder} of {other} bytes: {error:?}"),
            }
            change(&path, |bytes| bytes.truncate(len));
            let intact = victim();
            change(&path, |bytes| {
                *bytes = fs::read(only_file(&intact.1, folder)).unwrap()
            });
        }
        store.load(id).unwrap().verify().unwrap();
    }
}

#[test]
fn missing_files_are_named() {
    for (folder, missing) in [
        ("images", "image"),
        ("memories", "page map"),
        ("layers", "layer"),
    ] {
        let (_folder, store, id) = victim();
        let file = only_file(&store, folder);
        fs::remove_file(&file).unwrap();
        match store.load(id) {
            Err(StoreError::Missing { what, path }) => assert_eq!((what, path), (missing, file)),
            other => panic!("{other:?}"),
        }
    }
    let (_folder, store, _) = victim();
    fs::remove_file(only_file(&store, "modules")).unwrap();
    match store.module(ModuleHash::of(common::MODULE)) {
        Err(StoreError::Missing { what: "module", .. }) => (),
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_of_another_image_are_recognised() {
    // The other memory has its pages in the same places, so that nothing but names and hashes differ.
    let mut other_memory = victim_memory();
    other_memory[2 * 4096] = 0xbb;
    let (_other_folder, other_store) = empty_store();
    let other = publish(&other_store, &[&other_memory]).unwrap();
    for folder in ["images", "memories", "layers"] {
        let (_folder, store, id) = victim();
        let path = only_file(&store, folder);
        change(&path, |bytes| {
            *bytes = fs::read(only_file(&other_store, folder)).unwrap()
        });
        if folder == "memories" {
            // Alone it leads to a layer that this store doesn't have.
            match store.load(id) {
                Err(StoreError::Missing { what: "layer", .. }) => (),
                other => panic!("{other:?}"),
            }
            let layer = only_file(&other_store, "layers");
            let target = store
                .directory()
                .join("layers")
                .join(layer.file_name().unwrap());
            fs::copy(layer, target).unwrap();
        }
        match damage(&store, id) {
            ("image", Damage::Hash { found }) => assert_eq!(found, other.to_string()),
            ("page map", Damage::Root { found }) => {
                assert_eq!(
                    found.to_string(),
                    only_file(&other_store, "memories")
                        .file_name()
                        .unwrap()
                        .to_str()
                        .unwrap()
                );
            }
            ("layer", Damage::OtherLayer { found }) => {
                assert_eq!(
                    found.to_string(),
                    only_file(&other_store, "layers")
                        .file_name()
                        .unwrap()
                        .to_str()
                        .unwrap()
                );
            }
            error => panic!("{folder}: {error:?}"),
        }
    }
}

#[test]
fn forged_entries_are_refused() {
    let [whole, empty, order, end] = [
        "is not made of whole pages",
        "is empty",
        "overlaps the one before it, or is out of order",
        "reaches behind the end of any memory",
    ];
    for (at, number, offset, problem) in [
        (FIRST, 1, FIRST, whole),
        (FIRST + 8, 8193, FIRST, whole),
        (FIRST + 8, 0, FIRST, empty),
        (SECOND, 3 * 4096, SECOND, order),
        (SECOND, 0, SECOND, order),
        (SECOND, 1 << 48, SECOND, end),
        (SECOND + 8, !4095, SECOND, end),
        (FIRST, !4095, FIRST, end),
    ] {
        let (_folder, store, id) = victim();
        forge_index(&store, |index| put(index, at, number));
        let error = DecodeError::Extent { offset, problem };
        assert_eq!(index_damage(&store, id), error, "{number} at {at}");
    }
    let (_folder, store, id) = victim();
    forge_index(&store, |index| index[FIRST + 16] = 2);
    let error = DecodeError::Discriminant {
        what: "kind of entry",
        offset: FIRST + 16,
        found: 2,
    };
    assert_eq!(index_damage(&store, id), error);
}

#[test]
fn a_layer_that_reaches_behind_the_end_of_the_memory_is_refused() {
    for pages in [3, 1 << 20] {
        let (_folder, store, id) = victim();
        forge_index(&store, |index| {
            put(index, SECOND, 32 * 4096);
            put(index, SECOND + 8, pages * 4096);
            // As many leaf hashes as fit, and a hole, so that nothing else is wrong.
            index[SECOND + 16] = 1;
            let leaves = 1 + u64::div_ceil(pages, 16);
            put(index, LEAF_COUNT, leaves);
            index.resize(LEAVES + 32 * leaves as usize, 0);
        });
        // The header still tells of the pages that are a hole now.
        change(&only_file(&store, "layers"), |bytes| {
            put(bytes, PAGE_BYTES, 2 * 4096);
            bytes.drain(3 * 4096..INDEX);
        });
        let source = Damage::OutsideMemory {
            end: (32 + pages) * 4096,
            memory_len: 33 * 4096 + 50,
        };
        assert_eq!(damage(&store, id), ("layer", source));
    }
}

#[test]
fn a_layer_whose_index_tells_of_more_pages_than_it_has_is_refused() {
    let (_folder, store, id) = victim();
    forge_index(&store, |index| put(index, FIRST + 8, 3 * 4096));
    let found = (INDEX + INDEX_END) as u64;
    let source = Damage::Size {
        expected: found + 4096,
        found,
    };
    assert_eq!(damage(&store, id), ("layer", source));
}

#[test]
fn a_forged_leaf_hash_is_found() {
    let (_folder, store, id) = victim();
    forge_index(&store, |index| index[LEAVES] ^= 1);
    match damage(&store, id) {
        ("page map", Damage::Root { .. }) => (),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_entry_that_points_at_other_pages_is_found_by_verify() {
    let (_folder, store, id) = victim();
    forge_index(&store, |index| put(index, SECOND, 31 * 4096));
    // Page 31 belongs to leaf 1, for which there is no hash.
    let error = DecodeError::LeafCount {
        expected: 3,
        found: 2,
    };
    assert_eq!(index_damage(&store, id), error);

    let (_folder, store, id) = victim();
    forge_index(&store, |index| put(index, FIRST, 5 * 4096));
    match store.load(id).unwrap().verify() {
        Err(StoreError::DamagedMemory {
            memory: 0, offset, ..
        }) => assert_eq!(offset, 0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_hole_that_hides_pages_is_found_by_verify() {
    let (_folder, store, id) = victim();
    forge_index(&store, |index| index[SECOND + 16] = 1);
    change(&only_file(&store, "layers"), |bytes| {
        put(bytes, PAGE_BYTES, 2 * 4096);
        bytes.drain(3 * 4096..INDEX);
    });
    match store.load(id).unwrap().verify() {
        Err(StoreError::DamagedMemory {
            memory: 0, offset, ..
        }) => assert_eq!(offset, 2 << 16),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_entry_that_is_left_out_is_found() {
    // Its leaf goes too, so that the counts fit; the memory then has another name.
    let (_folder, store, id) = victim();
    forge_index(&store, |index| {
        index[0] = 1;
        index[LEAF_COUNT] = 1;
        index.truncate(LEAVES + 32);
        index.drain(SECOND..LEAF_COUNT);
    });
    change(&only_file(&store, "layers"), |bytes| {
        put(bytes, PAGE_BYTES, 2 * 4096);
        bytes.drain(3 * 4096..INDEX);
    });
    match damage(&store, id) {
        ("page map", Damage::Root { .. }) => (),
        other => panic!("{other:?}"),
    }
}

#[test]
fn layers_left_out_or_in_another_order_are_found() {
    let (_folder, store, _) = victim();
    let mut memory = victim_memory();
    let mut image = store.load(publish(&store, &[&memory]).unwrap()).unwrap();
    // Two layers above the first, which change the same page.
    for byte in 1..3 {
        memory[2 * 4096] = byte;
        let module = store.put_module(common::MODULE).unwrap();
        let update = MemoryUpdate {
            base: Some(&image.memories()[0]),
            byte_len: memory.len() as u64,
            dirty: std::slice::from_ref(&(2 * 4096..3 * 4096)),
            source: &&memory[..],
        };
        let manifest = common::manifest_with(module, &[&memory]);
        image = store.publish_update(manifest, &[update]).unwrap().image;
    }
    let id = image.id();
    let name = store.load(id).unwrap().memories()[0].hash().to_string();
    let path = store.directory().join("memories").join(name);
    let intact = fs::read(&path).unwrap();
    // The layer in the middle shows nothing any more.
    assert_eq!(intact[LAYER_COUNT], 2);
    for forgery in 0..3 {
        change(&path, |bytes| {
            bytes.truncate(bytes.len() - 32);
            let [first, second] =
                [FIRST_LAYER, FIRST_LAYER + 32].map(|at| bytes[at..at + 32].to_vec());
            bytes.truncate(FIRST_LAYER);
            bytes.extend(match forgery {
                0 => [second, first].concat(),
                1 => first,
                _ => second,
            });
            bytes[LAYER_COUNT] = ((bytes.len() - FIRST_LAYER) / 32) as u8;
            let checksum = blake3::hash(bytes);
            bytes.extend(checksum.as_bytes());
        });
        match damage(&store, id) {
            ("page map", Damage::Root { .. }) => (),
            other => panic!("{forgery}: {other:?}"),
        }
        change(&path, |bytes| *bytes = intact.clone());
    }
    store.load(id).unwrap().verify().unwrap();
}

#[test]
fn absurd_counts_and_lengths_are_refused_without_allocating() {
    for count in [1000, u64::MAX / 32, u64::MAX] {
        for (at, counted) in [(0, "entries"), (LEAF_COUNT, "leaf hashes")] {
            let (_folder, store, id) = victim();
            forge_index(&store, |index| put(index, at, count));
            match index_damage(&store, id) {
                DecodeError::Count {
                    what,
                    offset,
                    found,
                    most,
                } => {
                    assert_eq!((what, offset, found), (counted, at, count));
                    assert!(most < 20);
                }
                other => panic!("{counted} {count}: {other}"),
            }
        }
        let (_folder, store, id) = victim();
        forge_map(&store, |map| put(map, LAYER_COUNT, count));
        let error = DecodeError::Count {
            what: "layers",
            offset: LAYER_COUNT,
            found: count,
            most: 1,
        };
        assert_eq!(map_damage(&store, id), error);
    }
    let (_folder, store, id) = victim();
    let found = u64::MAX;
    forge_map(&store, |map| put(map, BYTE_LEN, found));
    let error = DecodeError::Limit {
        what: "memory size",
        offset: BYTE_LEN,
        found,
        limit: 1 << 48,
    };
    assert_eq!(map_damage(&store, id), error);
}

#[test]
fn absurd_sizes_in_the_header_of_a_layer_are_refused_without_allocating() {
    for at in [PAGE_BYTES, INDEX_LEN] {
        for size in [0, 1 << 40, u64::MAX] {
            let (_folder, store, id) = victim();
            change(&only_file(&store, "layers"), |bytes| put(bytes, at, size));
            match damage(&store, id) {
                ("layer", Damage::Size { expected, found }) => assert_ne!(expected, found),
                other => panic!("{other:?}"),
            }
        }
    }
    let (_folder, store, id) = victim();
    let path = only_file(&store, "layers");
    change(&path, |bytes| put(bytes, INDEX_LEN, 1 << 40));
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    // Sparse: the file takes no space on the disk.
    file.set_len(INDEX as u64 + (1 << 40)).unwrap();
    let source = Damage::TooLarge {
        limit: 1 << 30,
        found: 1 << 40,
    };
    assert_eq!(damage(&store, id), ("layer", source));
}

#[test]
fn an_entry_over_billions_of_leaves_is_refused_without_enumerating_them() {
    let (_folder, store, id) = victim();
    forge_index(&store, |index| {
        put(index, SECOND + 8, (1 << 48) - (32 << 12))
    });
    let error = DecodeError::LeafCount {
        expected: 1 + (1 << 32) - 2,
        found: 2,
    };
    assert_eq!(index_damage(&store, id), error);
}

#[test]
fn a_map_of_too_many_layers_is_refused() {
    let (_folder, store, id) = victim();
    forge_map(&store, |map| {
        put(map, LAYER_COUNT, 65);
        let layer = map[FIRST_LAYER..].to_vec();
        map.extend(layer.repeat(64));
    });
    let error = DecodeError::Limit {
        what: "number of layers",
        offset: LAYER_COUNT,
        found: 65,
        limit: 64,
    };
    assert_eq!(map_damage(&store, id), error);
}

#[test]
fn a_memory_in_too_many_pieces_is_refused() {
    let (_folder, store, _) = victim();
    let memory = vec![0; 1026 * 4096];
    let id = publish(&store, &[&memory]).unwrap();
    let name = store.load(id).unwrap().memories()[0].hash().to_string();
    let map = store.directory().join("memories").join(name);
    // Every second page is stored; the hashes are wrong, but the number of pieces is looked at first.
    let file = only_file(&store, "layers");
    let mut bytes = fs::read(&file).unwrap()[..4096].to_vec();
    bytes.resize(514 * 4096, 0);
    let mut index = 513u64.to_le_bytes().to_vec();
    for page in 0..513u64 {
        index.extend((page * 2 * 4096).to_le_bytes());
        index.extend(4096u64.to_le_bytes());
        index.push(0);
    }
    index.extend(65u64.to_le_bytes());
    index.resize(index.len() + 65 * 32, 0);
    put(&mut bytes, PAGE_BYTES, 513 * 4096);
    put(&mut bytes, INDEX_LEN, index.len() as u64);
    let mut key = [0; 32];
    key[..11].copy_from_slice(b"wsnap layer");
    let mut layer = blake3::Hasher::new_keyed(&key);
    layer.update(&bytes[MEMORY..PAGE_BYTES]).update(&index);
    let layer = layer.finalize();
    bytes[ID..MEMORY].copy_from_slice(layer.as_bytes());
    bytes.extend(index);
    fs::write(file.with_file_name(layer.to_hex().to_string()), bytes).unwrap();
    change(&map, |bytes| {
        bytes.truncate(FIRST_LAYER);
        put(bytes, LAYER_COUNT, 1);
        bytes.extend(layer.as_bytes());
        let checksum = blake3::hash(bytes);
        bytes.extend(checksum.as_bytes());
    });
    let source = Damage::TooManyExtents {
        found: 513,
        limit: 512,
    };
    assert_eq!(damage(&store, id), ("page map", source));
}

#[test]
fn a_memory_of_another_length_than_the_map_says_is_recognised() {
    let (_folder, store, id) = victim();
    forge_map(&store, |map| put(map, BYTE_LEN, 33 * 4096 + 51));
    match damage(&store, id) {
        ("page map", Damage::Root { .. }) => (),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_image_whose_manifest_and_page_map_disagree_about_the_length_is_refused() {
    // Every hash fits: somebody has written such a manifest.
    let (_folder, store, id) = victim();
    let mut manifest = store.manifest(id).unwrap();
    manifest.memories[0].pages -= 1;
    let bytes = manifest.encode();
    let forged = ImageId::of(&bytes);
    fs::write(
        store.directory().join("images").join(forged.to_string()),
        bytes,
    )
    .unwrap();
    let found = 33 * 4096 + 50;
    assert_eq!(
        damage(&store, forged),
        (
            "page map",
            Damage::MemoryLength {
                expected: found - 1,
                found
            }
        )
    );
}

#[test]
fn a_manifest_of_another_version_is_refused_though_its_hash_fits() {
    let (_folder, store, id) = victim();
    let mut bytes = store.manifest(id).unwrap().encode();
    bytes[8] = 9;
    let forged = ImageId::of(&bytes);
    fs::write(
        store.directory().join("images").join(forged.to_string()),
        bytes,
    )
    .unwrap();
    let error = DecodeError::Version {
        format: "image",
        found: 9,
        supported: 1,
    };
    assert_eq!(damage(&store, forged), ("image", Damage::Decode(error)));
}

#[test]
fn files_of_absurd_size_are_not_read() {
    for (folder, damaged) in [("images", "image"), ("memories", "page map")] {
        let (_folder, store, id) = victim();
        change(&only_file(&store, folder), Vec::clear);
        // Sparse: the file takes no space on the disk.
        fs::OpenOptions::new()
            .write(true)
            .open(only_file(&store, folder))
            .unwrap()
            .set_len(1 << 40)
            .unwrap();
        assert_eq!(
            damage(&store, id),
            (
                damaged,
                Damage::TooLarge {
                    limit: 1 << 30,
                    found: 1 << 40
                }
            )
        );
    }
}

#[test]
fn a_reference_that_holds_no_id_is_named() {
    let (_folder, store, id) = victim();
    for text in [
        String::new(),
        id.to_string(),
        format!("{id}\n\n"),
        "x\n".into(),
    ] {
        fs::write(store.directory().join("tags/good"), &text).unwrap();
        for error in [store.resolve("good").map(|_| ()), store.tags().map(|_| ())] {
            match error {
                Err(StoreError::Damaged {
                    what: "reference",
                    source: Damage::Reference,
                    path,
                }) => {
                    assert!(path.ends_with("tags/good"));
                }
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }
}

#[test]
fn random_damage_never_panics_and_never_passes_for_intact() {
    let mut rng = Rng::with_seed(7);
    for _ in 0..300 {
        let (_folder, store) = empty_store();
        let memory = any_content(&mut rng, 400_000, 12);
        let id = publish(&store, &[&memory]).unwrap();
        let folder = ["images", "memories", "layers"][rng.usize(0..3)];
        change(&only_file(&store, folder), |bytes| match rng.u8(0..3) {
            0 => bytes.truncate(rng.usize(0..bytes.len())),
            1 => bytes.extend((0..rng.usize(1..5000)).map(|_| rng.u8(..))),
            _ => {
                let start = rng.usize(0..bytes.len());
                let end = bytes.len().min(start + rng.usize(1..100));
                bytes[start..end]
                    .iter_mut()
                    .for_each(|byte| *byte ^= rng.u8(1..));
            }
        });
        match store.load(id).and_then(|image| image.verify()) {
            Err(StoreError::Damaged { .. } | StoreError::DamagedMemory { .. }) => (),
            other => panic!("{folder}: {other:?}"),
        }
    }
}
