//! Records in a store.

mod common;

use std::fs;

use common::{empty_store, files_in, only_file, publish_seed, record};
use wsnap_snapshots::{Damage, ImageId, NewRecord, Record, RecordId, StoreError};

#[test]
fn records_are_listed_by_time() {
    let (_folder, store) = empty_store();
    let image = publish_seed(&store, 1);
    let late = record(&store, image, None, 30, Some("job"));
    let early = record(&store, image, None, 10, None);
    let middle = record(&store, publish_seed(&store, 2), Some(early.id), 20, None);
    assert_eq!(store.records().unwrap(), [early, middle, late]);
    assert!(files_in(&store.directory().join("tmp")).is_empty());
}

#[test]
fn a_record_keeps_all_that_it_was_made_of() {
    let (_folder, store) = empty_store();
    let mut new = NewRecord::new(publish_seed(&store, 1), 1_700_000_000_123, "every");
    new.name = Some("job".to_owned());
    new.labels.insert("host".to_owned(), "a\nb".to_owned());
    new.added_bytes = 12_345;
    new.ran_ms = 6_789;
    new.output_bytes = Some(42);
    let made = store.put_record(new.clone()).unwrap();
    let Record {
        id,
        image,
        parent,
        taken_at_ms,
        trigger,
        name,
        labels,
        added_bytes,
        ran_ms,
        output_bytes,
        rejected,
    } = made.clone();
    assert_eq!(rejected, None);
    assert_eq!(
        new,
        NewRecord {
            image,
            parent,
            taken_at_ms,
            trigger,
            name,
            labels,
            added_bytes,
            ran_ms,
            output_bytes,
        }
    );
    let path = only_file(&store, "records");
    assert_eq!(
        path.file_name().unwrap().to_str().unwrap(),
        format!("{id}.json")
    );
    assert!(image.to_string().starts_with(&id.to_string()[..16]));
    assert_eq!(store.records().unwrap(), [made]);
}

#[test]
fn each_record_of_an_image_has_an_id_of_its_own_and_the_newest_counts() {
    let (_folder, store) = empty_store();
    let image = publish_seed(&store, 1);
    assert_eq!(store.record_of(image).unwrap(), None);
    let newest = record(&store, image, None, 50, None);
    for time in 0..20 {
        record(&store, image, None, time, None);
    }
    record(&store, publish_seed(&store, 2), None, 99, None);
    assert_eq!(store.record_of(image).unwrap(), Some(newest));
    assert_eq!(store.records().unwrap().len(), 22);
}

#[test]
fn what_cannot_be_recorded_is_refused_and_leaves_nothing_behind() {
    let (_folder, store) = empty_store();
    let image = publish_seed(&store, 1);
    match store.put_record(NewRecord::new(ImageId([1; 32]), 0, "snap")) {
        Err(StoreError::Missing { what: "image", .. }) => (),
        other => panic!("{other:?}"),
    }
    let mut unnameable = NewRecord::new(image, 0, "snap");
    unnameable.name = Some("../job".to_owned());
    match store.put_record(unnameable) {
        Err(StoreError::InvalidName { name, .. }) => assert_eq!(name, "../job"),
        other => panic!("{other:?}"),
    }
    let mut large = NewRecord::new(image, 0, "snap");
    large.labels.insert("log".to_owned(), "x".repeat(1 << 20));
    match store.put_record(large) {
        Err(StoreError::TooLarge {
            what: "record",
            limit,
            ..
        }) => assert_eq!(limit, 1 << 20),
        other => panic!("{other:?}"),
    }
    assert!(files_in(&store.directory().join("records")).is_empty());
    assert!(files_in(&store.directory().join("tmp")).is_empty());
}

#[test]
fn a_damaged_record_is_named_and_the_others_stay_readable() {
    let (_folder, store) = empty_store();
    let image = publish_seed(&store, 1);
    let other = record(&store, publish_seed(&store, 2), None, 1, None);
    let damaged = record(&store, image, None, 2, None);
    let path = store
        .directory()
        .join(format!("records/{}.json", damaged.id));
    let bytes = fs::read(&path).unwrap();

    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    let huge = vec![b' '; (1 << 20) + 1];
    let too_large = Damage::TooLarge {
        limit: 1 << 20,
        found: huge.len() as u64,
    };
    for (content, expected) in [
        (flipped, Damage::RecordChecksum),
        (bytes[..bytes.len() - 1].to_vec(), Damage::RecordChecksum),
        (Vec::new(), Damage::RecordChecksum),
        (huge, too_large),
        (
            fs::read(store.directory().join(format!("records/{}.json", other.id))).unwrap(),
            Damage::OtherRecord { found: other.id },
        ),
    ] {
        fs::write(&path, content).unwrap();
        for result in [
            store.records().map(|_| ()),
            store.record_of(image).map(|_| ()),
        ] {
            match result {
                Err(StoreError::Damaged {
                    what: "record",
                    path: named,
                    source,
                }) => {
                    assert_eq!((named, source), (path.clone(), expected.clone()));
                }
                other => panic!("{other:?}"),
            }
        }
        let (readable, damaged) = store.readable_records().unwrap();
        assert_eq!(readable, std::slice::from_ref(&other));
        assert_eq!(damaged.len(), 1);
        assert_eq!(store.record_of(other.image).unwrap().as_ref(), Some(&other));
    }
}

#[test]
fn other_files_among_the_records_are_ignored() {
    let (_folder, store) = empty_store();
    let made = record(&store, publish_seed(&store, 1), None, 1, None);
    let folder = store.directory().join("records");
    for name in [".json", "notes.json", &made.id.to_string(), "0123.json"] {
        fs::write(folder.join(name), "x").unwrap();
    }
    assert_eq!(store.records().unwrap(), [made]);
}

#[test]
fn a_record_of_another_store_keeps_its_id_and_does_not_replace_one_that_is_there() {
    let (_folder, store) = empty_store();
    let (_other_folder, other) = empty_store();
    let made = record(
        &store,
        publish_seed(&store, 1),
        Some(RecordId([3; 16])),
        1,
        Some("job"),
    );
    match other.put_foreign_record(&made) {
        Err(StoreError::Missing { what: "image", .. }) => (),
        other => panic!("{other:?}"),
    }
    publish_seed(&other, 1);
    other.put_foreign_record(&made).unwrap();
    assert_eq!(other.records().unwrap(), std::slice::from_ref(&made));
    let changed = Record {
        parent: None,
        ..made.clone()
    };
    other.put_foreign_record(&changed).unwrap();
    assert_eq!(other.records().unwrap(), std::slice::from_ref(&made));

    let misnamed = Record {
        id: RecordId([5; 16]),
        ..made
    };
    match other.put_foreign_record(&misnamed) {
        Err(StoreError::Damaged {
            what: "record",
            source: Damage::OtherImage { .. },
            ..
        }) => (),
        other => panic!("{other:?}"),
    }
}
