//! Snapshots of programs that go on.

mod common;
#[path = "common/guests.rs"]
#[allow(dead_code, reason = "shared with tests that use all of it")]
mod guests;

use common::{Output, Seen, engine, plain_engine, resume, seen, start, whole};
use guests::text_guests;
use std::time::Duration;
use wsnap::snapshots::{ImageId, Store, Value};
use wsnap::{Call, Error, Handle, Outcome, Program};

/// Within this time somebody who takes snapshots has asked for the first one, so that a program that begins then finds the
/// request, however fast it is.
const HEAD_START: Duration = Duration::from_millis(50);

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

/// Runs a program to its end while snapshots are taken of it.
fn run_and_take(program: &Program, call: Call, store: &Store) -> (Seen, Vec<ImageId>) {
    let output = Output::new();
    let mut instance = start(program, call, &output, false);
    let handle = instance.handle();
    std::thread::scope(|scope| {
        let taker = scope.spawn(|| take_all(&handle, store));
        std::thread::sleep(HEAD_START);
        let outcome = instance.run().expect("the program runs");
        let seen = seen(instance, outcome, output);
        (seen, taker.join().expect("snapshots are taken"))
    })
}

/// Runs the mixer while snapshots are taken of it; it and what is resumed of each image give the same.
fn mixer_goes_on(count: i64, span: i32) {
    let program = Program::new(&plain_engine(None), MIXER.into()).expect("it compiles");
    let call = mixer_call(count, span);
    let wasm = wat::parse_str(MIXER).expect("it is a module");
    let expected = whole(&wasm, &call);
    let (_directory, store) = empty_store();
    let (ran, images) = run_and_take(&program, call, &store);
    assert_eq!(ran, expected);
    assert!(!images.is_empty(), "no snapshot was taken");
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
    instance
        .stop_at_safepoint(20_000_000)
        .expect("its safepoints can be counted");
    assert!(matches!(instance.run(), Ok(Outcome::Suspended(_))));
    let snapshot = instance.snapshot().expect("it can be stored");
    let mut id = snapshot.store(&store).expect("the store takes it");
    let mut taken = 0;
    // Each time its memory is made of the layers of the time before.
    loop {
        let output = Output::new();
        let mut instance = resume(&program, &store, id, &output);
        let handle = instance.handle();
        let (outcome, image) = std::thread::scope(|scope| {
            let taker = scope.spawn(|| take_two(&handle, &store));
            std::thread::sleep(HEAD_START);
            let outcome = instance.run().expect("the program runs");
            (outcome, taker.join().expect("snapshots are taken"))
        });
        taken += usize::from(image.is_some());
        match outcome {
            Outcome::Suspended(_) => id = image.unwrap_or(id),
            outcome => {
                assert_eq!(seen(instance, outcome, output), expected);
                break;
            }
        }
    }
    assert!(taken > 0, "no snapshot was taken");
}

/// Takes two snapshots of a program and stops it, and returns the last image.
fn take_two(handle: &Handle, store: &Store) -> Option<ImageId> {
    let mut image = None;
    for _ in 0..2 {
        match handle.snapshot() {
            Ok(snapshot) => image = Some(snapshot.store(store).expect("the store takes it")),
            Err(Error::Ended) => return image,
            Err(error) => panic!("{error}"),
        }
    }
    handle.request_stop();
    image
}

/// Reads standard input to its end or an error and returns how many bytes there were, and a sum over them.
const READER: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1025)
    (func (export "run") (result i64 i64)
        (local $at i32) (local $sum i64)
        (local.set $at (i32.const 65536))
        (loop $more
            (i32.store (i32.const 0) (local.get $at))
            (i32.store (i32.const 4) (i32.const 4194304))
            (i32.store (i32.const 8) (i32.const 0))
            (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
            (local.set $at (i32.add (local.get $at) (i32.load (i32.const 8))))
            (br_if $more (i32.load (i32.const 8))))
        (i64.extend_i32_u (i32.sub (local.get $at) (i32.const 65536)))
        (loop $next
            (if (i32.gt_u (local.get $at) (i32.const 65536)) (then
                (local.set $at (i32.sub (local.get $at) (i32.const 8)))
                (local.set $sum (i64.add
                    (i64.mul (local.get $sum) (i64.const 7)) (i64.load (local.get $at))))
                (br $next))))
        (local.get $sum)))"#;

