//! Several threads take snapshots, into several stores, of programs of all kinds that go on.

#[allow(dead_code, reason = "shared with tests that use all of it")]
mod common;

use common::{Output, Seen, engine, plain_engine, resume, seen, start};
use std::sync::atomic::{AtomicBool, Ordering};
use wsnap::snapshots::{ImageId, Store, Value};
use wsnap::{Call, Error, Handle, Instance, Outcome, Program};

/// Has a start function, recursion, and two memories that grow.
const RECURSION: &str = r#"(module
  (memory $a (export "memory") 1 700)
  (memory $b 1 700)
  (global $g (mut i64) (i64.const 3))
  (start $init)
  (func $mix (param $m i64) (param $v i64) (result i64)
    (i64.mul (i64.rotl (i64.xor (local.get $m) (local.get $v)) (i64.const 29)) (i64.const 0x9E3779B97F4A7C15)))
  (func $init (local $i i32)
    (loop $l
      (i64.store $b (i32.and (i32.mul (local.get $i) (i32.const 8)) (i32.const 0xfff8))
        (call $mix (i64.load $b (i32.and (i32.mul (local.get $i) (i32.const 8)) (i32.const 0xfff8))) (i64.extend_i32_u (local.get $i))))
      (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 20000000)))))
  (func $deep (param $n i32) (param $x i64) (result i64) (local $i i32)
    (if (result i64) (local.get $n)
      (then
        (local.set $x (call $mix (local.get $x) (call $deep (i32.sub (local.get $n) (i32.const 1)) (call $mix (local.get $x) (i64.const 5)))))
        (global.set $g (call $mix (global.get $g) (local.get $x)))
        (i64.store $a (i32.and (i32.mul (local.get $n) (i32.const 8)) (i32.const 0xfff8)) (global.get $g))
        (local.get $x))
      (else
        (loop $l
          (local.set $x (call $mix (local.get $x) (i64.load $b (i32.and (i32.mul (local.get $i) (i32.const 72)) (i32.const 0xfff8)))))
          (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 100000))))
        (local.get $x))))
  (func (export "run") (param $rounds i32) (result i64) (local $x i64) (local $p i32) (local $s i64)
    (loop $r
      (local.set $x (call $deep (i32.const 3000) (local.get $x)))
      (local.set $p (memory.grow $a (i32.const 1)))
      (if (i32.ne (local.get $p) (i32.const -1)) (then
        (i64.store $a (i32.mul (local.get $p) (i32.const 65536)) (local.get $x))
        (i64.store $a offset=65528 (i32.mul (local.get $p) (i32.const 65536)) (local.get $x))))
      (local.set $p (memory.grow $b (i32.const 2)))
      (if (i32.ne (local.get $p) (i32.const -1)) (then
        (i64.store $b offset=70000 (i32.mul (local.get $p) (i32.const 65536)) (local.get $x))))
      (br_if $r (local.tee $rounds (i32.sub (local.get $rounds) (i32.const 1)))))
    (local.set $p (i32.const 0))
    (loop $l
      (local.set $s (call $mix (local.get $s) (i64.load $a (local.get $p))))
      (br_if $l (i32.lt_u (local.tee $p (i32.add (local.get $p) (i32.const 8))) (i32.mul (memory.size $a) (i32.const 65536)))))
    (local.set $p (i32.const 0))
    (loop $l
      (local.set $s (call $mix (local.get $s) (i64.load $b (local.get $p))))
      (br_if $l (i32.lt_u (local.tee $p (i32.add (local.get $p) (i32.const 8))) (i32.mul (memory.size $b) (i32.const 65536)))))
    (call $mix (local.get $s) (global.get $g))))"#;

/// Exceptions pass through two hundred frames.
const EXCEPTIONS: &str = r#"(module
  (memory $a (export "memory") 4)
  (tag $value (param i64))
  (func $mix (param $m i64) (param $v i64) (result i64)
    (i64.mul (i64.rotl (i64.xor (local.get $m) (local.get $v)) (i64.const 29)) (i64.const 0x9E3779B97F4A7C15)))
  (func $down (param $n i32) (param $x i64) (result i64)
    (if (i32.eqz (local.get $n)) (then (throw $value (call $mix (local.get $x) (i64.const 9)))))
    (i64.store $a (i32.mul (local.get $n) (i32.const 8)) (local.get $x))
    (call $mix (local.get $x) (call $down (i32.sub (local.get $n) (i32.const 1)) (call $mix (local.get $x) (i64.const 7)))))
  (func (export "run") (param $rounds i32) (result i64) (local $x i64) (local $e exnref)
    (loop $r
      (block $out
        (local.set $x
          (block $c (result i64)
            (try_table (catch $value $c)
              (drop (call $down (i32.const 200) (local.get $x)))
              (br $out))
            (unreachable))))
      (br_if $r (local.tee $rounds (i32.sub (local.get $rounds) (i32.const 1)))))
    (local.get $x)))"#;

