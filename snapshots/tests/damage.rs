//! Each kind of damage to a store is found and named, without a panic, and without trusting a length.

mod common;

use std::fs;
use std::path::Path;

use common::{any_content, empty_store, only_file, publish};
use fastrand::Rng;
use wsnap_snapshots::{Damage, DecodeError, ImageId, ModuleHash, Store, StoreError};

/// Where the fields of the page map of [`victim`] start: one layer and two extents.
const BYTE_LEN: usize = 12;
const LAYER_COUNT: usize = 20;
const EXTENT_COUNT: usize = 60;
const FIRST: usize = 68;
const SECOND: usize = FIRST + 28;
const LEAF_COUNT: usize = SECOND + 28;

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

/// Puts a number into a page map and makes its checksum fit, as a malicious sender would.
fn forge(store: &Store, at: usize, number: &[u8]) {
    forge_with(store, |content| {
        content[at..at + number.len()].copy_from_slice(number)
    });
}

fn forge_with(store: &Store, forgery: impl FnOnce(&mut Vec<u8>)) {
    change(&only_file(store, "memories"), |bytes| {
        bytes.truncate(bytes.len() - 32);
        forgery(bytes);
        let checksum = blake3::hash(bytes);
        bytes.extend(checksum.as_bytes());
    });
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
    for at in (0..fs::metadata(&path).unwrap().len() as usize).step_by(37) {
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
            12..44 => match damage(&store, id) {
                ("layer", Damage::OtherLayer { .. }) => (),
                other => panic!("byte {at}: {other:?}"),
            },
            44..52 => match damage(&store, id) {
                ("layer", Damage::Size { found, .. }) => assert_eq!(found, 5 * 4096),
                other => panic!("byte {at}: {other:?}"),
            },
            52..4096 => {
                let error = DecodeError::TrailingBytes { offset: 52 };
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
fn forged_extents_are_refused() {
    let cases: [(usize, u64, usize, &str); 12] = [
        (FIRST, 1, FIRST, "is not made of whole pages"),
        (FIRST + 8, 4097, FIRST, "is not made of whole pages"),
        (FIRST + 16, 8193, FIRST, "is not made of whole pages"),
        (FIRST + 16, 0, FIRST, "is empty"),
        (
            SECOND,
            3 * 4096,
            SECOND,
            "overlaps the one before it, or is out of order",
        ),
        (
            SECOND,
            0,
            SECOND,
            "overlaps the one before it, or is out of order",
        ),
        (
            SECOND,
            33 * 4096,
            SECOND,
            "reaches behind the end of the memory",
        ),
        (
            SECOND + 16,
            3 * 4096,
            SECOND,
            "reaches behind the end of the memory",
        ),
        (
            SECOND + 16,
            !4095,
            SECOND,
            "reaches behind the end of the memory",
        ),
        (FIRST, !4095, FIRST, "reaches behind the end of the memory"),
        (FIRST + 8, 0, FIRST, "lies outside of any layer file"),
        (FIRST + 8, !4095, FIRST, "lies outside of any layer file"),
    ];
    for (at, number, offset, problem) in cases {
        let (_folder, store, id) = victim();
        forge(&store, at, &number.to_le_bytes());
        assert_eq!(
            map_damage(&store, id),
            DecodeError::Extent { offset, problem },
            "{number} at {at}"
        );
    }
    let (_folder, store, id) = victim();
    forge(&store, FIRST + 24, &1u32.to_le_bytes());
    let problem = "names a layer that does not exist";
    assert_eq!(
        map_damage(&store, id),
        DecodeError::Extent {
            offset: FIRST,
            problem
        }
    );
}

#[test]
fn an_extent_behind_the_end_of_its_layer_is_refused() {
    for page in [4u64, 1 << 40] {
        let (_folder, store, id) = victim();
        forge(&store, SECOND + 8, &(page * 4096).to_le_bytes());
        let needed = (page + 2) * 4096;
        assert_eq!(
            damage(&store, id),
            (
                "layer",
                Damage::OutsideLayer {
                    needed,
                    found: 5 * 4096
                }
            )
        );
    }
}

#[test]
fn extents_that_point_at_other_pages_are_found_by_verify() {
    let (_folder, store, id) = victim();
    forge(&store, SECOND + 8, &(2u64 * 4096).to_le_bytes());
    match store.load(id).unwrap().verify() {
        Err(StoreError::DamagedMemory {
            memory: 0, offset, ..
        }) => assert_eq!(offset, 2 << 16),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_extent_that_is_left_out_is_found() {
    // Its leaf goes too, so that the counts fit; the memory then has another name.
    let (_folder, store, id) = victim();
    forge_with(&store, |content| {
        content[EXTENT_COUNT] = 1;
        content[LEAF_COUNT] = 1;
        content.truncate(content.len() - 32);
        content.drain(SECOND..SECOND + 28);
    });
    match damage(&store, id) {
        ("page map", Damage::Root { .. }) => (),
        other => panic!("{other:?}"),
    }
}

#[test]
fn absurd_counts_and_lengths_are_refused_without_allocating() {
    for (at, counted) in [
        (LAYER_COUNT, "layers"),
        (EXTENT_COUNT, "extents"),
        (LEAF_COUNT, "leaf hashes"),
    ] {
        for count in [1000, u64::MAX / 32, u64::MAX] {
            let (_folder, store, id) = victim();
            forge(&store, at, &count.to_le_bytes());
            match map_damage(&store, id) {
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
    }
    let (_folder, store, id) = victim();
    forge(&store, BYTE_LEN, &u64::MAX.to_le_bytes());
    let limit = 1 << 48;
    let found = u64::MAX;
    assert_eq!(
        map_damage(&store, id),
        DecodeError::Limit {
            what: "memory size",
            offset: BYTE_LEN,
            found,
            limit
        }
    );
}

#[test]
fn an_extent_over_billions_of_leaves_is_refused_without_enumerating_them() {
    let (_folder, store, id) = victim();
    forge_with(&store, |content| {
        content[BYTE_LEN..BYTE_LEN + 8].copy_from_slice(&(1u64 << 48).to_le_bytes());
        content[SECOND + 16..SECOND + 24]
            .copy_from_slice(&((1u64 << 48) - (32 << 12)).to_le_bytes());
    });
    let expected = 1 + (1 << 32) - 2;
    assert_eq!(
        map_damage(&store, id),
        DecodeError::LeafCount { expected, found: 2 }
    );
}

#[test]
fn a_map_of_too_many_layers_is_refused() {
    let (_folder, store, id) = victim();
    forge_with(&store, |content| {
        content[LAYER_COUNT..LAYER_COUNT + 8].copy_from_slice(&257u64.to_le_bytes());
        let layer: [u8; 32] = content[LAYER_COUNT + 8..EXTENT_COUNT].try_into().unwrap();
        let more = layer.repeat(256);
        content.splice(EXTENT_COUNT..EXTENT_COUNT, more);
    });
    let error = DecodeError::Limit {
        what: "number of layers",
        offset: LAYER_COUNT,
        found: 257,
        limit: 256,
    };
    assert_eq!(map_damage(&store, id), error);
}

#[test]
fn a_memory_of_another_length_than_the_map_says_is_recognised() {
    let (_folder, store, id) = victim();
    forge(&store, BYTE_LEN, &(33 * 4096u64 + 51).to_le_bytes());
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
