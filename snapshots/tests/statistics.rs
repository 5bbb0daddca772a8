//! What a store says of itself.

mod common;

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use common::{disk_bytes, empty_store, publish, publish_change, publish_seed, record};
use wsnap_snapshots::{Amount, GcOptions, StoreError};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[test]
fn an_empty_store_shares_nothing() {
    let (_folder, store) = empty_store();
    let statistics = store.statistics().unwrap();
    assert_eq!(statistics.images, Amount::default());
    assert_eq!(statistics.memory_bytes, 0);
    assert_eq!(statistics.sharing_factor(), 1.0);
    assert_eq!(statistics.disk_bytes, disk_bytes(store.directory()));
}

#[test]
fn all_files_and_what_they_share_are_counted() {
    let (_folder, store) = empty_store();
    let mut shared = vec![0; 100 * 4096];
    shared[..64 * 4096].fill(7);
    let mut own = vec![0; 10_000];
    own[9_999] = 1;
    for seed in 1..=4 {
        own[0] = seed;
        let id = publish(&store, &[&shared, &own]).unwrap();
        record(&store, id, None, 1, None);
    }
    store
        .set_tag("v1", publish(&store, &[&shared]).unwrap())
        .unwrap();
    let statistics = store.statistics().unwrap();
    assert_eq!(statistics.images.count, 5);
    assert_eq!(statistics.records.count, 4);
    assert_eq!(statistics.page_maps.count, 5);
    assert_eq!(statistics.layers.count, 5);
    assert_eq!(statistics.modules.count, 1);
    assert_eq!(statistics.memory_bytes, 5 * 100 * 4096 + 4 * 10_000);
    assert_eq!(statistics.unshared_bytes, (5 * 64 + 4 * 2) * 4096);
    assert_eq!(statistics.hidden_bytes, 0);
    assert_eq!(statistics.garbage, Amount::default());
    assert_eq!(statistics.disk_bytes, disk_bytes(store.directory()));
    let layers = fs::read_dir(store.directory().join("layers")).unwrap();
    let layers = layers
        .map(|entry| disk_bytes_of(&entry.unwrap().path()))
        .sum::<u64>();
    assert_eq!(statistics.layers.bytes, layers);
    let expected = statistics.unshared_bytes as f64 / layers as f64;
    assert_eq!(statistics.sharing_factor(), expected);
    assert!(expected > 2.0);
}

fn disk_bytes_of(path: &std::path::Path) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(&path.metadata().unwrap()) * 512
}

#[test]
fn garbage_is_what_the_next_collection_deletes() {
    let (_folder, store) = empty_store();
    let old = publish_seed(&store, 1);
    publish_seed(&store, 2);
    fs::write(store.directory().join("tmp/.tmp1"), vec![1; 9000]).unwrap();
    let path = store.directory().join(format!("images/{old}"));
    File::open(path)
        .unwrap()
        .set_modified(SystemTime::now() - 15 * DAY)
        .unwrap();
    let garbage = store.statistics().unwrap().garbage;
    assert_eq!(garbage.count, 4);
    assert_eq!(
        store.gc(&GcOptions::default()).unwrap().freed.total(),
        garbage
    );
    assert_eq!(store.statistics().unwrap().garbage, Amount::default());
}

#[test]
fn a_damaged_image_is_named() {
    let (_folder, store) = empty_store();
    let id = publish_seed(&store, 1);
    let bad = store.directory().join(format!("images/{id}"));
    fs::remove_file(&bad).unwrap();
    fs::write(&bad, "?").unwrap();
    match store.statistics() {
        Err(StoreError::Damaged {
            what: "image",
            path,
            ..
        }) => assert_eq!(path, bad),
        other => panic!("{other:?}"),
    }
}

#[test]
fn pages_that_no_image_shows_any_more_are_hidden() {
    const PAGE: u64 = 4096;
    let (_folder, store) = empty_store();
    let first = publish(&store, &[&vec![1; 100 * 4096]]).unwrap();
    let first = store.load(first).unwrap();
    let second = publish_change(&store, &first, 10..30, 2);
    let third = publish_change(&store, &second, 20..60, 3);
    // A branch.
    let fourth = publish_change(&store, &first, 25..26, 4);
    let statistics = store.statistics().unwrap();
    assert_eq!(statistics.layers.count, 4);
    assert_eq!(statistics.unshared_bytes, 400 * PAGE);
    assert_eq!(statistics.hidden_bytes, 0);
    assert!(statistics.sharing_factor() > 2.0);

    let ids = [&first, &second].map(|image| image.id());
    drop((first, second));
    ids.iter()
        .for_each(|id| assert_eq!(store.remove_image(*id, false).unwrap().records, []));
    // The pages 20 to 30 of the second layer, and of the first one page 25, which no other image shows.
    assert_eq!(store.statistics().unwrap().hidden_bytes, 11 * PAGE);
    drop(fourth);
    third.verify().unwrap();
}
