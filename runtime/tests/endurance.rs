//! One program that is resumed, runs a little, is snapshotted and forgotten, again and again.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Output, engine, resume, seen, start, whole};
use wsnap::snapshots::{ImageId, Store, StoredImage};
use wsnap::wasi::{Grants, SavedState, Wasi};
use wsnap::{Call, Instance, Outcome, Program, WASI_SECTION};

/// `WSNAP_TEST_ROUNDS` changes it.
const ROUNDS: u64 = 2000;
/// The guest touches a random page at each safepoint.
const SAFEPOINTS_PER_ROUND: u64 = 4;
/// Medians are taken over so many rounds.
const WINDOW: usize = 100;
/// A file takes whole blocks of this many bytes.
const BLOCK: u64 = 4096;

fn rounds() -> u64 {
    let given = std::env::var("WSNAP_TEST_ROUNDS");
    given.map_or(ROUNDS, |text| text.parse().expect("a number"))
}

/// A memory of 4 MiB without zeros, of which `turns` bytes all over it change, and a checksum in the end.
fn guest(turns: u64) -> String {
    format!(
        r#"(module
  (memory (export "memory") 64)
  (func (export "main") (result i64)
    (local $turn i32) (local $random i32) (local $sum i64)
    (memory.fill (i32.const 0) (i32.const 0x5a) (i32.const 0x400000))
    (local.set $random (i32.const 1))
    (loop $write
      (local.set $random (i32.add (i32.mul (local.get $random) (i32.const 1664525)) (i32.const 1013904223)))
      (i32.store8 (i32.shr_u (local.get $random) (i32.const 10)) (local.get $random))
      (local.set $turn (i32.add (local.get $turn) (i32.const 1)))
      (br_if $write (i32.lt_u (local.get $turn) (i32.const {turns}))))
    (local.set $turn (i32.const 0))
    (loop $read
      (local.set $sum (i64.add (i64.mul (local.get $sum) (i64.const 31)) (i64.load (local.get $turn))))
      (local.set $turn (i32.add (local.get $turn) (i32.const 8)))
      (br_if $read (i32.lt_u (local.get $turn) (i32.const 0x400000))))
    (local.get $sum)))"#
    )
}

/// What images add to a store: nothing else grows in it but caches.
fn files(store: &Store) -> Vec<fs::Metadata> {
    let folders = ["images", "memories", "layers"].map(|folder| store.directory().join(folder));
    let entries = folders
        .into_iter()
        .flat_map(|folder| fs::read_dir(folder).expect("a folder"));
    entries
        .map(|entry| entry.expect("an entry").metadata().expect("a file"))
        .collect()
}

/// Verifies nothing that has been verified before, as the command does.
fn resume_quickly(program: &Program, store: &Store, id: ImageId, output: &Output) -> Instance {
    let image = store.load(id).expect("the image is there");
    let intact = store.verify_unverified(&image, &|_| ());
    intact.expect("the image is intact");
    let image: Arc<StoredImage> = Arc::new(image);
    let state = SavedState::decode(&image.manifest().host[WASI_SECTION]);
    let grants = Grants {
        streams: output.streams(),
        ..Grants::default()
    };
    let wasi = Wasi::restore(&state.expect("it is readable"), grants).expect("it is restored");
    program.resume(&image, wasi).expect("the image is resumed")
}

fn stop_after_a_little(instance: &mut Instance) {
    instance
        .stop_at_safepoint(SAFEPOINTS_PER_ROUND)
        .expect("its safepoints can be counted");
    let outcome = instance.run().expect("the program runs");
    assert!(matches!(outcome, Outcome::Suspended(_)), "{outcome:?}");
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() / 2]
}

/// A folder in main memory where there is one, since syncing thousands of files takes a disk minutes.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let folder = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    folder.expect("there is room for a store")
}

#[test]
fn thousands_of_rounds_lose_nothing_and_the_store_grows_as_the_increments_say() {
    let rounds = rounds();
    let wasm = guest(SAFEPOINTS_PER_ROUND * (rounds + 3)).into_bytes();
    let call = Call {
        export: "main".into(),
        arguments: Vec::new(),
    };
    let expected = whole(&wasm, &call);
    let program = Program::new(&engine(None, false, false), wasm).expect("it compiles");
    let folder = scratch();
    let store = Store::open(folder.path().join("store")).expect("the store can be made");

    let mut instance = start(&program, call, &Output::new(), false);
    stop_after_a_little(&mut instance);
    let snapshot = instance.snapshot().expect("it can be stored");
    let mut ids = vec![snapshot.store(&store).expect("it is stored")];
    drop(snapshot);
    drop(instance);

    let before = files(&store);
    let (mut resumes, mut stores, mut added) = (Vec::new(), Vec::new(), 0);
    for _ in 0..rounds {
        let begun = Instant::now();
        let mut instance = resume_quickly(&program, &store, ids[ids.len() - 1], &Output::new());
        resumes.push(begun.elapsed());
        stop_after_a_little(&mut instance);
        let begun = Instant::now();
        let snapshot = instance.snapshot().expect("it can be stored");
        let published = snapshot.publish(&store).expect("it is stored");
        stores.push(begun.elapsed());
        added += published.added_bytes;
        ids.push(published.image.id());
    }
    let after = files(&store);
    let len = |files: &[fs::Metadata]| files.iter().map(fs::Metadata::len).sum::<u64>();
    let blocks = |files: &[fs::Metadata]| files.iter().map(|file| file.blocks() * 512).sum::<u64>();
    assert_eq!(len(&after) - len(&before), added);
    let rounding = (after.len() - before.len()) as u64 * BLOCK;
    let grown = blocks(&after) - blocks(&before);
    assert!(grown <= added + rounding, "{grown} of {added}");

    let last = resumes.len().saturating_sub(WINDOW);
    for first in [0, 100, 1000, 5000, last]
        .into_iter()
        .filter(|first| *first <= last)
    {
        let window = first..resumes.len().min(first + WINDOW);
        println!(
            "from round {first} on: resume {:?}, store {:?}",
            median(&resumes[window.clone()]),
            median(&stores[window])
        );
    }
    let count = rounds as usize;
    let size = len(&after);
    println!(
        "{count} increments of {} bytes; {size} bytes in all",
        added / rounds
    );

    for id in ids.iter().step_by(1 + count / 100).chain(ids.last()) {
        let image = store.load(*id).expect("the image is there");
        image.verify().expect("the image is intact");
    }
    // The first, one in the middle and the last end as if nothing had happened.
    for id in [ids[0], ids[count / 2], ids[count]] {
        let output = Output::new();
        let mut instance = resume(&program, &store, id, &output);
        let outcome = instance.run().expect("the program runs");
        assert_eq!(seen(instance, outcome, output), expected);
    }
}
