//! Snapshots of programs that go on.

mod common;
#[path = "common/guests.rs"]
#[allow(dead_code, reason = "shared with tests that use all of it")]
mod guests;

use common::{Output, engine, resume, seen, start, whole};
use guests::text_guests;
use std::time::Duration;
use wsnap::snapshots::{ImageId, Store, Value};
use wsnap::{Call, Error, Handle, Outcome, Program};

/// Takes snapshots until the program ends, and returns their images.
fn take_all(handle: &Handle, store: &Store) -> Vec<ImageId> {
    let mut images = Vec::new();
    loop {
        match handle.snapshot() {
            Ok(snapshot) => images.push(snapshot.store(store).expect("the store takes it")),
            Err(Error::Ended) => return images,
            Err(error) => panic!("{error}"),
        }
    }
}

fn empty_store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().expect("there is room for a store");
    let store = Store::open(directory.path().join("store")).expect("a store can be made");
    (directory, store)
}

/// Each word of memory depends on the order of all writes to it. The writes are spread over the first `$span` bytes; the
/// result is a sum over all of the memory.
const MIXER: &str = r#"(module
    (memory (export "memory") 2048)
    (func $mix (param $place i32) (param $n i64)
        (i64.store (local.get $place)
            (i64.add (i64.mul (i64.load (local.get $place)) (i64.const 31)) (local.get $n))))
    (func (export "run") (param $count i64) (param $span i32) (result i64)
        (local $n i64) (local $place i32) (local $sum i64)
        (loop $again
            (local.set $place (i32.and
                (i32.rem_u (i32.mul (i32.wrap_i64 (local.get $n)) (i32.const 0x9e3779b1)) (local.get $span))
                (i32.const -8)))
            (call $mix (local.get $place) (local.get $n))
            (local.set $n (i64.add (local.get $n) (i64.const 1)))
            (br_if $again (i64.lt_u (local.get $n) (local.get $count))))
        (local.set $place (i32.const 0))
        (loop $next
            (local.set $sum (i64.add (i64.mul (local.get $sum) (i64.const 7)) (i64.load (local.get $place))))
            (local.set $place (i32.add (local.get $place) (i32.const 8)))
            (br_if $next (i32.lt_u (local.get $place) (i32.const 134217728))))
        (local.get $sum)))"#;

fn mixer_call(count: i64, span: i32) -> Call {
    Call {
        export: "run".into(),
        arguments: vec![Value::I64(count), Value::I32(span)],
    }
}

/// Runs the mixer while snapshots are taken of it; it and what is resumed of each image give the same.
fn mixer_goes_on(count: i64, span: i32) {
    let program = Program::new(&engine(None, false, false), MIXER.into()).expect("it compiles");
    let call = mixer_call(count, span);
    let wasm = wat::parse_str(MIXER).expect("it is a module");
    let expected = whole(&wasm, &call);
    let (_directory, store) = empty_store();
    let output = Output::new();
    let mut instance = start(&program, call, &output, false);
    let handle = instance.handle();
    let images = std::thread::scope(|scope| {
        let taker = scope.spawn(|| take_all(&handle, &store));
        let outcome = instance.run().expect("the program runs");
        assert_eq!(seen(instance, outcome, output), expected);
        taker.join().expect("snapshots are taken")
    });
    assert!(images.len() > 2, "only {} snapshots", images.len());
    for (number, id) in images.into_iter().enumerate() {
        let output = Output::new();
        let mut instance = resume(&program, &store, id, &output);
        let outcome = instance.run().expect("the program goes on");
        assert_eq!(seen(instance, outcome, output), expected, "image {number}");
    }
}

#[test]
fn a_program_with_little_dirty_memory_goes_on_and_each_image_ends_the_same() {
    mixer_goes_on(100_000_000, 1 << 20);
}

#[test]
fn a_program_with_much_dirty_memory_goes_on_and_each_image_ends_the_same() {
    mixer_goes_on(60_000_000, 100 << 20);
}

#[test]
fn a_resumed_program_goes_on_and_each_image_ends_the_same() {
    let program = Program::new(&engine(None, false, false), MIXER.into()).expect("it compiles");
    let call = mixer_call(120_000_000, 8 << 20);
    let wasm = wat::parse_str(MIXER).expect("it is a module");
    let expected = whole(&wasm, &call);
    let (_directory, store) = empty_store();
    let mut instance = start(&program, call, &Output::new(), false);
    instance.stop_at_safepoint(20_000_000);
    assert!(matches!(instance.run(), Ok(Outcome::Suspended(_))));
    let snapshot = instance.snapshot().expect("it can be stored");
    let mut id = snapshot.store(&store).expect("the store takes it");
    // Each time its memory is made of the layers of the time before.
    for round in 0..8 {
        let output = Output::new();
        let mut instance = resume(&program, &store, id, &output);
        let handle = instance.handle();
        let images = std::thread::scope(|scope| {
            let taker = scope.spawn(|| take_all(&handle, &store));
            let outcome = instance.run().expect("the program runs");
            assert_eq!(seen(instance, outcome, output), expected, "round {round}");
            taker.join().expect("snapshots are taken")
        });
        assert!(!images.is_empty(), "no snapshot in round {round}");
        id = images[images.len().min(2) - 1];
    }
}

#[test]
fn text_guests_go_on_while_snapshots_are_taken_and_each_image_ends_the_same() {
    let engine = engine(None, false, false);
    let mut taken = 0;
    for path in text_guests() {
        let wasm = std::fs::read(&path).expect("the guest is readable");
        let program = Program::new(&engine, wasm.clone()).expect("the guest compiles");
        let call = Call::command();
        let expected = whole(&wasm, &call);
        let (_directory, store) = empty_store();
        let output = Output::new();
        let mut instance = start(&program, call, &output, false);
        let handle = instance.handle();
        let images = std::thread::scope(|scope| {
            let taker = scope.spawn(|| take_all(&handle, &store));
            // The request is there before the program begins.
            std::thread::sleep(Duration::from_millis(20));
            let outcome = instance.run().expect("the program runs");
            assert_eq!(
                seen(instance, outcome, output),
                expected,
                "{}",
                path.display()
            );
            taker.join().expect("snapshots are taken")
        });
        taken += images.len();
        for id in images {
            let output = Output::new();
            let mut instance = resume(&program, &store, id, &output);
            let outcome = instance.run().expect("the program goes on");
            let resumed = seen(instance, outcome, output);
            assert_eq!(resumed.ending, expected.ending, "{}", path.display());
            assert_eq!(resumed.memory, expected.memory, "{}", path.display());
            assert!(
                expected.output.ends_with(&resumed.output),
                "{}",
                path.display()
            );
        }
    }
    assert!(taken >= 10, "only {taken} snapshots were taken");
}

#[test]
fn a_program_that_has_ended_gives_no_snapshot() {
    let program = Program::new(&engine(None, false, false), MIXER.into()).expect("it compiles");
    let output = Output::new();
    let mut instance = start(&program, mixer_call(1, 8), &output, false);
    let handle = instance.handle();
    let outcome = instance.run().expect("the program runs");
    assert!(matches!(outcome, Outcome::Returned(_)));
    assert!(matches!(handle.snapshot(), Err(Error::Ended)));
    drop(instance);
    assert!(matches!(handle.snapshot(), Err(Error::Ended)));
}
