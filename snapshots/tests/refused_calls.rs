//! Every single system call of a publication is refused in turn.

mod common;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{MODULE, content, files_in, manifest_with, publish};
use wsnap_snapshots::{
    Faults, ImageId, MemoryUpdate, Operation, OperationKind, Store, StoreError, StoredImage,
};

/// Refuses one call, and counts them.
#[derive(Debug)]
struct RefuseOne {
    calls: AtomicU64,
    refused: u64,
}

impl Faults for RefuseOne {
    fn before(&self, _: Operation<'_>) -> io::Result<()> {
        match self.calls.fetch_add(1, Ordering::Relaxed) == self.refused {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

fn second_memory() -> Vec<u8> {
    let mut memory = vec![1; 300_000];
    memory[100_000] = 2;
    memory
}

/// Publishes [`second_memory`] as an update of an image in which all bytes are 1.
fn update(store: &Store, base: &StoredImage) -> Result<ImageId, StoreError> {
    let memory = second_memory();
    let update = MemoryUpdate {
        base: Some(&base.memories()[0]),
        byte_len: memory.len() as u64,
        dirty: std::slice::from_ref(&(98_304..102_400)),
        source: &memory,
    };
    let manifest = manifest_with(store.put_module(MODULE)?, &[&memory]);
    Ok(store.publish_update(manifest, &[update])?.image.id())
}

/// Does `work` once for each call that it makes, with that call refused, and checks the store each time.
fn refuse_each(work: impl Fn(&Store, &StoredImage) -> Result<ImageId, StoreError>) {
    for refused in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let old = publish(&store, &[&[1; 300_000]]).unwrap();
        let faults = Arc::new(RefuseOne {
            calls: AtomicU64::new(0),
            refused,
        });
        let faulty = Store::open_with_faults(folder.path(), faults.clone()).unwrap();
        let result = work(&faulty, &store.load(old).unwrap());
        store.load(old).unwrap().verify().unwrap();
        assert!(files_in(&folder.path().join("tmp")).is_empty(), "{refused}");
        for entry in store.images().unwrap() {
            store.load(entry.id).unwrap().verify().unwrap();
        }
        match result {
            Ok(new) => {
                let image = store.load(new).unwrap();
                image.verify().unwrap();
                assert!(content(&image, 0) == second_memory());
                if faults.calls.load(Ordering::Relaxed) <= refused {
                    assert!(refused > 10, "only {refused} calls");
                    return;
                }
            }
            Err(StoreError::Io { source, .. }) => {
                assert_eq!(source.kind(), io::ErrorKind::StorageFull);
                assert!(faults.calls.load(Ordering::Relaxed) > refused);
            }
            Err(other) => panic!("{refused}: {other}"),
        }
        // What has been left undone can be done.
        let new = update(&store, &store.load(old).unwrap()).unwrap();
        store.load(new).unwrap().verify().unwrap();
    }
}

#[test]
fn a_publication_that_is_refused_any_call_leaves_a_valid_store() {
    refuse_each(update);
}

#[test]
fn flattening_that_is_refused_any_call_leaves_a_valid_store() {
    refuse_each(|store, base| {
        let new = update(store, base)?;
        store.flatten(new).map(|()| new)
    });
}

#[test]
fn a_file_that_cannot_be_removed_stays_among_the_temporary_ones() {
    #[derive(Debug)]
    struct NoRenameNoRemove;
    impl Faults for NoRenameNoRemove {
        fn before(&self, operation: Operation<'_>) -> io::Result<()> {
            match operation.kind {
                OperationKind::Rename | OperationKind::Remove => {
                    Err(io::ErrorKind::PermissionDenied.into())
                }
                _ => Ok(()),
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let faulty = Store::open_with_faults(folder.path(), Arc::new(NoRenameNoRemove)).unwrap();
    match publish(&faulty, &[&[1; 10]]) {
        Err(StoreError::Io { source, .. }) => {
            assert_eq!(source.kind(), io::ErrorKind::PermissionDenied);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(files_in(&folder.path().join("tmp")).len(), 1);
    store
        .load(publish(&store, &[&[1; 10]]).unwrap())
        .unwrap()
        .verify()
        .unwrap();
}