/// Tail calls, over a memory with 64-bit addresses.
const TAIL_CALLS: &str = r#"(module
  (memory $a (export "memory") i64 40)
  (func $mix (param $m i64) (param $v i64) (result i64)
    (i64.mul (i64.rotl (i64.xor (local.get $m) (local.get $v)) (i64.const 29)) (i64.const 0x9E3779B97F4A7C15)))
  (func $step (param $n i32) (param $x i64) (result i64)
    (if (i32.eqz (local.get $n)) (then (return (local.get $x))))
    (i64.store (i64.and (i64.shr_u (local.get $x) (i64.const 20)) (i64.const 0x1ffff8)) (local.get $x))
    (return_call $other (i32.sub (local.get $n) (i32.const 1))
      (call $mix (local.get $x) (i64.load (i64.and (i64.shr_u (local.get $x) (i64.const 30)) (i64.const 0x1ffff8))))))
  (func $other (param $n i32) (param $x i64) (result i64)
    (return_call $step (local.get $n) (call $mix (local.get $x) (i64.const 77))))
  (func (export "run") (param $rounds i32) (result i64)
    (call $step (i32.mul (local.get $rounds) (i32.const 20000)) (i64.const 1))))"#;

/// Waits again and again.
const SLEEPS: &str = r#"(module
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (memory $a (export "memory") 4)
  (func $mix (param $m i64) (param $v i64) (result i64)
    (i64.mul (i64.rotl (i64.xor (local.get $m) (local.get $v)) (i64.const 29)) (i64.const 0x9E3779B97F4A7C15)))
  (func (export "run") (param $rounds i32) (result i64) (local $x i64)
    (loop $r
      (memory.fill (i32.const 0) (i32.const 0) (i32.const 48))
      (i64.store (i32.const 24) (i64.const 1500000))
      (i32.store (i32.const 16) (i32.const 1))
      (local.set $x (call $mix (local.get $x) (i64.extend_i32_u (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))))
      (local.set $x (call $mix (local.get $x) (i64.extend_i32_u (i32.load (i32.const 128)))))
      (i64.store (i32.add (i32.const 256) (i32.and (i32.mul (local.get $rounds) (i32.const 8)) (i32.const 0xfff8))) (local.get $x))
      (drop (call $random (i32.const 200000) (i32.const 16)))
      (memory.fill (i32.const 200000) (i32.const 0) (i32.const 16))
      (br_if $r (local.tee $rounds (i32.sub (local.get $rounds) (i32.const 1)))))
    (local.get $x)))"#;

/// Imports the memory that it grows.
const IMPORTED: &str = r#"(module
  (import "env" "memory" (memory $a 3 600))
  (export "memory" (memory $a))
  (func $mix (param $m i64) (param $v i64) (result i64)
    (i64.mul (i64.rotl (i64.xor (local.get $m) (local.get $v)) (i64.const 29)) (i64.const 0x9E3779B97F4A7C15)))
  (func (export "run") (param $rounds i32) (result i64) (local $x i64) (local $i i32) (local $p i32)
    (local.set $x (i64.const 12345))
    (loop $r
      (local.set $i (i32.const 0))
      (loop $l
        (local.set $p (i32.and (i32.wrap_i64 (i64.shr_u (local.get $x) (i64.const 13))) (i32.const 0x1fff8)))
        (local.set $x (call $mix (local.get $x) (i64.add (i64.extend_i32_u (local.get $i)) (i64.load (local.get $p)))))
        (i64.store (local.get $p) (local.get $x))
        (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 20000))))
      (local.set $p (memory.grow (i32.const 1)))
      (if (i32.ne (local.get $p) (i32.const -1)) (then (i64.store (i32.mul (local.get $p) (i32.const 65536)) (local.get $x))))
      (br_if $r (local.tee $rounds (i32.sub (local.get $rounds) (i32.const 1)))))
    (local.get $x)))"#;

