//! A function with many safepoints, between which many locals change, does what it does when it is left alone.

mod common;

use common::{Output, engine, plain_engine, resume, seen, start, whole};
use std::fmt::Write;
use wsnap::snapshots::{Store, Value};
use wsnap::{Call, Engine, Outcome, Program};

const LOCALS: u32 = 14;
const CASES: u32 = 20;
/// Calls in a case.
const CALLS: u32 = 11;

/// An interpreter of nothing in particular: a `switch` in a loop, whose cases call something and write all locals, again
/// and again.
fn interpreter() -> String {
    let mut text = String::from(
        "(module
          (func $mix (param $x i32) (result i32) (local $i i32)
            (loop $again
              (local.set $x (i32.add (i32.rotl (local.get $x) (i32.const 5)) (local.get $i)))
              (local.set $i (i32.add (local.get $i) (i32.const 1)))
              (br_if $again (i32.lt_u (local.get $i) (i32.const 2))))
            (local.get $x))
          (func (export \"go\") (param $turns i32) (result i32) (local",
    );
    text.push_str(&" i32".repeat(LOCALS as usize));
    text.push_str(")\n(loop $next\n");
    text.push_str(&"(block ".repeat(CASES as usize));
    text.push_str("(br_table");
    for case in 0..CASES {
        write!(text, " {case}").expect("texts take it");
    }
    writeln!(text, " (i32.rem_u (local.get 1) (i32.const {CASES}))))").expect("texts take it");
    for case in 0..CASES {
        for turn in 0..CALLS {
            let seed = case * CALLS + turn;
            // What the call is added to waits on the operand stack.
            writeln!(
                text,
                "(local.set 1 (i32.add (local.get {}) (call $mix (i32.xor (local.get {LOCALS}) (i32.const {seed})))))",
                1 + seed % LOCALS
            )
            .expect("texts take it");
            for local in 2..=LOCALS {
                writeln!(
                    text,
                    "(local.set {local} (i32.mul (i32.add (local.get {}) (local.get {local})) (i32.const {})))",
                    local - 1,
                    2 * seed + 3
                )
                .expect("texts take it");
            }
        }
        let end = if case + 1 == CASES { "" } else { ")" };
        writeln!(
            text,
            "(local.set 0 (i32.sub (local.get 0) (i32.const 1)))
            (br_if {} (local.get 0)) (return (local.get {LOCALS})) {end}",
            CASES - 1 - case
        )
        .expect("texts take it");
    }
    text.push_str(") unreachable))");
    text
}

/// Runs it, stored and resumed at each of `stops`, which count safepoints, by one engine and another in turns.
fn stopped(
    engines: [&Engine; 2],
    wasm: &[u8],
    call: &Call,
    stops: impl Iterator<Item = u64>,
) -> common::Seen {
    let programs = engines
        .map(|engine| Program::new(engine, wasm.to_vec()).expect("the module can be compiled"));
    let directory = tempfile::tempdir().expect("there is room for a store");
    let store = Store::open(directory.path().join("store")).expect("a store can be made");
    let output = Output::new();
    let mut instance = start(&programs[0], call.clone(), &output, false);
    for (turn, stop) in stops.enumerate() {
        instance.stop_at_safepoint(stop).expect("it can be stopped");
        let outcome = instance.run().expect("the program runs");
        assert!(
            matches!(outcome, Outcome::Suspended(_)),
            "it ended before the stop: {outcome:?}"
        );
        let snapshot = instance.snapshot().expect("it can be stored");
        let id = snapshot.store(&store).expect("the store takes it");
        instance = resume(&programs[(turn + 1) % 2], &store, id, &output);
    }
    let outcome = instance.run().expect("the program goes on");
    seen(instance, outcome, output)
}

#[test]
fn functions_with_many_locals_that_many_safepoints_store_can_be_stopped_anywhere() {
    let text = interpreter();
    let wasm = text.as_bytes();
    let call = Call {
        export: "go".into(),
        arguments: vec![Value::I32(400)],
    };
    let expected = whole(wasm, &call);
    // The fast safepoints stop at the next one only; those that count go far before each.
    let counting = engine(None, false, false);
    let stops = || (1..60).flat_map(|turn| [turn * 7, 1]);
    for fast in [plain_engine(None), plain_engine(Some("pulley64"))] {
        let seen = stopped([&counting, &fast], wasm, &call, stops());
        assert_eq!(seen, expected);
    }
}
