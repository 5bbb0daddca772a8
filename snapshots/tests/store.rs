//! Publishing, loading and naming images.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use common::{
    MODULE, any_content, content, empty_store, files_in, manifest_with, only_file, publish,
};
use fastrand::Rng;
use wsnap_snapshots::{
    DecodeError, GlobalState, ImageId, Manifest, MemoryTree, ModuleHash, Store, StoreError,
    StoredImage, Value,
};

#[test]
fn a_published_image_is_loaded_with_the_same_state() {
    let mut rng = Rng::with_seed(1);
    let (_folder, store) = empty_store();
    for len in [0, 1, 4095, 4096, 65535, 65536, 65537, 300_000, 3 << 20] {
        let first = any_content(&mut rng, len, len.min(40));
        let second = any_content(&mut rng, 65536, 5);
        let id = publish(&store, &[&first, &second]).unwrap();

        let image = store.load(id).unwrap();
        image.verify().unwrap();
        assert_eq!(image.id(), id);
        assert_eq!(content(&image, 0), first);
        assert_eq!(content(&image, 1), second);
        let mut expected = manifest_with(ModuleHash::of(MODULE), &[&first, &second]);
        expected.memories[0].content = MemoryTree::of(&first).root();
        expected.memories[1].content = MemoryTree::of(&second).root();
        assert_eq!(*image.manifest(), expected);
        assert_eq!(store.manifest(id).unwrap(), expected);
        assert_eq!(
            image.memories()[0].tree().root(),
            expected.memories[0].content
        );
    }
}

#[test]
fn extents_are_coalesced_page_aligned_and_hold_no_zero_pages() {
    let (_folder, store) = empty_store();
    let mut memory = vec![0; 40 * 4096 + 10];
    for page in [3, 4, 15, 16, 17, 30, 40] {
        memory[page * 4096 + 9] = 1;
    }
    let image = store.load(publish(&store, &[&memory]).unwrap()).unwrap();
    let stored = &image.memories()[0];
    let extents: Vec<[u64; 3]> = stored
        .extents()
        .iter()
        .map(|extent| {
            [
                extent.memory_offset / 4096,
                extent.layer_offset / 4096,
                extent.length / 4096,
            ]
        })
        .collect();
    assert_eq!(extents, [[3, 1, 2], [15, 3, 3], [30, 6, 1], [40, 7, 1]]);
    assert!(
        stored
            .extents()
            .iter()
            .all(|extent| extent.memory_offset % 4096 == 0 && extent.length % 4096 == 0)
    );
    assert_eq!(stored.stored_len(), 7 * 4096);
    assert_eq!(stored.layers()[0].page_bytes(), 7 * 4096);
    assert_eq!(content(&image, 0), memory);
}

#[test]
fn a_memory_of_zeros_has_no_layer() {
    let (_folder, store) = empty_store();
    let image = store
        .load(publish(&store, &[&vec![0; 16 << 20]]).unwrap())
        .unwrap();
    image.verify().unwrap();
    assert_eq!(image.memories()[0].byte_len(), 16 << 20);
    assert!(image.memories()[0].layers().is_empty());
    assert!(files_in(&store.directory().join("layers")).is_empty());
}

#[test]
fn any_stretch_of_a_memory_can_be_read() {
    let mut rng = Rng::with_seed(2);
    let (_folder, store) = empty_store();
    let memory = any_content(&mut rng, 500_123, 60);
    let image = store.load(publish(&store, &[&memory]).unwrap()).unwrap();
    for _ in 0..500 {
        let offset = rng.usize(0..600_000);
        let mut buffer = vec![0xee; rng.usize(0..90_000)];
        image.memories()[0]
            .read_at(offset as u64, &mut buffer)
            .unwrap();
        let expected =
            (offset..offset + buffer.len()).map(|at| memory.get(at).copied().unwrap_or(0));
        assert!(
            buffer.iter().copied().eq(expected),
            "{} bytes at {offset}",
            buffer.len()
        );
    }
    let mut buffer = [1; 8];
    image.memories()[0]
        .read_at(u64::MAX - 3, &mut buffer)
        .unwrap();
    assert_eq!(buffer, [0; 8]);
}

