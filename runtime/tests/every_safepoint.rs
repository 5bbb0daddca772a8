//! A program that is stopped again and again does what it does when it is left alone.

mod common;
#[path = "common/guests.rs"]
mod guests;

use common::{Output, engine, seen, start, stored, whole};
use guests::{guest, text_guests};
use std::path::PathBuf;
use wsnap::{Call, Engine, EngineConfig, Options, Outcome, Program};

/// Runs a module, going on in place at each of `stops`, which are numbers of safepoints.
fn in_place(program: &Program, call: &Call, stops: impl Iterator<Item = u64>) -> common::Seen {
    let output = Output::new();
    let mut instance = start(program, call.clone(), &output, false);
    for stop in stops {
        instance
            .stop_at_safepoint(stop)
            .expect("its safepoints can be counted");
        match instance.run().expect("the program goes on") {
            Outcome::Suspended(_) => {}
            outcome => return seen(instance, outcome, output),
        }
    }
    let outcome = instance.run().expect("the program goes on");
    seen(instance, outcome, output)
}

/// Each guest with an engine whose safepoints can be counted, and with one as it comes, for stops at the next one.
fn with_engines(guests: Vec<PathBuf>) -> impl Iterator<Item = (PathBuf, Engine)> {
    let plain = Engine::new(&EngineConfig::default()).expect("the engine can be set up");
    let engines = [engine(None, false, false), plain];
    guests.into_iter().flat_map(move |guest| {
        let engines = engines.clone();
        engines
            .into_iter()
            .map(move |engine| (guest.clone(), engine))
    })
}

#[test]
fn text_guests_go_on_in_place_at_their_first_safepoints() {
    for (path, engine) in with_engines(text_guests()) {
        let wasm = std::fs::read(&path).expect("the guest is readable");
        let program = Program::new(&engine, wasm.clone()).expect("the guest compiles");
        let call = Call::command();
        assert_eq!(
            in_place(&program, &call, std::iter::repeat_n(1, 300)),
            whole(&wasm, &call),
            "{}",
            path.display()
        );
    }
}

#[test]
fn text_guests_are_stored_and_resumed_at_their_first_safepoints() {
    for (path, engine) in with_engines(text_guests()) {
        let wasm = std::fs::read(&path).expect("the guest is readable");
        let program = Program::new(&engine, wasm.clone()).expect("the guest compiles");
        let call = Call::command();
        let stops = std::iter::repeat_n(1, 60);
        assert_eq!(
            stored(&[program], &call, stops).0,
            whole(&wasm, &call),
            "{}",
            path.display()
        );
    }
}

#[test]
fn text_guests_alternate_between_this_machine_and_pulley() {
    let engines = [
        engine(None, false, false),
        engine(Some("pulley64"), false, false),
    ];
    for path in text_guests() {
        let wasm = std::fs::read(&path).expect("the guest is readable");
        let programs = engines
            .each_ref()
            .map(|engine| Program::new(engine, wasm.clone()).expect("the guest compiles"));
        let call = Call::command();
        let stops = (1..60).map(|turn| turn * turn);
        assert_eq!(
            stored(&programs, &call, stops).0,
            whole(&wasm, &call),
            "{}",
            path.display()
        );
    }
}

#[test]
fn a_compiled_program_is_stored_at_scattered_safepoints() {
    let engine = engine(None, false, false);
    let wasm = guest("prebuilt/library.wasm");
    let program = Program::new(&engine, wasm.clone()).expect("the guest compiles");
    let stops = (0..40u64).map(|turn| 1 + (turn * 7919) % 5003);
    assert_eq!(
        stored(&[program], &Call::command(), stops).0,
        whole(&wasm, &Call::command())
    );
}

#[test]
fn an_image_resumes_under_another_rewriting() {
    let plain = engine(None, false, false);
    let config = EngineConfig {
        rewriting: Options {
            redundant_safepoints: true,
            countable_safepoints: true,
        },
        ..EngineConfig::default()
    };
    let redundant = Engine::new(&config).expect("the engine can be set up");
    for path in text_guests() {
        let wasm = std::fs::read(&path).expect("the guest is readable");
        let program =
            |engine: &Engine| Program::new(engine, wasm.clone()).expect("the guest compiles");
        let call = Call::command();
        let stops = (1..50).map(|turn| turn * 3);
        let programs = [program(&redundant), program(&plain)];
        assert_eq!(
            stored(&programs, &call, stops).0,
            whole(&wasm, &call),
            "{}",
            path.display()
        );
    }
}

/// The test of an `if` was parked in the local that, within the arm, held an operand: going to a point in the arm
/// overwrote what had just been restored there.
#[test]
fn an_operand_within_an_if_keeps_its_value_when_the_test_was_at_its_height() {
    let wasm = br#"(module (func $spin (param i32) (result i32)
            (loop $again (br_if $again (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
            (i32.const 5))
        (func (export "sum") (result i32)
            (if (result i32) (i32.const 77)
                (then (i32.add (i32.const 1000) (call $spin (i32.const 4))))
                (else (i32.const 0)))))"#;
    let call = Call {
        export: "sum".into(),
        arguments: Vec::new(),
    };
    let program =
        Program::new(&engine(None, false, false), wasm.to_vec()).expect("the module compiles");
    assert_eq!(
        in_place(&program, &call, std::iter::repeat_n(1, 10)),
        whole(wasm, &call)
    );
    assert_eq!(
        stored(&[program], &call, std::iter::repeat_n(1, 10)).0,
        whole(wasm, &call)
    );
}
