//! What is asked of a program from another thread while it runs: it answers soon, wherever it is.

mod common;

use common::{Output, plain_engine, seen, start, whole};
use std::thread;
use std::time::Duration;
use wsnap::snapshots::{Store, Value};
use wsnap::{Call, Handle, Outcome, Program, StopReason};

/// After this time a program runs, and not its host's code.
const HEAD_START: Duration = Duration::from_millis(50);

/// Loops that, as they run, write to no memory and call nothing: a compiler may believe that memory stays as it is.
const WITHOUT_STORES: [(&str, &str); 9] = [
    ("one loop", "(loop $a (br_if $a (i64.ne (local.tee 0 (i64.add (local.get 0) (i64.const 1))) (i64.const 0))))"),
    (
        "a loop in a loop",
        "(loop $a (local.set 0 (i64.const -1))
            (loop $b (br_if $b (i64.ne (local.tee 0 (i64.add (local.get 0) (i64.const 2))) (i64.const 0)))) (br $a))",
    ),
    (
        "a loop behind a loop",
        "(local.set 0 (i64.const -9)) (loop $a (br_if $a (i64.ne (local.tee 0 (i64.add (local.get 0) (i64.const 1))) (i64.const 0))))
            (loop $b (br_if $b (i32.eqz (local.get 1))))",
    ),
    (
        "a loop behind a call",
        "(call $leaf) (loop $a (br_if $a (i32.eqz (i32.load (i32.const 64)))))",
    ),
    (
        "a loop that stores on its way out only",
        "(loop $a (if (local.get 1) (then (i32.store (i32.const 0) (i32.const 1)) (return))) (br $a))",
    ),
    (
        "a loop that stores on a branch not taken",
        "(loop $a (if (local.get 1) (then (i32.store (i32.const 0) (i32.const 1)))) (br $a))",
    ),
    (
        "a loop that stores on a branch that is never taken, behind a loop",
        "(local.set 0 (i64.const -9)) (loop $a (br_if $a (i64.ne (local.tee 0 (i64.add (local.get 0) (i64.const 1))) (i64.const 0))))
            (loop $b (if (i32.const 0) (then (i32.store (i32.const 0) (i32.const 1)))) (br $b))",
    ),
    (
        "a loop that calls on a branch not taken",
        "(loop $a (block $b (br_if $b (i32.eqz (local.get 1))) (call $leaf)) (br $a))",
    ),
    (
        "a loop with a loop on a branch not taken that stores",
        "(loop $a (block $b (br_if $b (i32.eqz (local.get 1)))
            (loop $c (i32.store (i32.const 0) (i32.const 1)) (br_if $c (local.get 1)))) (br $a))",
    ),
];

fn module(body: &str) -> Vec<u8> {
    format!(
        r#"(module (memory (export "memory") 1)
            (func $leaf (loop $a (br_if $a (i32.load (i32.const 4)))))
            (func (export "run") (param i64) (param i32) {body}))"#
    )
    .into_bytes()
}

/// Runs the program and asks it to stop meanwhile.
fn stopped(program: &Program) -> Outcome {
    let call = Call {
        export: "run".into(),
        arguments: vec![Value::I64(1), Value::I32(0)],
    };
    let mut instance = start(program, call, &Output::new(), false);
    let handle = instance.handle();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(HEAD_START);
            handle.request_stop();
        });
        instance.run().expect("the program runs")
    })
}

#[test]
fn loops_that_store_nothing_hear_a_request() {
    for target in [None, Some("pulley64")] {
        let engine = plain_engine(target);
        for (name, body) in WITHOUT_STORES {
            let program = Program::new(&engine, module(body)).expect("it compiles");
            let outcome = stopped(&program);
            assert!(
                matches!(outcome, Outcome::Suspended(StopReason::Requested)),
                "{name}: {outcome:?}"
            );
        }
    }
}

/// Takes snapshots until the program ends, and returns how many.
fn take_all(handle: &Handle, store: &Store) -> usize {
    let mut taken = 0;
    while let Ok(snapshot) = handle.snapshot() {
        snapshot.store(store).expect("the store takes it");
        taken += 1;
    }
    taken
}

/// It comes to no safepoint that can ask, so it has to unwind its own call stack.
#[test]
fn a_program_that_enters_no_function_gives_snapshots() {
    let wasm = module(
        "(loop $a
            (i64.store (i32.const 8) (i64.add (i64.mul (i64.load (i32.const 8)) (i64.const 31)) (local.get 0)))
            (br_if $a (i64.lt_u (local.tee 0 (i64.add (local.get 0) (i64.const 1))) (i64.const 400000000))))",
    );
    let call = Call {
        export: "run".into(),
        arguments: vec![Value::I64(1), Value::I32(0)],
    };
    let directory = tempfile::tempdir().expect("there is room for a store");
    let store = Store::open(directory.path().join("store")).expect("a store can be made");
    let program = Program::new(&plain_engine(None), wasm.clone()).expect("it compiles");
    let output = Output::new();
    let mut instance = start(&program, call.clone(), &output, false);
    let handle = instance.handle();
    let (outcome, taken) = thread::scope(|scope| {
        let taker = scope.spawn(|| take_all(&handle, &store));
        let outcome = instance.run().expect("the program goes on");
        let seen = seen(instance, outcome, output);
        (seen, taker.join().expect("snapshots are taken"))
    });
    assert_eq!(outcome, whole(&wasm, &call));
    assert!(taken > 0, "no snapshot was taken");
}
