//! Threads and processes that publish, load, remove and collect garbage at the same moment.

mod common;

use std::collections::VecDeque;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::{any_content, files_in, publish, publish_change};
use fastrand::Rng;
use wsnap_snapshots::{GcOptions, ImageId, NewRecord, RecordId, Store, StoreError, StoredImage};

/// Set for the processes that a test starts: the store to use, and a number of their own.
const CHILD_STORE: &str = "WSNAP_TEST_CHILD_STORE";
const CHILD_NUMBER: &str = "WSNAP_TEST_CHILD_NUMBER";
const ROUNDS: u64 = 60;
const PAUSE_MAX_US: u64 = 30_000;
/// Nothing is young.
const NO_GRACE: GcOptions = GcOptions {
    dry_run: false,
    grace: Duration::ZERO,
    retention: None,
};

/// Takes snapshots as a program does that runs on the one it took before: each holds what has changed since then.
/// Programs reach the same states often.
fn run_program(store: &Store, name: &str, rng: &mut Rng) {
    let mut parent: Option<RecordId> = None;
    let mut running_on: Option<StoredImage> = None;
    for time in 0..ROUNDS {
        pause(rng);
        let image = {
            let _lock = store.lock_shared().unwrap();
            let image = match running_on.take().filter(|_| rng.u8(..8) > 0) {
                Some(base) => {
                    let page = rng.u64(..24);
                    publish_change(store, &base, page..page + 2, rng.u8(..4))
                }
                None => {
                    let memory = any_content(&mut Rng::with_seed(rng.u64(..6)), 26 * 4096, 20);
                    store.load(publish(store, &[&memory]).unwrap()).unwrap()
                }
            };
            let mut record = NewRecord::new(image.id(), time, "every");
            record.parent = parent;
            record.name = Some(name.to_owned());
            parent = Some(store.put_record(record).unwrap().id);
            store.set_name(name, image.id()).unwrap();
            image
        };
        // It has been reported, and it is the latest: from now on it is there.
        assert_eq!(store.resolve(name).unwrap(), image.id());
        image.verify().unwrap();
        check_still_there(store, image.id());
        running_on = Some(image);
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

/// Keeps some images open: those that it finds, and those that it publishes and nobody else knows of.
fn hold_images(store: &Store, rng: &mut Rng) {
    let mut held = VecDeque::new();
    for _ in 0..ROUNDS {
        pause(rng);
        let own = any_content(rng, 20_000, 3);
        {
            let _lock = store.lock_shared().unwrap();
            held.push_back(store.load(publish(store, &[&own]).unwrap()).unwrap());
        }
        if let Some(id) = any_image(store, rng) {
            match store.load(id) {
                Ok(image) => held.push_back(image),
                // It was deleted after it had been listed.
                Err(StoreError::Missing { what: "image", .. }) => (),
                Err(error) => panic!("{error:?}"),
            }
        }
        while held.len() > 8 {
            if let Some(image) = held.pop_front() {
                image.verify().unwrap();
                check_still_there(store, image.id());
            }
        }
    }
}

fn remove_images(store: &Store, rng: &mut Rng, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        pause(rng);
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

fn collect_garbage(store: &Store, rng: &mut Rng, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        pause(rng);
        store.gc(&NO_GRACE).unwrap();
    }
}

/// Whoever deletes waits until nobody publishes or loads, so there have to be moments when nobody does.
fn pause(rng: &mut Rng) {
    thread::sleep(Duration::from_micros(rng.u64(..PAUSE_MAX_US)));
}

/// All of it at once, in threads. `number` tells the programs of several processes apart.
fn do_everything(store: &Store, number: u64) {
    let rng = |part: u64| Rng::with_seed(number * 10 + part);
    let is_over = &AtomicBool::new(false);
    thread::scope(|scope| {
        let name = format!("job-{number}");
        let program = scope.spawn(move || run_program(store, &name, &mut rng(0)));
        let holder = scope.spawn(move || hold_images(store, &mut rng(1)));
        scope.spawn(move || remove_images(store, &mut rng(2), is_over));
        scope.spawn(move || collect_garbage(store, &mut rng(3), is_over));
        let ends = [program.join(), holder.join()];
        is_over.store(true, Ordering::Relaxed);
        ends.into_iter().for_each(|end| end.unwrap());
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
    const CHILDREN: u64 = 2;
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
    check_clean(&store, CHILDREN as usize + 1);
}
