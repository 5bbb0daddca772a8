//! Removing names, tags and images.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use common::{empty_store, files_in, publish_seed, record};
use wsnap_snapshots::{GcOptions, ImageId, RecordId, Removed, Store, StoreError};

fn parents(store: &Store) -> Vec<Option<RecordId>> {
    store
        .records()
        .unwrap()
        .iter()
        .map(|record| record.parent)
        .collect()
}

fn image_files(store: &Store) -> usize {
    files_in(&store.directory().join("images")).len()
}

#[test]
fn removed_names_and_tags_are_gone_and_their_images_stay() {
    let (_folder, store) = empty_store();
    let id = publish_seed(&store, 1);
    store.set_tag("kept", id).unwrap();
    store.set_tag("v1", id).unwrap();
    store.set_name("job", id).unwrap();
    store.remove_tag("v1").unwrap();
    store.remove_name("job").unwrap();
    assert_eq!(
        store.tags().unwrap(),
        BTreeMap::from([("kept".to_owned(), id)])
    );
    assert_eq!(store.names().unwrap(), BTreeMap::new());
    store.load(id).unwrap().verify().unwrap();
}

#[test]
fn removing_a_name_or_tag_that_is_not_there_or_not_one_says_so() {
    let (_folder, store) = empty_store();
    for result in [store.remove_tag("none"), store.remove_name("none")] {
        match result {
            Err(StoreError::NotFound { reference, .. }) => assert_eq!(reference, "none"),
            other => panic!("{other:?}"),
        }
    }
    for name in ["../version", "", ".", "a/b"] {
        for result in [store.remove_tag(name), store.remove_name(name)] {
            match result {
                Err(StoreError::InvalidName { .. }) => (),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
    assert!(store.directory().join("version").exists());
}

#[test]
fn an_unreadable_tag_can_be_removed() {
    let (_folder, store) = empty_store();
    fs::write(store.directory().join("tags/broken"), "nothing").unwrap();
    store.remove_tag("broken").unwrap();
    assert_eq!(store.tags().unwrap(), BTreeMap::new());
}

#[test]
fn an_image_is_removed_with_its_records_and_their_children_get_their_parents() {
    let (_folder, store) = empty_store();
    let images: Vec<ImageId> = (0..5).map(|seed| publish_seed(&store, seed)).collect();
    let first = record(&store, images[0], None, 1, None);
    let second = record(&store, images[1], Some(first.id), 2, None);
    // The program came to the same state once more.
    let third = record(&store, images[1], Some(second.id), 3, None);
    let fourth = record(&store, images[2], Some(third.id), 4, None);
    let fifth = record(&store, images[3], Some(second.id), 5, None);
    record(&store, images[4], Some(fourth.id), 6, None);

    let removed = store.remove_image(images[1], false).unwrap();
    let expected = Removed {
        records: vec![second.id, third.id],
        ..Removed::default()
    };
    assert_eq!(removed, expected);
    assert_eq!(
        parents(&store),
        [None, Some(first.id), Some(first.id), Some(fourth.id)]
    );
    store.remove_image(images[0], false).unwrap();
    assert_eq!(parents(&store), [None, None, Some(fourth.id)]);
    let ids: Vec<RecordId> = store
        .records()
        .unwrap()
        .iter()
        .map(|each| each.id)
        .collect();
    assert_eq!(ids[..2], [fourth.id, fifth.id]);
    assert_eq!(image_files(&store), 3);
    for id in &images[2..] {
        store.load(*id).unwrap().verify().unwrap();
    }
}

#[test]
fn an_image_that_tags_or_names_point_at_is_removed_by_force_only() {
    let (_folder, store) = empty_store();
    let images: Vec<ImageId> = (0..4).map(|seed| publish_seed(&store, seed)).collect();
    // The newest record of the job is of an image that is missing, and the next one is of this very image.
    record(&store, images[0], None, 1, Some("job"));
    record(&store, images[1], None, 2, Some("other"));
    let gone = record(&store, images[3], None, 8, Some("job"));
    record(&store, images[2], None, 3, Some("job"));
    fs::remove_file(store.directory().join(format!("images/{}", gone.image))).unwrap();
    store.set_name("job", images[2]).unwrap();
    store.set_name("unrecorded", images[2]).unwrap();
    store.set_name("other", images[1]).unwrap();
    store.set_tag("v1", images[2]).unwrap();
    store.set_tag("v0", images[1]).unwrap();

    match store.remove_image(images[2], false) {
        Err(error @ StoreError::Referenced { .. }) => assert_eq!(
            error.to_string(),
            format!(
                "image {} is tagged v1 and the latest of job, unrecorded: remove these first, or force it",
                images[2]
            )
        ),
        other => panic!("{other:?}"),
    }
    assert_eq!(image_files(&store), 3);

    let removed = store.remove_image(images[2], true).unwrap();
    assert_eq!(removed.tags, ["v1"]);
    let names = [("job", Some(images[0])), ("unrecorded", None)];
    assert_eq!(
        removed.names,
        names.map(|(name, id)| (name.to_owned(), id)).into()
    );
    let names = [("job", images[0]), ("other", images[1])];
    assert_eq!(
        store.names().unwrap(),
        names.map(|(name, id)| (name.to_owned(), id)).into()
    );
    assert_eq!(store.tags().unwrap(), [("v0".to_owned(), images[1])].into());
    assert_eq!(image_files(&store), 2);
}

#[test]
fn an_image_in_use_is_not_removed_even_by_force() {
    let (_folder, store) = empty_store();
    let id = publish_seed(&store, 1);
    record(&store, id, None, 1, None);
    store.set_tag("v1", id).unwrap();
    let holder = store.load(id).unwrap();
    for force in [false, true] {
        match store.remove_image(id, force) {
            Err(StoreError::InUse { image }) => assert_eq!(image, id),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(store.tags().unwrap().len(), 1);
    assert_eq!(store.records().unwrap().len(), 1);
    store.load(id).unwrap().verify().unwrap();
    drop(holder);
    store.remove_image(id, true).unwrap();
    assert_eq!(image_files(&store), 0);
}

#[test]
fn a_damaged_or_missing_image_can_be_removed() {
    let (_folder, store) = empty_store();
    for damage in ["damaged", "missing"] {
        let id = publish_seed(&store, 1);
        record(&store, id, None, 1, None);
        store.set_tag("v1", id).unwrap();
        let path = store.directory().join(format!("images/{id}"));
        fs::remove_file(&path).unwrap();
        if damage == "damaged" {
            fs::write(&path, "?").unwrap();
        }
        store.remove_image(id, true).unwrap();
        assert!(store.records().unwrap().is_empty(), "{damage}");
        assert!(store.tags().unwrap().is_empty(), "{damage}");
        assert_eq!(image_files(&store), 0, "{damage}");
        match store.remove_image(id, true) {
            Err(StoreError::Missing { what: "image", .. }) => (),
            other => panic!("{damage}: {other:?}"),
        }
    }
}

#[test]
fn nothing_is_removed_while_a_tag_is_unreadable() {
    let (_folder, store) = empty_store();
    let id = publish_seed(&store, 1);
    let bad = store.directory().join("tags/bad");
    fs::write(&bad, "?").unwrap();
    match store.remove_image(id, true) {
        Err(StoreError::Damaged { path, .. }) => assert_eq!(path, bad),
        other => panic!("{other:?}"),
    }
    store.load(id).unwrap();
}

#[test]
fn an_unreadable_record_of_another_image_keeps_nobody_from_removing() {
    let (_folder, store) = empty_store();
    let id = publish_seed(&store, 1);
    let own = record(&store, id, None, 1, None);
    let bad = store
        .directory()
        .join("records/00000000000000000000000000000000.json");
    let own_path = store.directory().join(format!("records/{}.json", own.id));
    for path in [&bad, &own_path] {
        fs::write(path, "?").unwrap();
    }
    assert_eq!(store.remove_image(id, false).unwrap().records, [own.id]);
    assert!(bad.exists() && !own_path.exists());
    // As the thinning of autosaves does, for which every image stays.
    let all_stay = GcOptions {
        grace: Duration::MAX,
        ..GcOptions::default()
    };
    store.gc(&all_stay).unwrap();
    match store.gc(&GcOptions::default()) {
        Err(StoreError::Damaged { path, .. }) => assert_eq!(path, bad),
        other => panic!("{other:?}"),
    }
}