const TAKERS: usize = 3;
/// So many images of each program are resumed at most.
const RESUMED: usize = 12;

fn two_stores() -> (tempfile::TempDir, [Store; 2]) {
    let directory = tempfile::tempdir().expect("there is room for stores");
    let store = |name| Store::open(directory.path().join(name)).expect("a store can be made");
    let stores = ["one", "another"].map(store);
    (directory, stores)
}

fn call(rounds: i32) -> Call {
    Call {
        export: "run".into(),
        arguments: vec![Value::I32(rounds)],
    }
}

/// Takes snapshots until the program ends; now and then it changes the store.
fn take_all(handle: &Handle, stores: &[Store; 2], number: usize) -> Vec<(usize, ImageId)> {
    let mut images = Vec::new();
    loop {
        match handle.snapshot() {
            Ok(snapshot) => {
                let which = (images.len() / 3 + number) % 2;
                let id = snapshot.store(&stores[which]).expect("the store takes it");
                images.push((which, id));
            }
            Err(Error::Ended) => return images,
            Err(error) => panic!("{error}"),
        }
    }
}

fn run(mut instance: Instance, output: Output) -> Seen {
    let outcome = instance.run().expect("the program runs");
    seen(instance, outcome, output)
}

fn goes_on(text: &str, rounds: i32) {
    let program = Program::new(&plain_engine(None), text.into()).expect("it compiles");
    let begin = || {
        let output = Output::new();
        (start(&program, call(rounds), &output, false), output)
    };
    let (instance, output) = begin();
    let expected = run(instance, output);
    let (_directory, stores) = two_stores();
    let (instance, output) = begin();
    let handle = instance.handle();
    let images: Vec<(usize, ImageId)> = std::thread::scope(|scope| {
        let (handle, stores) = (&handle, &stores);
        let takers: Vec<_> = (0..TAKERS)
            .map(|number| scope.spawn(move || take_all(handle, stores, number)))
            .collect();
        // Whoever takes snapshots has asked for the first one before the program begins, however fast that is.
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!(run(instance, output), expected);
        let images = takers.into_iter().map(|taker| taker.join());
        images
            .flat_map(|images| images.expect("snapshots are taken"))
            .collect()
    });
    assert!(!images.is_empty(), "no snapshot was taken");
    let step = images.len().div_ceil(RESUMED);
    for (which, id) in images.into_iter().step_by(step) {
        let output = Output::new();
        let instance = resume(&program, &stores[which], id, &output);
        assert_eq!(run(instance, output), expected, "image {id}");
    }
}

#[test]
fn recursion_and_memories_that_grow_go_on() {
    goes_on(RECURSION, 2500);
}

#[test]
fn exceptions_go_on() {
    goes_on(EXCEPTIONS, 10_000);
}

#[test]
fn tail_calls_go_on() {
    goes_on(TAIL_CALLS, 2000);
}

#[test]
fn waiting_goes_on() {
    goes_on(SLEEPS, 400);
}

#[test]
fn an_imported_memory_goes_on() {
    goes_on(IMPORTED, 3000);
}

#[test]
fn snapshots_in_passing_do_not_move_the_safepoint_to_stop_at() {
    let program = Program::new(&engine(None, false, true), RECURSION.into()).expect("it compiles");
    let stopped = |in_passing: bool| {
        let (_directory, stores) = two_stores();
        let mut instance = start(&program, call(10_000), &Output::new(), true);
        instance
            .stop_at_safepoint(30_000_000)
            .expect("its safepoints can be counted");
        let handle = instance.handle();
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            if in_passing {
                scope.spawn(|| {
                    while !is_done.load(Ordering::Relaxed) {
                        // The last one may come too late.
                        let Ok(snapshot) = handle.snapshot() else {
                            break;
                        };
                        snapshot.store(&stores[1]).expect("the store takes it");
                    }
                });
            }
            let outcome = instance.run().expect("the program runs");
            assert!(matches!(outcome, Outcome::Suspended(_)), "{outcome:?}");
            is_done.store(true, Ordering::Relaxed);
            let snapshot = instance.snapshot().expect("it can be stored");
            let id = snapshot.store(&stores[0]).expect("the store takes it");
            drop(snapshot);
            // Whoever waits for another one learns that there is none.
            drop(instance);
            id
        })
    };
    assert_eq!(stopped(true), stopped(false));
}
