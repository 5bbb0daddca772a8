//! All that is in a store, verified piece by piece.

mod common;

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{empty_store, files_in, publish, publish_seed};
use wsnap_snapshots::{Damage, Item, NewRecord, Store, StoreError, Verification};

const LEAF: usize = 1 << 16;

fn verify(verification: &Verification<'_>, item: &Item) -> Result<u64, StoreError> {
    let checked = AtomicU64::new(0);
    verification.verify(item, &|bytes| {
        checked.fetch_add(bytes, Ordering::Relaxed);
    })?;
    Ok(checked.into_inner())
}

fn damage_all_layers(store: &Store) {
    for path in files_in(&store.directory().join("layers")) {
        let mut bytes = fs::read(&path).unwrap();
        bytes[4096] ^= 1;
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn an_inventory_lists_images_what_none_of_them_uses_records_names_and_tags() {
    let (_folder, store) = empty_store();
    let image = publish_seed(&store, 1);
    let unused = store.put_module(b"unused").unwrap();
    let record = store.put_record(NewRecord::new(image, 1, "snap")).unwrap();
    store.set_name("program", image).unwrap();
    store.set_tag("tag", image).unwrap();
    let items = store.inventory().unwrap();
    let expected = [
        Item::Image(image),
        Item::Module(unused),
        Item::Record(record.id),
        Item::Name("program".to_owned()),
        Item::Tag("tag".to_owned()),
    ];
    assert_eq!(items, expected);
    let verification = store.verification();
    for item in &items {
        verify(&verification, item).unwrap();
    }
}

#[test]
fn what_images_have_in_common_is_read_once() {
    let (_folder, store) = empty_store();
    let memory = vec![3; 4 * LEAF];
    let base = publish(&store, &[&memory]).unwrap();
    let same = publish(&store, &[&memory, &memory]).unwrap();
    let items = [Item::Image(base), Item::Image(same)];
    let verification = store.verification();
    assert_eq!(verification.checked_len(&items), 4 * LEAF as u64);
    assert_eq!(verify(&verification, &items[0]).unwrap(), 4 * LEAF as u64);
    assert_eq!(verify(&verification, &items[1]).unwrap(), 0);
}

#[test]
fn damage_that_images_share_is_found_in_each_of_them() {
    let (_folder, store) = empty_store();
    let memory = vec![3; 4 * LEAF];
    let ids = [
        publish(&store, &[&memory]).unwrap(),
        publish(&store, &[&memory, &memory]).unwrap(),
    ];
    damage_all_layers(&store);
    let verification = store.verification();
    for id in ids {
        match verify(&verification, &Item::Image(id)) {
            Err(StoreError::DamagedMemory { image, offset, .. }) => {
                assert_eq!((image, offset), (id, 0));
            }
            result => panic!("{result:?}"),
        }
    }
}

#[test]
fn the_pages_of_a_map_that_no_image_uses_are_verified() {
    let (_folder, store) = empty_store();
    let image = publish(&store, &[&vec![3; 2 * LEAF]]).unwrap();
    store.remove_image(image, false).unwrap();
    let items = store.inventory().unwrap();
    let [map @ Item::PageMap(_), Item::Module(_)] = &items[..] else {
        panic!("{items:?}");
    };
    assert_eq!(verify(&store.verification(), map).unwrap(), 2 * LEAF as u64);
    damage_all_layers(&store);
    match verify(&store.verification(), map) {
        Err(StoreError::Damaged {
            what: "page map",
            source: Damage::Leaf { offset: 0 },
            ..
        }) => (),
        result => panic!("{result:?}"),
    }
}

#[test]
fn what_was_deleted_since_it_was_listed_is_not_missing() {
    let (_folder, store) = empty_store();
    let image = publish_seed(&store, 1);
    let record = store.put_record(NewRecord::new(image, 1, "snap")).unwrap();
    store.set_tag("tag", image).unwrap();
    let items = store.inventory().unwrap();
    store.remove_image(image, true).unwrap();
    assert!(items.contains(&Item::Record(record.id)));
    let verification = store.verification();
    for item in &items {
        assert_eq!(verify(&verification, item).unwrap(), 0, "{item}");
    }
}

#[test]
fn references_and_records_to_what_is_missing_are_damaged() {
    let (_folder, store) = empty_store();
    let image = publish_seed(&store, 1);
    let record = store.put_record(NewRecord::new(image, 1, "snap")).unwrap();
    store.set_tag("tag", image).unwrap();
    let path = store.directory().join("images").join(image.to_string());
    fs::remove_file(&path).unwrap();
    for item in [Item::Record(record.id), Item::Tag("tag".to_owned())] {
        match verify(&store.verification(), &item) {
            Err(StoreError::Missing {
                what: "image",
                path: missing,
            }) => assert_eq!(missing, path),
            result => panic!("{item}: {result:?}"),
        }
    }
}