#[test]
fn equal_state_has_an_equal_id_in_every_store() {
    let mut rng = Rng::with_seed(3);
    let memory = any_content(&mut rng, 200_000, 20);
    let (_first_folder, first) = empty_store();
    let (_second_folder, second) = empty_store();
    publish(&second, &[&any_content(&mut rng, 100_000, 9)]).unwrap();
    assert_eq!(
        publish(&first, &[&memory]).unwrap(),
        publish(&second, &[&memory]).unwrap()
    );
}

#[test]
fn content_that_is_there_is_not_written_again() {
    let (_folder, store) = empty_store();
    let memory = vec![7; 100_000];
    let inodes = |store: &Store| -> Vec<u64> {
        ["modules", "images", "memories", "layers"]
            .map(|folder| fs::metadata(only_file(store, folder)).unwrap().ino())
            .to_vec()
    };
    let id = publish(&store, &[&memory]).unwrap();
    let before = inodes(&store);
    assert_eq!(publish(&store, &[&memory]).unwrap(), id);
    assert_eq!(inodes(&store), before);
}

#[test]
fn publishing_again_repairs_files_that_are_missing_or_cut_short() {
    let memory = vec![7; 100_000];
    for folder in ["modules", "images", "memories", "layers"] {
        for cut in [true, false] {
            let (_folder, store) = empty_store();
            let id = publish(&store, &[&memory]).unwrap();
            let path = only_file(&store, folder);
            let bytes = fs::read(&path).unwrap();
            fs::remove_file(&path).unwrap();
            if cut {
                fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
            }
            assert_eq!(publish(&store, &[&memory]).unwrap(), id);
            store.load(id).unwrap().verify().unwrap();
            assert_eq!(store.module(ModuleHash::of(MODULE)).unwrap(), MODULE);
        }
    }
}

#[test]
fn published_content_is_private_and_write_protected() {
    let (_folder, store) = empty_store();
    publish(&store, &[&[1; 5000]]).unwrap();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(store.directory()), 0o700);
    for folder in ["modules", "images", "memories", "layers"] {
        assert_eq!(mode(&only_file(&store, folder)), 0o400, "{folder}");
    }
    assert!(files_in(&store.directory().join("tmp")).is_empty());
}

#[test]
fn memories_that_do_not_fit_the_manifest_are_refused() {
    let (_folder, store) = empty_store();
    let module = store.put_module(MODULE).unwrap();
    let nine_bytes: &[&[u8]] = &[&[0; 9]];
    let eight_bytes: &[&[u8]] = &[&[0; 8]];
    for memories in [&[], eight_bytes] {
        match store.publish(manifest_with(module, nine_bytes), memories) {
            Err(StoreError::MemoryMismatch { .. }) => (),
            other => panic!("{other:?}"),
        }
    }
    assert!(files_in(&store.directory().join("images")).is_empty());
}

#[test]
fn a_state_that_nobody_could_read_back_is_refused_before_anything_is_written() {
    let (_folder, store) = empty_store();
    let mut manifest = manifest_with(store.put_module(MODULE).unwrap(), &[&[1; 10]]);
    manifest.globals = vec![
        GlobalState {
            index: 1,
            value: Value::I32(0)
        };
        2
    ];
    match store.publish(manifest, &[&[1; 10]]) {
        Err(StoreError::Unencodable(DecodeError::Unordered {
            what: "globals", ..
        })) => (),
        other => panic!("{other:?}"),
    }
    assert!(files_in(&store.directory().join("layers")).is_empty());
}

