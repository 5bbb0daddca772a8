//! What is interrupted.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use wsnap_snapshots::{
    ExportOptions, GcOptions, ImageId, ImportError, ImportOptions, LAYERS_MAX, MemoryUpdate,
    NewRecord, Published, RecordId, Retention, Store, StoreError, StoredImage,
};

use crate::common::{MODULE, manifest_with, publish, publish_change, publish_seed, record};
use crate::promises::{Promises, Subject};
use crate::store_path;

pub struct Scenario {
    pub name: &'static str,
    /// Makes the store that the operation finds, in a folder, and returns the ids that the operation needs.
    pub prepare: fn(&Path) -> Vec<ImageId>,
    /// Says what it does to whom before it does it, and what has been reported to it.
    pub operation: fn(&Store, &[ImageId], &Promises) -> Result<(), StoreError>,
}

pub const SCENARIOS: [Scenario; 12] = [
    Scenario {
        name: "creating a store",
        prepare: |_| Vec::new(),
        operation: first_snapshot,
    },
    Scenario {
        name: "a first snapshot",
        prepare: |folder| {
            Store::open(store_path(folder)).unwrap();
            Vec::new()
        },
        operation: first_snapshot,
    },
    Scenario {
        name: "a next snapshot",
        prepare: |folder| {
            let store = Store::open(store_path(folder)).unwrap();
            first_snapshot(&store, &[], &Promises::default()).unwrap();
            Vec::new()
        },
        operation: next_snapshot,
    },
    Scenario {
        name: "a snapshot that takes over layers",
        prepare: prepare_many_layers,
        operation: |store, ids, promises| {
            next_snapshot(store, ids, promises)?;
            // It did.
            let layers = store.load(store.resolve("job")?)?.memories()[0]
                .layers()
                .len();
            assert!(layers <= LAYERS_MAX / 2, "{layers}");
            Ok(())
        },
    },
    Scenario {
        name: "storing damaged content again",
        prepare: prepare_damaged,
        operation: |store, ids, promises| {
            promises.may_become(Subject::Image(ids[0]), &[Some(ids[0])]);
            let id = publish(store, &[&memory()])?;
            assert_eq!(id, ids[0]);
            promises.is_now(Subject::Image(id), Some(id));
            Ok(())
        },
    },
    Scenario {
        name: "flattening",
        prepare: |folder| {
            let store = Store::open(store_path(folder)).unwrap();
            let mut image = store
                .load(publish(&store, &[&memory(), &memory()[..9000]]).unwrap())
                .unwrap();
            for byte in 1..4 {
                image = change(&store, &image, byte).unwrap().image;
            }
            store.set_name("job", image.id()).unwrap();
            vec![image.id()]
        },
        operation: |store, ids, _| {
            store.flatten(ids[0])?;
            assert_eq!(store.load(ids[0])?.memories()[0].layers().len(), 1);
            Ok(())
        },
    },
    Scenario {
        name: "collecting garbage",
        prepare: prepare_history,
        operation: |store, ids, promises| {
            may_go(store, &[ids[0], ids[2], ids[3], ids[6], ids[7]], promises)?;
            let options = GcOptions {
                grace: Duration::ZERO,
                retention: Some(Retention {
                    last: 2,
                    one_per: None,
                }),
                ..GcOptions::default()
            };
            store.gc(&options)?;
            are_gone(&[ids[0], ids[2], ids[3], ids[6], ids[7]], promises);
            Ok(())
        },
    },
    Scenario {
        name: "removing an image with children and a tag",
        prepare: prepare_history,
        operation: |store, ids, promises| {
            promises.may_become(Subject::Tag("v1".to_owned()), &[None]);
            remove(store, ids[1], promises)?;
            promises.is_now(Subject::Tag("v1".to_owned()), None);
            Ok(())
        },
    },
    Scenario {
        name: "removing the latest image of a program",
        prepare: prepare_history,
        operation: |store, ids, promises| {
            promises.may_become(Subject::Name("job".to_owned()), &[Some(ids[4])]);
            remove(store, ids[5], promises)?;
            promises.is_now(Subject::Name("job".to_owned()), Some(ids[4]));
            Ok(())
        },
    },
    Scenario {
        name: "moving and removing references",
        prepare: prepare_history,
        operation: |store, ids, promises| {
            let (tag, name) = (
                Subject::Tag("v1".to_owned()),
                Subject::Name("job".to_owned()),
            );
            promises.may_become(tag.clone(), &[Some(ids[0])]);
            store.set_tag("v1", ids[0])?;
            promises.is_now(tag.clone(), Some(ids[0]));
            promises.may_become(name.clone(), &[Some(ids[3])]);
            store.set_name("job", ids[3])?;
            promises.is_now(name.clone(), Some(ids[3]));
            promises.may_become(tag.clone(), &[None]);
            store.remove_tag("v1")?;
            promises.is_now(tag, None);
            promises.may_become(name.clone(), &[None]);
            store.remove_name("job")?;
            promises.is_now(name, None);
            Ok(())
        },
    },
    Scenario {
        name: "importing",
        prepare: |folder| {
            let store = Store::open(store_path(folder)).unwrap();
            publish_seed(&store, 1);
            Vec::new()
        },
        operation: import,
    },
    Scenario {
        name: "verifying",
        prepare: |folder| {
            let store = Store::open(store_path(folder)).unwrap();
            let id = publish(&store, &[&memory()]).unwrap();
            std::fs::remove_file(store.directory().join("verified")).unwrap();
            vec![id]
        },
        operation: |store, ids, _| store.verify_unverified(&store.load(ids[0])?, &|_| ()),
    },
];

