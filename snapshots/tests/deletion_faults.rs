//! Deleting while the file system fails, or the process ends, at any one system call.

mod common;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{files_in, publish_seed, record};
use wsnap_snapshots::{Faults, GcOptions, ImageId, Operation, Retention, Store, StoreError};

/// How calls fail from one of them on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    /// One call fails, as when a disk is full for a moment.
    Once,
    /// Nothing works any more, as when the process has ended.
    FromThenOn,
}

#[derive(Debug)]
struct FailAt {
    call: u64,
    mode: Mode,
    calls: AtomicU64,
}

impl Faults for FailAt {
    fn before(&self, _: Operation<'_>) -> io::Result<()> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        if call == self.call || (call > self.call && self.mode == Mode::FromThenOn) {
            return Err(io::Error::other("injected"));
        }
        Ok(())
    }
}

/// A program with a history of six images, of which the second has two children and a tag; two images are garbage.
fn fill(directory: &Path) -> Vec<ImageId> {
    let store = Store::open(directory).unwrap();
    let ids: Vec<ImageId> = (0..8).map(|seed| publish_seed(&store, seed)).collect();
    let mut parents = Vec::new();
    for (time, parent) in [None, Some(0), Some(1), Some(1), Some(3), Some(4)]
        .into_iter()
        .enumerate()
    {
        let parent = parent.map(|parent: usize| parents[parent]);
        parents.push(record(&store, ids[time], parent, time as u64, Some("job")).id);
    }
    record(&store, ids[6], None, 9, None);
    store.set_name("job", ids[5]).unwrap();
    store.set_tag("v1", ids[1]).unwrap();
    std::fs::write(directory.join("tmp/.tmp1"), "x").unwrap();
    ids
}

/// What a store holds, but for the ids of records, which are random.
fn content(store: &Store) -> BTreeMap<String, Vec<String>> {
    let mut content = BTreeMap::new();
    for folder in [
        "images", "memories", "layers", "modules", "tmp", "names", "tags",
    ] {
        let files = files_in(&store.directory().join(folder));
        let names = files
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
        content.insert(folder.to_owned(), names.collect());
    }
    let records = store.records().unwrap();
    let history = records.iter().map(|record| {
        let parent = records.iter().find(|other| Some(other.id) == record.parent);
        format!(
            "{} from {:?}",
            record.image,
            parent.map(|parent| parent.image)
        )
    });
    content.insert("records".to_owned(), history.collect());
    let targets = store
        .names()
        .unwrap()
        .into_iter()
        .chain(store.tags().unwrap());
    content.insert(
        "targets".to_owned(),
        targets.map(|(name, id)| format!("{name} {id}")).collect(),
    );
    content
}

fn check_valid(store: &Store, must_stay: &[ImageId], context: &str) {
    for entry in store.images().unwrap() {
        store.load(entry.id).unwrap().verify().unwrap();
    }
    for id in store
        .names()
        .unwrap()
        .values()
        .chain(store.tags().unwrap().values())
    {
        store
            .load(*id)
            .unwrap_or_else(|error| panic!("{context}: {error}"));
    }
    let records = store.records().unwrap();
    for record in &records {
        store
            .load(record.image)
            .unwrap_or_else(|error| panic!("{context}: {error}"));
        if let Some(parent) = record.parent {
            assert!(records.iter().any(|other| other.id == parent), "{context}");
        }
    }
    for id in must_stay {
        store
            .load(*id)
            .unwrap_or_else(|error| panic!("{context}: {error}"));
    }
}

/// Fails `operation` at each of its calls in turn. Then the store is valid, and `operation` once more, without faults,
/// leads to where it would have led without them, once the garbage is gone.
fn fail_at_every_call(
    must_stay: &[usize],
    operation: impl Fn(&Store, &[ImageId]) -> Result<(), StoreError>,
) {
    let folder = tempfile::tempdir().unwrap();
    let ids = fill(folder.path());
    let store = Store::open(folder.path()).unwrap();
    operation(&store, &ids).unwrap();
    store.gc(&GcOptions::default()).unwrap();
    let expected = content(&store);
    let must_stay: Vec<ImageId> = must_stay.iter().map(|index| ids[*index]).collect();
    check_valid(&store, &must_stay, "no faults");

    for mode in [Mode::Once, Mode::FromThenOn] {
        let mut call = 0;
        loop {
            let context = format!("{mode:?} at call {call}");
            let folder = tempfile::tempdir().unwrap();
            fill(folder.path());
            let faults = Arc::new(FailAt {
                call,
                mode,
                calls: AtomicU64::new(0),
            });
            let faulty = Store::open_with_faults(folder.path(), Arc::clone(&faults) as _).unwrap();
            let result = operation(&faulty, &ids);
            if faults.calls.load(Ordering::Relaxed) <= call {
                result.unwrap();
                assert!(call > 5, "{context}");
                break;
            }
            match result {
                Err(StoreError::Io { source, .. }) => assert_eq!(source.to_string(), "injected"),
                other => panic!("{context}: {other:?}"),
            }
            let store = Store::open(folder.path()).unwrap();
            check_valid(&store, &must_stay, &context);
            match operation(&store, &ids) {
                Ok(()) | Err(StoreError::Missing { what: "image", .. }) => (),
                other => panic!("{context}: {other:?}"),
            }
            store.gc(&GcOptions::default()).unwrap();
            assert_eq!(content(&store), expected, "{context}");
            call += 1;
        }
    }
}

#[test]
fn a_collection_that_fails_at_any_call_leaves_a_valid_store_and_is_made_up_for_by_the_next() {
    fail_at_every_call(&[1, 4, 5], |store, _| {
        let options = GcOptions {
            grace: Duration::ZERO,
            retention: Some(Retention {
                last: 2,
                one_per: None,
            }),
            ..GcOptions::default()
        };
        store.gc(&options).map(|_| ())
    });
}

#[test]
fn a_removal_that_fails_at_any_call_leaves_a_valid_store_and_can_be_repeated() {
    // The second image has a tag and children.
    fail_at_every_call(&[0, 2, 3, 4, 5, 6, 7], |store, ids| {
        store.remove_image(ids[1], true).map(|_| ())
    });
    // The last one is the latest of a program.
    fail_at_every_call(&[0, 1, 2, 3, 4, 6, 7], |store, ids| {
        store.remove_image(ids[5], true).map(|_| ())
    });
}
