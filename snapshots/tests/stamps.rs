//! What has been verified is not read again as long as it has not changed.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{MODULE, empty_store, manifest_with, only_file, publish};
use wsnap_snapshots::{Damage, GcOptions, ImageId, MemoryUpdate, ModuleHash, Store, StoreError};

const LEAF: u64 = 1 << 16;

/// Verifies what has no stamp and returns how many bytes that was.
fn checked(store: &Store, id: ImageId) -> Result<u64, StoreError> {
    let bytes = AtomicU64::new(0);
    let progress = |more| {
        bytes.fetch_add(more, Ordering::Relaxed);
    };
    store.verify_unverified(&store.load(id)?, &progress)?;
    Ok(bytes.into_inner())
}

/// Puts a file with other bytes, or the same ones, in place of a layer.
fn replace(path: &Path, change: impl FnOnce(&mut [u8])) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

fn stamps(store: &Store) -> std::path::PathBuf {
    store.directory().join("verified")
}

#[test]
fn what_was_just_written_is_not_read_again() {
    let (_folder, store) = empty_store();
    let id = publish(&store, &[&[1; 200_000], &[2; 5]]).unwrap();
    assert_eq!(checked(&store, id).unwrap(), 0);
    assert_eq!(store.load(id).unwrap().checked_len(), 5 * LEAF);
}

#[test]
fn a_layer_that_is_another_file_now_is_verified_once() {
    let (_folder, store) = empty_store();
    let id = publish(&store, &[&[1; 200_000]]).unwrap();
    replace(&only_file(&store, "layers"), |_| ());
    assert_eq!(checked(&store, id).unwrap(), 4 * LEAF);
    assert_eq!(checked(&store, id).unwrap(), 0);
}

#[test]
fn damage_is_found_and_not_stamped() {
    let (_folder, store) = empty_store();
    let id = publish(&store, &[&[1; 200_000]]).unwrap();
    replace(&only_file(&store, "layers"), |bytes| {
        bytes[4096 + 70_000] ^= 1
    });
    for _ in 0..2 {
        match checked(&store, id) {
            Err(StoreError::DamagedMemory { offset, .. }) => assert_eq!(offset, LEAF),
            other => panic!("{other:?}"),
        }
    }
}

/// An image of four leaves, and one that has another first page.
fn two_images(store: &Store) -> [ImageId; 2] {
    let mut memory = vec![1; 4 * LEAF as usize];
    let first = publish(store, &[&memory]).unwrap();
    memory[0] = 2;
    let manifest = manifest_with(store.put_module(MODULE).unwrap(), &[&memory]);
    let base = store.load(first).unwrap();
    let update = MemoryUpdate {
        base: Some(&base.memories()[0]),
        byte_len: memory.len() as u64,
        dirty: std::slice::from_ref(&(0..4096)),
        source: &memory,
    };
    let second = store.publish_update(manifest, &[update]).unwrap();
    [first, second.image.id()]
}

#[test]
fn a_layer_that_was_verified_in_part_is_not_taken_for_verified() {
    let (_folder, store) = empty_store();
    let [first, second] = two_images(&store);
    fs::remove_file(stamps(&store)).unwrap();
    assert_eq!(checked(&store, second).unwrap(), 4 * LEAF);
    assert_eq!(checked(&store, second).unwrap(), 0);
    assert_eq!(checked(&store, first).unwrap(), 4 * LEAF);
    assert_eq!(checked(&store, first).unwrap(), 0);
}

#[test]
fn only_the_leaves_of_a_layer_without_stamp_are_read() {
    let (_folder, store) = empty_store();
    let [_, second] = two_images(&store);
    let image = store.load(second).unwrap();
    replace(image.memories()[0].layers()[1].path(), |_| ());
    assert_eq!(checked(&store, second).unwrap(), LEAF);
}

#[test]
fn stamps_that_are_torn_or_damaged_count_for_nothing() {
    let (_folder, store) = empty_store();
    let first = publish(&store, &[&[1; 200_000]]).unwrap();
    let torn = fs::read(stamps(&store)).unwrap();
    assert_eq!(torn.len(), 128);
    fs::write(stamps(&store), &torn[..77]).unwrap();
    assert_eq!(checked(&store, first).unwrap(), 4 * LEAF);
    // The torn one is filled up, so that those behind it are found.
    assert_eq!(fs::read(stamps(&store)).unwrap().len(), 2 * 128);
    assert_eq!(checked(&store, first).unwrap(), 0);
    let intact = fs::read(stamps(&store)).unwrap();
    for at in [128, 160, 200, 255] {
        let mut damaged = intact.clone();
        damaged[at] ^= 1;
        fs::write(stamps(&store), damaged).unwrap();
        assert_eq!(checked(&store, first).unwrap(), 4 * LEAF, "{at}");
    }
}