#[test]
fn what_devices_store_past_the_processor_is_in_the_images() {
    use rustix::fs::{Mode, OFlags, open};
    use wsnap::wasi::{StandardStreams, Stdio, Wasi, WasiConfig};

    let program = Program::new(&plain_engine(None), READER.into()).expect("it compiles");
    let call = Call {
        export: "run".into(),
        arguments: Vec::new(),
    };
    let input: Vec<u8> = (0..(64_u32 << 20) / 4)
        .flat_map(|number| number.wrapping_mul(0x9e37_79b1).to_le_bytes())
        .collect();
    let (directory, store) = empty_store();
    let path = directory.path().join("input");
    std::fs::write(&path, &input).expect("there is room for input");
    // Not every file system knows it; then this is a read like any other.
    let file = open(&path, OFlags::RDONLY | OFlags::DIRECT, Mode::empty())
        .or_else(|_| open(&path, OFlags::RDONLY, Mode::empty()))
        .expect("the input can be opened");
    let config = WasiConfig {
        streams: StandardStreams {
            stdin: Stdio::Descriptor(file),
            ..StandardStreams::default()
        },
        ..WasiConfig::default()
    };
    let wasi = Wasi::new(config).expect("the host state can be set up");
    let mut instance = program.start(wasi, call).expect("the program starts");
    let handle = instance.handle();
    let check = |outcome: Outcome| {
        let Outcome::Returned(values) = outcome else {
            panic!("{outcome:?}");
        };
        let [Value::I64(count), Value::I64(sum)] = values[..] else {
            panic!("{values:?}");
        };
        let (words, _) = input[..count as usize].as_chunks::<8>();
        let expected = words.iter().rev().fold(0_u64, |sum, word| {
            sum.wrapping_mul(7).wrapping_add(u64::from_le_bytes(*word))
        });
        assert_eq!(sum as u64, expected, "of {count} bytes");
        count as usize
    };
    let snapshots = std::thread::scope(|scope| {
        // Storing takes longer than reading.
        let taker = scope.spawn(|| {
            let taken = std::iter::repeat_with(|| handle.snapshot());
            taken.map_while(Result::ok).collect::<Vec<_>>()
        });
        assert_eq!(
            check(instance.run().expect("the program runs")),
            input.len()
        );
        drop(instance);
        taker.join().expect("snapshots are taken")
    });
    for snapshot in snapshots {
        let id = snapshot.store(&store).expect("the store takes it");
        let mut instance = resume(&program, &store, id, &Output::new());
        check(instance.run().expect("the program goes on"));
    }
}

#[test]
fn text_guests_go_on_while_snapshots_are_taken_and_each_image_ends_the_same() {
    let engine = plain_engine(None);
    let mut taken = 0;
    for path in text_guests() {
        let wasm = std::fs::read(&path).expect("the guest is readable");
        let program = Program::new(&engine, wasm.clone()).expect("the guest compiles");
        let call = Call::command();
        let expected = whole(&wasm, &call);
        let (_directory, store) = empty_store();
        let (ran, images) = run_and_take(&program, call, &store);
        assert_eq!(ran, expected, "{}", path.display());
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
    let program = Program::new(&plain_engine(None), MIXER.into()).expect("it compiles");
    let output = Output::new();
    let mut instance = start(&program, mixer_call(1, 8), &output, false);
    let handle = instance.handle();
    let outcome = instance.run().expect("the program runs");
    assert!(matches!(outcome, Outcome::Returned(_)));
    assert!(matches!(handle.snapshot(), Err(Error::Ended)));
    drop(instance);
    assert!(matches!(handle.snapshot(), Err(Error::Ended)));
}
