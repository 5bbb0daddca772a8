//! A function with many safepoints, between which many locals change, does what it does when it is left alone.

mod common;
#[path = "common/interpreter.rs"]
mod interpreter;

use common::{Output, engine, plain_engine, resume, seen, start, stored, whole};
use interpreter::interpreter;
use std::thread;
use std::time::Duration;
use wsnap::snapshots::{Store, Value};
use wsnap::{Call, Outcome, Program};

fn go(times: i32) -> Call {
    Call {
        export: "go".into(),
        arguments: vec![Value::I32(times)],
    }
}

#[test]
fn functions_with_many_locals_that_many_safepoints_store_can_be_stopped_anywhere() {
    let text = interpreter();
    let (wasm, call) = (text.as_bytes(), go(20));
    let expected = whole(wasm, &call);
    // The fast safepoints stop at the next one only; those that count go far before each.
    let counting = engine(None, false, false);
    let stops = || (1..60).flat_map(|turn| [turn * 7, 1]);
    for fast in [plain_engine(None), plain_engine(Some("pulley64"))] {
        let programs = [&counting, &fast]
            .map(|engine| Program::new(engine, wasm.to_vec()).expect("the module can be compiled"));
        let stopped = stored(&programs, &call, stops());
        assert_eq!(stopped, (expected.clone(), stops().count()));
    }
}

#[test]
fn functions_with_many_locals_that_many_safepoints_store_can_be_stopped_at_any_time() {
    let text = interpreter();
    let (wasm, call) = (text.as_bytes(), go(100_000));
    let expected = whole(wasm, &call);
    let program =
        Program::new(&plain_engine(None), wasm.to_vec()).expect("the module can be compiled");
    let directory = tempfile::tempdir().expect("there is room for a store");
    let store = Store::open(directory.path().join("store")).expect("a store can be made");
    let output = Output::new();
    let mut instance = start(&program, call, &output, false);
    let mut stops = 0;
    let outcome = loop {
        let handle = instance.handle();
        let outcome = thread::scope(|scope| {
            if stops < 40 {
                scope.spawn(move || {
                    thread::sleep(Duration::from_millis(10));
                    handle.request_stop();
                });
            }
            instance.run().expect("the program runs")
        });
        if !matches!(outcome, Outcome::Suspended(_)) {
            break outcome;
        }
        stops += 1;
        let snapshot = instance.snapshot().expect("it can be stored");
        let id = snapshot.store(&store).expect("the store takes it");
        instance = resume(&program, &store, id, &output);
    };
    assert!(stops > 5, "it was stopped {stops} times");
    assert_eq!(seen(instance, outcome, output), expected);
}
