//! Volumes in images: of programs that go on, of many that go on from one image, and of images that nobody runs.

#[allow(dead_code, reason = "shared with tests that use all of it")]
mod common;
#[path = "common/guests.rs"]
#[allow(dead_code, reason = "shared with tests that use all of it")]
mod guests;

use common::{Output, Seen, engine, seen};
use guests::guest;
use std::sync::Arc;
use std::time::Duration;
use wsnap::snapshots::{Store, StoredImage};
use wsnap::wasi::{FileType, Grants, SavedState, VolumeGrant, Wasi, WasiConfig};
use wsnap::{Call, Error, ImageVolumes, Instance, Outcome, Program, WASI_SECTION};

/// A guest that works with files for some hundred milliseconds. It is deterministic, since its memory holds times of files.
fn program(bare: bool) -> Program {
    let engine = engine(None, bare, true);
    Program::new(&engine, guest("prebuilt/files.wasm")).expect("it compiles")
}

fn start(program: &Program, output: &Output) -> Instance {
    let config = WasiConfig {
        args: vec!["files".into(), "/out".into()],
        volumes: vec![VolumeGrant {
            name: "data".into(),
            guest_path: "/out".into(),
        }],
        streams: output.streams(),
        deterministic_seed: Some([7; 32]),
        ..WasiConfig::default()
    };
    let wasi = Wasi::new(config).expect("the host state can be set up");
    program
        .start(wasi, Call::command())
        .expect("the program starts")
}

fn whole() -> Seen {
    let output = Output::new();
    let mut instance = start(&program(true), &output);
    let outcome = instance.run().expect("the program runs");
    seen(instance, outcome, output)
}

fn restored(image: &StoredImage, output: &Output) -> Wasi {
    let state = &image.manifest().host[WASI_SECTION];
    let state = SavedState::decode(state).expect("the host state is readable");
    let grants = Grants {
        streams: output.streams(),
        ..Grants::default()
    };
    Wasi::restore(&state, grants).expect("the host state can be restored")
}

fn empty_store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().expect("there is room for a store");
    let store = Store::open(directory.path().join("store")).expect("a store can be made");
    (directory, store)
}

#[test]
fn a_program_with_a_volume_goes_on_and_each_image_ends_the_same() {
    let expected = whole();
    assert_eq!(expected.ending, "returned []");
    let (program, output) = (program(false), Output::new());
    let (_directory, store) = empty_store();
    let mut instance = start(&program, &output);
    let handle = instance.handle();
    let (ran, images) = std::thread::scope(|scope| {
        let taker = scope.spawn(|| {
            let mut images = Vec::new();
            loop {
                match handle.snapshot() {
                    Ok(snapshot) => images.push(snapshot.store(&store).expect("there is room")),
                    Err(Error::Ended) => return images,
                    Err(error) => panic!("{error}"),
                }
            }
        });
        std::thread::sleep(Duration::from_millis(50));
        let outcome = instance.run().expect("the program runs");
        let seen = seen(instance, outcome, output);
        (seen, taker.join().expect("snapshots are taken"))
    });
    assert_eq!(ran, expected);
    assert!(!images.is_empty(), "no snapshot was taken");
    for (number, id) in images.into_iter().enumerate() {
        let image = Arc::new(store.load(id).expect("the image is there"));
        image.verify().expect("the image is intact");
        let output = Output::new();
        let mut instance = program
            .resume(&image, restored(&image, &output))
            .expect("it fits");
        let outcome = instance.run().expect("the program goes on");
        // What it wrote before is in the other run's output.
        let seen = seen(instance, outcome, output);
        assert!(
            expected.output.ends_with(&seen.output),
            "image {number}: {seen:?}"
        );
        assert_eq!(
            (seen.ending, seen.memory),
            (expected.ending.clone(), expected.memory)
        );
    }
}

/// An image of the program, stopped somewhere in the middle.
fn image(program: &Program, store: &Store) -> Arc<StoredImage> {
    let mut instance = start(program, &Output::new());
    instance
        .stop_at_safepoint(200_000)
        .expect("its safepoints can be counted");
    assert!(matches!(instance.run(), Ok(Outcome::Suspended(_))));
    let snapshot = instance.snapshot().expect("it can be stored");
    snapshot.publish(store).expect("there is room").image
}

#[test]
fn many_that_go_on_from_one_image_have_volumes_of_their_own() {
    let (expected, program) = (whole(), program(false));
    let (_directory, store) = empty_store();
    let warm = program.prepare(image(&program, &store)).expect("it fits");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let output = Output::new();
                let mut instance = warm
                    .resume(restored(warm.image(), &output))
                    .expect("it fits");
                let outcome = instance.run().expect("the program goes on");
                let seen = seen(instance, outcome, output);
                assert_eq!(
                    (seen.ending, seen.memory),
                    (expected.ending.clone(), expected.memory)
                );
            });
        }
    });
}

#[test]
fn a_changed_volume_shares_all_else_with_the_image_that_it_comes_from() {
    let program = program(false);
    let (_directory, store) = empty_store();
    let old = image(&program, &store);
    let mut volumes = ImageVolumes::open(old.clone()).expect("it has volumes");
    let before = volumes
        .get("data")
        .expect("it is there")
        .entries(".")
        .expect("a directory");
    assert!(!before.is_empty());
    let volume = volumes.get_mut("data").expect("it is there");
    volume.create_file("new").expect("there is room");
    volume
        .write_at("new", 0, &[7; 10_000])
        .expect("there is room");
    let stored = volumes.publish(&store).expect("there is room");
    assert!(stored.added_bytes < 64 << 10, "{}", stored.added_bytes);
    stored.image.verify().expect("the image is intact");
    let contents = |image: &StoredImage| -> Vec<_> {
        image
            .manifest()
            .memories
            .iter()
            .map(|memory| memory.content)
            .collect()
    };
    assert_eq!(contents(&stored.image)[0], contents(&old)[0]);
    assert_ne!(contents(&stored.image)[1], contents(&old)[1]);

    let volumes = ImageVolumes::open(stored.image.clone()).expect("it has volumes");
    let volume = volumes.get("data").expect("it is there");
    let mut after = volume.entries(".").expect("a directory");
    after.retain(|entry| entry.name != "new");
    assert_eq!(after, before);
    assert_eq!(volume.file_type("new"), Ok(FileType::RegularFile));
    let mut bytes = vec![0; 20_000];
    assert_eq!(volume.read_at("new", 0, &mut bytes), Ok(10_000));
    assert!(bytes[..10_000].iter().all(|&byte| byte == 7));
}

#[test]
fn an_image_whose_volumes_and_host_state_disagree_is_refused() {
    let program = program(false);
    let (_directory, store) = empty_store();
    let old = image(&program, &store);
    let output = Output::new();
    let config = WasiConfig {
        streams: output.streams(),
        ..WasiConfig::default()
    };
    let none = Wasi::new(config).expect("the host state can be set up");
    match program.resume(&old, none) {
        Err(Error::Image(what)) => assert!(what.contains("1 volumes"), "{what}"),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it has no volume to put the content into"),
    }
}
