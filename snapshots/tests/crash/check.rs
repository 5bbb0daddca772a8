//! What must be true of a store whatever has happened to it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use wsnap_snapshots::{ImageId, Store, StoreError};

use crate::common::files_in;
use crate::promises::{Allowed, Subject};
use crate::{NO_GRACE, store_path};

/// Opens the store in a folder and checks it, as it is and after garbage collection: all that it promised is there, and
/// whatever it shows is whole.
pub fn survives(folder: &Path, promises: &BTreeMap<Subject, Allowed>) -> Result<Store, String> {
    let store = Store::open(store_path(folder)).map_err(|error| format!("{error:?}"))?;
    valid(&store)?;
    kept(&store, promises)?;
    store
        .gc(&Default::default())
        .map_err(|error| format!("garbage collection: {error:?}"))?;
    valid(&store)?;
    kept(&store, promises)?;
    Ok(store)
}

/// Collects all garbage, young or not, and checks that nothing else has gone and nothing has leaked.
pub fn leaks_nothing(folder: &Path) -> Result<(), String> {
    let store = Store::open(store_path(folder)).map_err(|error| format!("{error:?}"))?;
    let pinned = |store: &Store| (store.names().unwrap(), store.tags().unwrap());
    let before = pinned(&store);
    store
        .gc(&NO_GRACE)
        .map_err(|error| format!("garbage collection: {error:?}"))?;
    valid(&store)?;
    if pinned(&store) != before {
        return Err("garbage collection has removed references".to_owned());
    }
    let (expected, found) = (needed(&store), present(&store));
    match expected == found {
        true => Ok(()),
        false => Err(format!("left over: {:?}", &found - &expected)),
    }
}

/// Every image, reference and record can be used.
fn valid(store: &Store) -> Result<(), String> {
    let failed = |what: &str, error: StoreError| format!("{what}: {error:?}");
    let images = store.images().map_err(|error| failed("list", error))?;
    for entry in &images {
        let image = store.load(entry.id);
        let image = image.map_err(|error| failed("image", error))?;
        image.verify().map_err(|error| failed("image", error))?;
        let module = store.module(image.manifest().module);
        module.map_err(|error| failed("module", error))?;
    }
    let names = store.names().map_err(|error| failed("names", error))?;
    let tags = store.tags().map_err(|error| failed("tags", error))?;
    let records = store.records().map_err(|error| failed("records", error))?;
    let recorded = records.iter().map(|record| &record.image);
    for id in names.values().chain(tags.values()).chain(recorded) {
        if !images.iter().any(|entry| entry.id == *id) {
            return Err(format!(
                "something refers to image {id}, which is not there"
            ));
        }
    }
    for parent in records.iter().filter_map(|record| record.parent) {
        if !records.iter().any(|record| record.id == parent) {
            return Err(format!(
                "something refers to record {parent}, which is not there"
            ));
        }
    }
    Ok(())
}

fn kept(store: &Store, promises: &BTreeMap<Subject, Allowed>) -> Result<(), String> {
    for (subject, allowed) in promises {
        let found = match subject {
            Subject::Image(id) => match store.load(*id) {
                Ok(image) => Some(image.id()),
                Err(StoreError::Missing { what: "image", .. }) => None,
                Err(error) => return Err(format!("{subject:?}: {error:?}")),
            },
            Subject::Name(name) => store.names().unwrap().get(name).copied(),
            Subject::Tag(tag) => store.tags().unwrap().get(tag).copied(),
            Subject::Record(id) => {
                let records = store.records().unwrap();
                let record = records.iter().find(|record| record.id == *id);
                record.map(|record| record.image)
            }
        };
        if !allowed.contains(&found) {
            return Err(format!("{subject:?} is {found:?} instead of {allowed:?}"));
        }
    }
    Ok(())
}

/// The content that the images of a store consist of, by the names of the files.
fn needed(store: &Store) -> BTreeSet<String> {
    let mut needed = BTreeSet::new();
    for entry in store.images().unwrap() {
        let manifest = store.manifest(entry.id).unwrap();
        needed.insert(format!("images/{}", entry.id));
        needed.insert(format!("modules/{}.wasm", manifest.module));
        for memory in &manifest.memories {
            needed.insert(format!("memories/{}", memory.content));
            let layers = store.map_layers(memory.content).unwrap();
            needed.extend(layers.iter().map(|layer| format!("layers/{layer}")));
        }
    }
    needed
}

fn present(store: &Store) -> BTreeSet<String> {
    let folders = ["images", "modules", "memories", "layers", "tmp"];
    let in_folder = |folder: &str| {
        files_in(&store.directory().join(folder))
            .into_iter()
            .map(|path| format!("{folder}/{}", path.file_name().unwrap().to_str().unwrap()))
            .collect::<Vec<_>>()
    };
    folders.into_iter().flat_map(in_folder).collect()
}

/// What a store holds, but for the ids of records, which are random.
pub fn holdings(
    store: &Store,
) -> (
    BTreeSet<String>,
    BTreeMap<String, ImageId>,
    BTreeSet<String>,
) {
    let mut references = store.names().unwrap();
    let tags = store.tags().unwrap();
    references.extend(tags.into_iter().map(|(tag, id)| (format!("tag {tag}"), id)));
    let records = store.records().unwrap();
    // A record whose writing was interrupted at the very end is there twice after another try.
    let history = records.iter().map(|record| {
        let parent = records.iter().find(|other| Some(other.id) == record.parent);
        let parent = parent.map(|parent| parent.image);
        format!("{} from {parent:?} at {}", record.image, record.taken_at_ms)
    });
    (present(store), references, history.collect())
}
