//! Several threads and processes that use one store at the same moment, or are killed while they do.

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use common::{any_content, files_in, publish};
use fastrand::Rng;
use wsnap_snapshots::{ImageId, Store};

/// Set for the processes that a test starts: the store to publish to.
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

/// Runs the calling test in another process, where [`CHILD_STORE`] makes it do the child's part.
fn start_again(test: &str, store: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture"])
        .env(CHILD_STORE, store);
    command.stdout(Stdio::null()).spawn().unwrap()
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
    let children: Vec<_> = (0..6)
        .map(|_| {
            start_again(
                "processes_that_publish_the_same_images_at_once_all_succeed",
                &path,
            )
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    check_complete(&Store::open(&path).unwrap());
}

#[test]
fn a_process_killed_at_any_moment_leaves_whole_images_only() {
    if let Some(path) = std::env::var_os(CHILD_STORE) {
        let store = Store::open(path).unwrap();
        let mut rng = Rng::new();
        loop {
            let memory = any_content(&mut rng, 200_000, 30);
            store
                .set_name("job", publish(&store, &[&memory]).unwrap())
                .unwrap();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    let mut rng = Rng::with_seed(1);
    let mut kills = 0;
    // The delays get longer until enough images are published, however slow the disk is.
    while kills < 40 || store.images().unwrap().len() < 10 {
        let mut child = start_again(
            "a_process_killed_at_any_moment_leaves_whole_images_only",
            &path,
        );
        thread::sleep(Duration::from_micros(rng.u64(1_000..20_000 + kills * 500)));
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
        kills += 1;
    }
    let images = store.images().unwrap();
    images
        .iter()
        .for_each(|entry| store.load(entry.id).unwrap().verify().unwrap());
    let latest = store.names().unwrap()["job"];
    assert!(images.iter().any(|entry| entry.id == latest));
}
