//! Several threads and processes that use one store at the same moment.

mod common;

use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::thread;

use common::{any_content, files_in, publish};
use fastrand::Rng;
use wsnap_snapshots::{ImageId, Store};

/// Set for the processes that [`processes_that_publish_the_same_images_at_once_all_succeed`] starts: the store to
/// publish to.
const CHILD_STORE: &str = "WSNAP_TEST_CHILD_STORE";
const IMAGES: u64 = 20;

fn publish_and_read_all(store: &Store) -> Vec<ImageId> {
    (0..IMAGES)
        .map(|seed| {
            let memory = any_content(&mut Rng::with_seed(seed), 200_000, 30);
            let id = publish(store, &[&memory]).unwrap();
            store.set_name("job", id).unwrap();
            store.load(id).unwrap().verify().unwrap();
            store
                .load(store.resolve("job").unwrap())
                .unwrap()
                .verify()
                .unwrap();
            id
        })
        .collect()
}

fn check_complete(store: &Store) {
    let images = store.images().unwrap();
    assert_eq!(images.len() as u64, IMAGES);
    images
        .iter()
        .for_each(|entry| store.load(entry.id).unwrap().verify().unwrap());
    assert_eq!(
        files_in(&store.directory().join("layers")).len() as u64,
        IMAGES
    );
    assert!(files_in(&store.directory().join("tmp")).is_empty());
}

#[test]
fn threads_that_publish_the_same_images_at_once_all_succeed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let barrier = Barrier::new(8);
    let work = || {
        barrier.wait();
        // Creating the store is part of the race.
        publish_and_read_all(&Store::open(&path).unwrap())
    };
    let ids: Vec<Vec<ImageId>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(ids.iter().all(|each| *each == ids[0]));
    check_complete(&Store::open(&path).unwrap());
}

#[test]
fn processes_that_publish_the_same_images_at_once_all_succeed() {
    if let Some(path) = std::env::var_os(CHILD_STORE) {
        publish_and_read_all(&Store::open(path).unwrap());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let child = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "--exact",
            "processes_that_publish_the_same_images_at_once_all_succeed",
            "--nocapture",
        ]);
        command
            .env(CHILD_STORE, &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..6).map(|_| child()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    check_complete(&Store::open(&path).unwrap());
}