#[test]
fn an_image_of_a_module_that_is_not_stored_is_refused() {
    let (_folder, store) = empty_store();
    match store.publish(manifest_with(ModuleHash::of(b"other"), &[]), &[]) {
        Err(StoreError::Missing {
            what: "module",
            path,
        }) => {
            assert_eq!(
                path,
                store
                    .directory()
                    .join("modules")
                    .join(format!("{}.wasm", ModuleHash::of(b"other")))
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_store_is_created_with_its_parents_and_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/c");
    let id = publish(&Store::open(&path).unwrap(), &[]).unwrap();
    assert_eq!(
        fs::read_to_string(path.join("version")).unwrap(),
        "wsnap store 1\n"
    );
    assert_eq!(Store::open(&path).unwrap().load(id).unwrap().id(), id);
}

#[test]
fn a_store_whose_creation_was_cut_short_is_completed() {
    let folder = tempfile::tempdir().unwrap();
    for missing in ["version", "tags", "tmp"] {
        let path = folder.path().join(missing);
        let id = publish(&Store::open(&path).unwrap(), &[&[1; 9]]).unwrap();
        match missing {
            "version" => fs::remove_file(path.join(missing)).unwrap(),
            _ => fs::remove_dir(path.join(missing)).unwrap(),
        }
        let store = Store::open(&path).unwrap();
        store.set_tag("kept", id).unwrap();
        store.load(id).unwrap().verify().unwrap();
        assert!(path.join(missing).exists());
    }
}

#[test]
fn a_directory_with_other_files_is_not_taken_for_a_store() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("thesis.tex"), "").unwrap();
    match Store::open(folder.path()) {
        Err(StoreError::NotAStore { path }) => assert_eq!(path, folder.path()),
        other => panic!("{other:?}"),
    }
    assert_eq!(files_in(folder.path()).len(), 1);
}

#[test]
fn a_store_of_another_version_is_refused() {
    let (_folder, store) = empty_store();
    let version = store.directory().join("version");
    fs::write(&version, "wsnap store 2\n").unwrap();
    match Store::open(store.directory()) {
        Err(StoreError::OtherVersion {
            path,
            found,
            supported: 1,
        }) => {
            assert_eq!((path, &*found), (version, "wsnap store 2"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_store_that_cannot_be_created_names_the_path_and_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    // Permissions don't stop root; these paths stop everybody.
    for path in [file.join("store"), file, "/proc/wsnap-store".into()] {
        match Store::open(&path) {
            Err(StoreError::Io {
                path: named,
                source,
                ..
            }) => {
                assert!(named.starts_with(&path), "{}: {source}", named.display());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_write_that_fails_names_the_path_and_leaves_older_images_intact() {
    let (_folder, store) = empty_store();
    let old = publish(&store, &[&[1; 5000]]).unwrap();
    for folder in ["layers", "memories", "images"] {
        // A file in place of the folder: nothing can be created there, even by root.
        let (path, aside) = (
            store.directory().join(folder),
            store.directory().join("aside"),
        );
        fs::rename(&path, &aside).unwrap();
        fs::write(&path, "").unwrap();
        match publish(&store, &[&[2; 5000]]) {
            Err(StoreError::Io { path: named, .. }) => {
                assert!(named.starts_with(&path), "{}", named.display())
            }
            other => panic!("{folder}: {other:?}"),
        }
        assert!(files_in(&store.directory().join("tmp")).is_empty());
        fs::remove_file(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
        assert_eq!(store.images().unwrap().len(), 1);
        store.load(old).unwrap().verify().unwrap();
    }
}

#[test]
fn left_over_temporary_files_do_no_harm() {
    let (_folder, store) = empty_store();
    fs::write(store.directory().join("tmp/.tmpAbCdEf"), "half a lay").unwrap();
    let store = Store::open(store.directory()).unwrap();
    store
        .load(publish(&store, &[&[1; 5000]]).unwrap())
        .unwrap()
        .verify()
        .unwrap();
    assert_eq!(store.images().unwrap().len(), 1);
}

#[test]
fn images_are_listed_with_their_time_and_size() {
    let (_folder, store) = empty_store();
    let before = std::time::SystemTime::now() - std::time::Duration::from_secs(5);
    let mut ids: Vec<ImageId> = (1..4)
        .map(|byte| publish(&store, &[&[byte; 10]]).unwrap())
        .collect();
    ids.sort();
    fs::write(store.directory().join("images/readme"), "not an image").unwrap();
    let entries = store.images().unwrap();
    assert_eq!(
        entries.iter().map(|entry| entry.id).collect::<Vec<_>>(),
        ids
    );
    for entry in entries {
        assert_eq!(
            entry.manifest_len,
            store.manifest(entry.id).unwrap().encode().len() as u64
        );
        assert!(entry.stored_at > before);
    }
}

/// Publishes small images until two ids share their first four digits.
fn two_with_a_common_prefix(store: &Store) -> [ImageId; 2] {
    let module = store.put_module(MODULE).unwrap();
    let mut seen = std::collections::HashMap::new();
    let mut number = 0;
    loop {
        let mut manifest = manifest_with(module, &[]);
        manifest.dropped_data = vec![number];
        if let Some(earlier) =
            seen.insert(manifest.id().to_string()[..4].to_owned(), manifest.clone())
        {
            let publish = |manifest: Manifest| store.publish(manifest, &[]).unwrap();
            return [publish(earlier), publish(manifest)];
        }
        number += 1;
    }
}

#[test]
fn an_image_is_found_by_id_unique_prefix_tag_and_name() {
    let (_folder, store) = empty_store();
    let id = publish(&store, &[&[1; 10]]).unwrap();
    store.set_tag("v1.0", id).unwrap();
    store.set_name("simulation", id).unwrap();
    let text = id.to_string();
    for reference in [
        &text,
        &text.to_uppercase(),
        &text[..4],
        &text[..63],
        "v1.0",
        "simulation",
    ] {
        assert_eq!(store.resolve(reference).unwrap(), id, "{reference}");
    }
    let too_long = format!("{text}0");
    let other = format!("{:064x}", 0);
    for reference in [
        "",
        &text[..3],
        &too_long,
        &other,
        "v1",
        "../tags/v1.0",
        "Simulation",
        "é",
    ] {
        match store.resolve(reference) {
            Err(StoreError::NotFound {
                reference: named,
                store: directory,
            }) => {
                assert_eq!((&*named, &*directory), (reference, store.directory()));
            }
            other => panic!("{reference}: {other:?}"),
        }
    }
}

#[test]
fn an_ambiguous_prefix_lists_the_candidates() {
    let (_folder, store) = empty_store();
    let mut expected = two_with_a_common_prefix(&store);
    expected.sort();
    let prefix = &expected[0].to_string()[..4];
    match store.resolve(prefix) {
        Err(error @ StoreError::Ambiguous { .. }) => {
            let message = format!("{prefix:?} is ambiguous: {}, {}", expected[0], expected[1]);
            assert_eq!(error.to_string(), message);
        }
        other => panic!("{other:?}"),
    }
    store.set_tag(prefix, expected[1]).unwrap();
    assert_eq!(
        store.resolve(prefix).unwrap(),
        expected[1],
        "a tag counts before a prefix"
    );
    store.set_name(prefix, expected[0]).unwrap();
    assert_eq!(
        store.resolve(prefix).unwrap(),
        expected[1],
        "a tag counts before a name"
    );
}

#[test]
fn names_and_tags_are_replaced_and_listed() {
    let (_folder, store) = empty_store();
    let (first, second) = (
        publish(&store, &[&[1; 10]]).unwrap(),
        publish(&store, &[&[2; 10]]).unwrap(),
    );
    store.set_name("job", first).unwrap();
    store.set_name("job", second).unwrap();
    store.set_tag("good", first).unwrap();
    assert_eq!(store.names().unwrap(), [("job".to_owned(), second)].into());
    assert_eq!(store.tags().unwrap(), [("good".to_owned(), first)].into());
}

#[test]
fn names_that_could_lead_elsewhere_are_refused() {
    let (_folder, store) = empty_store();
    let id = publish(&store, &[]).unwrap();
    let long = "a".repeat(129);
    let hash = id.to_string();
    for name in [
        "", ".", "..", ".hidden", "a/b", "../x", "a b", "a\0", "é", &long, &hash,
    ] {
        for result in [store.set_tag(name, id), store.set_name(name, id)] {
            match result {
                Err(StoreError::InvalidName { name: named, .. }) => assert_eq!(named, name),
                other => panic!("{name:?}: {other:?}"),
            }
        }
    }
    store.set_tag(&"a".repeat(128), id).unwrap();
}

#[test]
fn a_name_cannot_point_at_an_image_that_is_not_there() {
    let (_folder, store) = empty_store();
    match store.set_name("job", ImageId([0; 32])) {
        Err(StoreError::Missing { what: "image", .. }) => (),
        other => panic!("{other:?}"),
    }
    assert!(store.names().unwrap().is_empty());
}

#[test]
fn an_open_image_can_be_sent_between_threads() {
    fn check<T: Send + Sync>() {}
    check::<StoredImage>();
    check::<Store>();
}