/// Some pages, the last of which is incomplete.
fn memory() -> Vec<u8> {
    let mut memory = vec![0; 40 * 4096 + 100];
    for page in (0..41).filter(|page| page % 5 != 0) {
        memory[page * 4096] = page as u8;
    }
    memory
}

fn first_snapshot(store: &Store, _: &[ImageId], promises: &Promises) -> Result<(), StoreError> {
    let (memory, small) = (memory(), [7; 100]);
    let memories: [&[u8]; 2] = [&memory, &small];
    let module = store.put_module(MODULE)?;
    let id = store.publish(manifest_with(module, &memories), &memories)?;
    finish_snapshot(store, id, None, promises)
}

fn next_snapshot(store: &Store, _: &[ImageId], promises: &Promises) -> Result<(), StoreError> {
    let root = store.records()?.into_iter().next().unwrap();
    let base = store.load(root.image)?;
    let published = change(store, &base, 200)?;
    finish_snapshot(store, published.image.id(), Some(root.id), promises)
}

/// Publishes the program of `base` after it has written to one page and cleared another.
fn change(store: &Store, base: &StoredImage, byte: u8) -> Result<Published, StoreError> {
    let mut updated: Vec<Vec<u8>> = Vec::new();
    for stored in base.memories() {
        let mut memory = vec![0; stored.byte_len() as usize];
        stored.read_at(0, &mut memory)?;
        updated.push(memory);
    }
    updated[0][4096 * 2..4096 * 3].fill(byte);
    updated[0][4096 * 3..4096 * 4].fill(0);
    let dirty = [4096 * 2..4096 * 3, 4096 * 3..4096 * 4];
    let updates: Vec<MemoryUpdate<'_>> = base
        .memories()
        .iter()
        .zip(&updated)
        .enumerate()
        .map(|(index, (stored, memory))| MemoryUpdate {
            base: Some(stored),
            byte_len: stored.byte_len(),
            dirty: if index == 0 { &dirty } else { &[] },
            source: memory,
        })
        .collect();
    store.publish_update(base.manifest().clone(), &updates)
}

/// What follows the image of every snapshot.
fn finish_snapshot(
    store: &Store,
    id: ImageId,
    parent: Option<RecordId>,
    promises: &Promises,
) -> Result<(), StoreError> {
    promises.is_now(Subject::Image(id), Some(id));
    let mut new = NewRecord::new(id, if parent.is_some() { 2 } else { 1 }, "snap");
    new.parent = parent;
    new.name = Some("job".to_owned());
    let record = store.put_record(new)?;
    promises.is_now(Subject::Record(record.id), Some(id));
    let (name, tag) = (
        Subject::Name("job".to_owned()),
        Subject::Tag("v1".to_owned()),
    );
    promises.may_become(name.clone(), &[Some(id)]);
    store.set_name("job", id)?;
    promises.is_now(name, Some(id));
    promises.may_become(tag.clone(), &[Some(id)]);
    store.set_tag("v1", id)?;
    promises.is_now(tag, Some(id));
    Ok(())
}