/// How many stamps there are.
fn stamp_count(store: &Store) -> u64 {
    fs::metadata(stamps(store)).map_or(0, |metadata| metadata.len() / 128)
}

#[test]
fn a_module_is_verified_when_it_is_opened_first_and_when_it_is_another_file() {
    let (_folder, store) = empty_store();
    let hash = store.put_module(MODULE).unwrap();
    let open = || {
        let module = store.open_module(hash).unwrap().unwrap();
        assert_eq!(module.hash(), hash);
        assert_eq!(module.byte_len(), MODULE.len() as u64);
        assert_eq!(
            std::io::read_to_string(module.file()).unwrap().as_bytes(),
            MODULE
        );
    };
    for stamps in [1, 1] {
        open();
        assert_eq!(stamp_count(&store), stamps);
    }
    replace(&only_file(&store, "modules"), |_| ());
    for stamps in [2, 2] {
        open();
        assert_eq!(stamp_count(&store), stamps);
    }
}

#[test]
fn what_a_store_says_of_a_module_is_not_believed_if_others_can_write_to_it() {
    let (_folder, store) = empty_store();
    let hash = store.put_module(MODULE).unwrap();
    assert!(store.open_module(hash).unwrap().is_some());
    let modules = store.directory().join("modules");
    for path in [
        stamps(&store),
        only_file(&store, "modules"),
        modules,
        store.directory().into(),
    ] {
        let mode = fs::metadata(&path).unwrap().permissions();
        for writable in [0o020, 0o002] {
            fs::set_permissions(&path, Permissions::from_mode(mode.mode() | writable)).unwrap();
            assert!(store.open_module(hash).unwrap().is_none(), "{path:?}");
        }
        fs::set_permissions(&path, mode).unwrap();
        assert!(store.open_module(hash).unwrap().is_some());
    }
}

#[test]
fn a_module_is_not_stored_under_another_name() {
    let (_folder, store) = empty_store();
    let hash = store.put_module(MODULE).unwrap();
    let other = ModuleHash::of(b"another");
    match store.put_module_as(other, MODULE) {
        Err(StoreError::Damaged { what: "module", .. }) => (),
        other => panic!("{other:?}"),
    }
    store.put_module_as(hash, MODULE).unwrap();
    only_file(&store, "modules");
}

#[test]
fn a_damaged_module_is_found_and_not_stamped() {
    let (_folder, store) = empty_store();
    let hash = store.put_module(MODULE).unwrap();
    store.open_module(hash).unwrap();
    replace(&only_file(&store, "modules"), |bytes| bytes[5] ^= 1);
    for _ in 0..2 {
        match store.open_module(hash) {
            Err(StoreError::Damaged {
                what: "module",
                source: Damage::Hash { .. },
                ..
            }) => (),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(stamp_count(&store), 1);
    fs::remove_file(only_file(&store, "modules")).unwrap();
    match store.open_module(hash) {
        Err(StoreError::Missing { what: "module", .. }) => (),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_module_and_a_layer_of_one_name_do_not_share_a_stamp() {
    let (_folder, store) = empty_store();
    let id = publish(&store, &[&[1; 200_000]]).unwrap();
    let layer = only_file(&store, "layers");
    let name = layer.file_name().unwrap().to_str().unwrap().to_owned();
    // Somebody gives the layer's file, which has a stamp, the name of a module.
    let modules = store.directory().join("modules");
    fs::hard_link(&layer, modules.join(format!("{name}.wasm"))).unwrap();
    assert_eq!(
        checked(&store, id).unwrap(),
        4 * LEAF,
        "a link changes the time of the file"
    );
    match store.open_module(ModuleHash(
        store.load(id).unwrap().memories()[0].layers()[0].id().0,
    )) {
        Err(StoreError::Damaged { what: "module", .. }) => (),
        other => panic!("{other:?}"),
    }
}

#[test]
fn stamps_of_files_that_are_gone_are_collected() {
    let (_folder, store) = empty_store();
    let kept = publish(&store, &[&[1; 200_000]]).unwrap();
    store.set_tag("kept", kept).unwrap();
    for byte in 2..10 {
        publish(&store, &[&[byte; 5000]]).unwrap();
    }
    assert_eq!(stamp_count(&store), 9);
    let module = store.load(kept).unwrap().manifest().module;
    let other = store.put_module(b"of no image").unwrap();
    for module in [module, other] {
        store.open_module(module).unwrap();
    }
    assert_eq!(stamp_count(&store), 11);
    let options = GcOptions {
        grace: Duration::ZERO,
        ..GcOptions::default()
    };
    store.gc(&options).unwrap();
    assert_eq!(stamp_count(&store), 2);
    assert_eq!(checked(&store, kept).unwrap(), 0);
    store.open_module(module).unwrap();
    assert_eq!(stamp_count(&store), 2);
}
