//! Threads and processes that publish, load, remove and collect garbage at the same moment.

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use common::{MODULE, any_content, files_in, manifest_with};
use fastrand::Rng;
use wsnap_snapshots::{GcOptions, ImageId, NewRecord, RecordId, Store, StoreError};

/// Set for the processes that a test starts: the store to use, and a number of their own.
const CHILD_STORE: &str = "WSNAP_TEST_CHILD_STORE";
const CHILD_NUMBER: &str = "WSNAP_TEST_CHILD_NUMBER";
const ROUNDS: u64 = 60;
/// Nothing is young.
const NO_GRACE: GcOptions = GcOptions {
    dry_run: false,
    grace: Duration::ZERO,
    retention: None,
};

/// Takes snapshots as a program does that runs on the one it took before. Programs reach the same states often.
fn run_program(store: &Store, name: &str, rng: &mut Rng) {
    let mut parent: Option<RecordId> = None;
    let mut running_on = None;
    for time in 0..ROUNDS {
        let shared = any_content(&mut Rng::with_seed(rng.u64(..6)), 100_000, 20);
        let own = any_content(rng, 20_000, 3);
        let id = {
            let _lock = store.lock_shared().unwrap();
            let module = store.put_module(MODULE).unwrap();
            let memories: &[&[u8]] = match rng.bool() {
                true => &[&shared, &own],
                false => &[&shared],
            };
            let id = store
                .publish(manifest_with(module, memories), memories)
                .unwrap();
            let mut record = NewRecord::new(id, time, "every");
            record.parent = parent;
            record.name = Some(name.to_owned());
            parent = Some(store.put_record(record).unwrap().id);
            store.set_name(name, id).unwrap();
            id
        };
        // It has been reported, and it is the latest: from now on it is there.
        assert_eq!(store.resolve(name).unwrap(), id);
        let image = store.load(id).unwrap();
        image.verify().unwrap();
        if let Some(image) = running_on.replace(image) {
            check_still_there(store, image.id());
        }
    }
    check_still_there(store, store.resolve(name).unwrap());
}

fn check_still_there(store: &Store, id: ImageId) {
    store.load(id).unwrap().verify().unwrap();
}

fn any_image(store: &Store, rng: &mut Rng) -> Option<ImageId> {
    let images = store.images().unwrap();
    (!images.is_empty()).then(|| images[rng.usize(..images.len())].id)
}

/// Resumes images as they come, and leaves them.
fn hold_images(store: &Store, rng: &mut Rng) {
    for _ in 0..ROUNDS {
        let Some(id) = any_image(store, rng) else {
            continue;
        };
        match store.load(id) {
            Ok(image) => {
                thread::sleep(Duration::from_micros(rng.u64(..3000)));
                image.verify().unwrap();
                check_still_there(store, id);
            }
            // It was deleted after it had been listed.
            Err(StoreError::Missing { what: "image", .. }) => (),
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn remove_images(store: &Store, rng: &mut Rng) {
    for _ in 0..ROUNDS {
        let Some(id) = any_image(store, rng) else {
            continue;
        };
        match store.remove_image(id, false) {
            Ok(_)
            | Err(StoreError::InUse { .. } | StoreError::Referenced { .. })
            | Err(StoreError::Missing { what: "image", .. }) => (),
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn collect_garbage(store: &Store, rng: &mut Rng) {
    for _ in 0..ROUNDS / 2 {
        store.gc(&NO_GRACE).unwrap();
        thread::sleep(Duration::from_micros(rng.u64(..2000)));
    }
}

/// All of it at once, in threads. `number` tells the programs of several processes apart.
fn do_everything(store: &Store, number: u64) {
    let rng = |part: u64| Rng::with_seed(number * 10 + part);
    thread::scope(|scope| {
        for program in 0..2 {
            let name = format!("job-{number}-{program}");
            scope.spawn(move || run_program(store, &name, &mut rng(program)));
        }
        scope.spawn(|| hold_images(store, &mut rng(2)));
        scope.spawn(|| remove_images(store, &mut rng(3)));
        scope.spawn(|| collect_garbage(store, &mut rng(4)));
    });
}

/// Nothing of the store is damaged, dangling or left over.
fn check_clean(store: &Store, programs: usize) {
    store.gc(&NO_GRACE).unwrap();
    let images = store.images().unwrap();
    for entry in &images {
        check_still_there(store, entry.id);
    }
    let names = store.names().unwrap();
    assert_eq!(names.len(), programs);
    names.values().for_each(|id| check_still_there(store, *id));
    let records = store.records().unwrap();
    for record in &records {
        assert!(images.iter().any(|entry| entry.id == record.image));
        let is_parent = |parent| records.iter().any(|other| other.id == parent);
        assert!(record.parent.is_none_or(is_parent));
    }
    assert!(files_in(&store.directory().join("tmp")).is_empty());
    // Without images there is no content.
    for name in names.keys() {
        store.remove_name(name).unwrap();
    }
    store.gc(&NO_GRACE).unwrap();
    for folder in ["images", "records", "memories", "layers", "modules"] {
        let left = files_in(&store.directory().join(folder));
        assert!(left.is_empty(), "{left:?}");
    }
}

fn start_again(test: &str, store: &Path, number: u64) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture"])
        .env(CHILD_STORE, store);
    command
        .env(CHILD_NUMBER, number.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn nothing_in_use_disappears_when_threads_and_processes_delete_at_once() {
    const CHILDREN: u64 = 3;
    if let Some(path) = std::env::var_os(CHILD_STORE) {
        let number = std::env::var(CHILD_NUMBER).unwrap().parse().unwrap();
        do_everything(&Store::open(path).unwrap(), number);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    let test = "nothing_in_use_disappears_when_threads_and_processes_delete_at_once";
    let children: Vec<_> = (1..=CHILDREN)
        .map(|number| start_again(test, &path, number))
        .collect();
    do_everything(&store, 0);
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    check_clean(&store, 2 * (CHILDREN as usize + 1));
}