/// A program whose memory lies in as many layers as it can, and of whose snapshots only the latest is left.
fn prepare_many_layers(folder: &Path) -> Vec<ImageId> {
    let store = Store::open(store_path(folder)).unwrap();
    let mut image = store
        .load(publish(&store, &[&vec![1; 80 * 4096]]).unwrap())
        .unwrap();
    for page in 1..LAYERS_MAX as u64 {
        image = publish_change(&store, &image, page + 4..page + 5, 2);
    }
    let layers = image.memories()[0].layers().len();
    assert_eq!(layers, LAYERS_MAX);
    store.set_name("job", image.id()).unwrap();
    record(&store, image.id(), None, 0, Some("job"));
    let id = image.id();
    drop(image);
    store.gc(&crate::NO_GRACE).unwrap();
    vec![id]
}

/// An image whose layer is lost, and another one that uses the same module.
fn prepare_damaged(folder: &Path) -> Vec<ImageId> {
    let store = Store::open(store_path(folder)).unwrap();
    publish_seed(&store, 1);
    let id = publish(&store, &[&memory()]).unwrap();
    let layer = store.load(id).unwrap().memories()[0].layers()[0]
        .path()
        .to_owned();
    std::fs::remove_file(layer).unwrap();
    // Only what is whole can be promised and collected.
    std::fs::remove_file(store.directory().join("images").join(id.to_string())).unwrap();
    vec![id]
}

/// A program with a history of six images, of which the second has two children and a tag; two images are garbage.
fn prepare_history(folder: &Path) -> Vec<ImageId> {
    let store = Store::open(store_path(folder)).unwrap();
    let ids: Vec<ImageId> = (0..8).map(|seed| publish_seed(&store, seed)).collect();
    let mut parents = Vec::new();
    let history = [None, Some(0), Some(1), Some(1), Some(3), Some(4)];
    for (time, parent) in history.into_iter().enumerate() {
        let parent = parent.map(|parent: usize| parents[parent]);
        parents.push(record(&store, ids[time], parent, time as u64, Some("job")).id);
    }
    record(&store, ids[6], None, 9, None);
    store.set_name("job", ids[5]).unwrap();
    store.set_tag("v1", ids[1]).unwrap();
    std::fs::write(store.directory().join("tmp/.tmp1"), "x").unwrap();
    ids
}

/// Images and their records are about to be deleted.
fn may_go(store: &Store, ids: &[ImageId], promises: &Promises) -> Result<(), StoreError> {
    for id in ids {
        promises.may_become(Subject::Image(*id), &[None]);
    }
    for record in store.records()? {
        if ids.contains(&record.image) {
            promises.may_become(Subject::Record(record.id), &[None]);
        }
    }
    Ok(())
}

fn are_gone(ids: &[ImageId], promises: &Promises) {
    for id in ids {
        promises.is_now(Subject::Image(*id), None);
    }
}

fn remove(store: &Store, id: ImageId, promises: &Promises) -> Result<(), StoreError> {
    may_go(store, &[id], promises)?;
    store.remove_image(id, true)?;
    are_gone(&[id], promises);
    Ok(())
}

/// A program with three snapshots, as it comes from elsewhere.
static STREAM: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let folder = crate::scratch();
    let store = Store::open(store_path(folder.path())).unwrap();
    let mut image = store.load(publish(&store, &[&memory()]).unwrap()).unwrap();
    let mut parent = record(&store, image.id(), None, 1, Some("other")).id;
    for byte in 1..3 {
        image = change(&store, &image, byte).unwrap().image;
        parent = record(
            &store,
            image.id(),
            Some(parent),
            1 + u64::from(byte),
            Some("other"),
        )
        .id;
    }
    let options = ExportOptions {
        ancestors: true,
        ..ExportOptions::default()
    };
    let mut stream = Vec::new();
    store
        .export(&[image.id()], &options, &mut stream, |_| ())
        .unwrap();
    stream
});

fn import(store: &Store, _: &[ImageId], promises: &Promises) -> Result<(), StoreError> {
    let imported = match store.import(&STREAM[..], &ImportOptions::default(), |_| ()) {
        Ok(imported) => imported,
        Err(ImportError::Store(error)) => return Err(error),
        Err(other) => panic!("{other:?}"),
    };
    for id in imported.new_images {
        promises.is_now(Subject::Image(id), Some(id));
    }
    // They would be garbage otherwise, of which a store need not keep everything.
    for record in store.records()? {
        promises.is_now(Subject::Record(record.id), Some(record.image));
    }
    let id = imported.images[0];
    promises.may_become(Subject::Name("other".to_owned()), &[Some(id)]);
    store.set_name("other", id)?;
    promises.is_now(Subject::Name("other".to_owned()), Some(id));
    Ok(())
}
