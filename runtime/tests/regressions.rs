//! One test for each thing that once went wrong with a whole program.

mod common;

use common::{Output, engine, resume, seen, start, whole};
use std::time::Duration;
use wsnap::snapshots::{Store, Value};
use wsnap::{Call, Outcome, Program};

fn call(export: &str, arguments: &[Value]) -> Call {
    Call {
        export: export.into(),
        arguments: arguments.to_vec(),
    }
}

/// Runs the program to its `stop`-th safepoint, stores it, and lets a resumed instance end.
fn stopped_once(wasm: &[u8], call: &Call, stop: u64) -> common::Seen {
    let program =
        Program::new(&engine(None, false, false), wasm.to_vec()).expect("the module compiles");
    let directory = tempfile::tempdir().expect("there is room for a store");
    let store = Store::open(directory.path().join("store")).expect("a store can be made");
    let output = Output::new();
    let mut instance = start(&program, call.clone(), &output, false);
    instance
        .stop_at_safepoint(stop)
        .expect("its safepoints can be counted");
    let outcome = instance.run().expect("the program runs");
    assert!(
        matches!(outcome, Outcome::Suspended(_)),
        "it ended before the stop: {outcome:?}"
    );
    let id = instance
        .snapshot()
        .expect("it can be stored")
        .store(&store)
        .expect("the store takes it");
    let mut resumed = resume(&program, &store, id, &output);
    let outcome = resumed.run().expect("the program goes on");
    seen(resumed, outcome, output)
}

const NESTED_EXCEPTIONS: &str = r#"(module (tag $e (param exnref i32))
 (global $x (mut exnref) (ref.null exn))
 (func $mk (param $x exnref) (param i32) (result exnref)
   (block $h (result exnref i32 exnref)
     (try_table (catch_ref $e $h) (throw $e (local.get $x) (local.get 1))) unreachable)
   (local.set $x) drop drop (local.get $x))
 (func (export "nest") (param $n i32) (result i32) (local $x exnref) (local $i i32)
   (loop $l (local.set $x (call $mk (local.get $x) (local.get $i)))
     (local.set $i (i32.add (local.get $i) (i32.const 1)))
     (br_if $l (i32.lt_u (local.get $i) (local.get $n))))
   (local.set $i (i32.const 0))
   (loop $w (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $w (i32.lt_u (local.get $i) (i32.const 10))))
   (block $h (result exnref i32) (try_table (catch $e $h) (throw_ref (local.get $x))) unreachable)
   (local.set $i) drop (local.get $i)
 ))"#;

#[test]
fn exceptions_that_carry_each_other_deeply_are_stored_and_restored() {
    for (depth, stop) in [(150, 153), (100_000, 100_003)] {
        let call = call("nest", &[Value::I32(depth)]);
        let wasm = NESTED_EXCEPTIONS.as_bytes();
        assert_eq!(stopped_once(wasm, &call, stop), whole(wasm, &call));
    }
}

const LEFT_BY_EXCEPTIONS: &str = r#"(module (tag $e)
 (func $f (param i32)
   (if (i32.eqz (local.get 0)) (then (throw $e)))
   (block $h (try_table (catch $e $h) (call $f (i32.sub (local.get 0) (i32.const 1)))))
   (block $h (try_table (catch $e $h) (call $f (i32.sub (local.get 0) (i32.const 1)))))
   (throw $e))
 (func (export "go") (param i32) (block $h (try_table (catch $e $h) (call $f (local.get 0))))))"#;

#[test]
fn recursion_that_is_left_by_exceptions_only_can_be_stopped() {
    let program = Program::new(&engine(None, false, false), LEFT_BY_EXCEPTIONS.into())
        .expect("the module compiles");
    let mut instance = start(
        &program,
        call("go", &[Value::I32(40)]),
        &Output::new(),
        false,
    );
    let handle = instance.handle();
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        handle.request_stop();
    });
    let outcome = instance.run().expect("the program runs");
    stopper.join().expect("the request is made");
    assert!(
        matches!(outcome, Outcome::Suspended(_)),
        "it would take years: {outcome:?}"
    );
}

const GROWS_FAR: &str = r#"(module (memory $b i64 1)
 (func (export "grow") (param i64) (result i64 i64) (memory.grow (local.get 0)) (memory.size))
 (func (export "store") (param i64 i64) (result i64) (drop (memory.grow (local.get 0))) (i64.store (local.get 1) (i64.const 5)) (i64.load (local.get 1))))"#;

#[test]
fn a_64_bit_memory_is_accessible_beyond_4_gib() {
    let call = call("store", &[Value::I64(65_540), Value::I64(4_295_098_368)]);
    let program =
        Program::new(&engine(None, false, false), GROWS_FAR.into()).expect("the module compiles");
    let outcome = start(&program, call, &Output::new(), false)
        .run()
        .expect("the program runs");
    assert!(
        matches!(&outcome, Outcome::Returned(values) if *values == [Value::I64(5)]),
        "{outcome:?}"
    );
}

const STARTS_LARGE: &str = r#"(module (memory $b i64 70000)
 (func (export "store") (param i64) (result i64) (local $i i32) (i64.store (local.get 0) (i64.const 5))
 (loop $l (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $l (i32.lt_u (local.get $i) (i32.const 5)))) (i64.load (local.get 0))))"#;

#[test]
fn a_memory_that_starts_beyond_4_gib_is_accessible_after_resuming() {
    let call = call("store", &[Value::I64(4_400_000_000)]);
    let seen = stopped_once(STARTS_LARGE.as_bytes(), &call, 2);
    assert_eq!(seen.ending, "returned [I64(5)]");
}

const CALLED_AS_SUPERTYPE: &str = r#"(module
 (rec (type $t (func (result i32))))
 (type $a (sub (func (param i32) (result (ref null func)))))
 (type $b (sub $a (func (param i32) (result (ref $t)))))
 (table 4 funcref)
 (elem (i32.const 0) $g $k)
 (func $k (type $t) (i32.const 42))
 (func $g (type $b) (local $i i32)
   (loop $l (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $l (i32.lt_u (local.get $i) (local.get 0))))
   (ref.func $k))
 (func (export "go") (param i32) (result i32)
   (call_ref $t (ref.cast (ref $t) (call_indirect (type $a) (local.get 0) (i32.const 0))))))"#;

#[test]
fn a_function_called_through_a_supertype_of_its_type_is_reentered() {
    let wasm = CALLED_AS_SUPERTYPE.as_bytes();
    let call = call("go", &[Value::I32(3)]);
    assert_eq!(stopped_once(wasm, &call, 1), whole(wasm, &call));
}

/// What is said of the trap of a program that was stopped at a safepoint, by its number, and went on.
fn trap_after_a_stop(wasm: Vec<u8>, safepoint: u64) -> String {
    let program = Program::new(&engine(None, false, false), wasm).expect("it compiles");
    let mut instance = start(&program, call("go", &[]), &Output::new(), false);
    instance
        .stop_at_safepoint(safepoint)
        .expect("its safepoints can be counted");
    let outcome = instance.run().expect("the program runs");
    assert!(matches!(outcome, Outcome::Suspended(_)), "{outcome:?}");
    let Outcome::Trapped(trap) = instance.run().expect("the program goes on") else {
        panic!("it divides by zero");
    };
    trap.to_string()
}

#[test]
fn the_backtrace_of_a_resumed_program_names_its_functions() {
    let wasm = br#"(module
        (func $divides (param i32) (result i32) (local $i i32)
            (loop $again
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $i) (i32.const 9))))
            (i32.div_u (i32.const 1) (local.get 0)))
        (func (export "go") (result i32) (call $divides (i32.const 0))))"#;
    let text = trap_after_a_stop(wasm.to_vec(), 3);
    assert!(
        text.starts_with("wasm trap: integer divide by zero"),
        "{text}"
    );
    assert!(text.contains("divides"), "{text}");
}

#[test]
fn the_backtrace_of_a_resumed_program_names_what_it_calls() {
    // Functions that are called outside of loops, more than one: clones call them through a bridge.
    let callee = |name: &str, what: &str| {
        format!(
            "(func ${name} (param i32) (result i32) (local $i i32)
                (loop $again
                    (local.set $i (i32.add (local.get $i) (i32.const 1)))
                    (br_if $again (i32.lt_u (local.get $i) (i32.const 3))))
                ({what} (i32.const 8) (local.get 0)))"
        )
    };
    let wasm = format!(
        "(module {} {} {} {}
            (func $all (export \"go\") (result i32)
                (call $subtracts (call $adds (i32.const 1)))
                (call $multiplies)
                (call $divides (i32.const 0))
                i32.add))",
        callee("adds", "i32.add"),
        callee("subtracts", "i32.sub"),
        callee("multiplies", "i32.mul"),
        callee("divides", "i32.div_u"),
    );
    let text = trap_after_a_stop(wasm.into(), 1);
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| Some(line.split_once('!')?.1))
        .collect();
    let expected = ["divides", "wsnap:bridge", "wsnap:bridge", "all"];
    assert_eq!(names, expected, "{text}");
}

#[test]
fn a_block_that_gives_a_reference_of_a_collector_is_refused() {
    let wasm = b"(module (func (export \"go\") (block (result anyref) (unreachable)) (drop)))";
    let refused = Program::new(&engine(None, false, false), wasm.to_vec());
    let error = refused.err().expect("it cannot be suspended").to_string();
    assert!(error.contains("garbage-collected"), "{error}");
}

/// A function that calls itself from another place at each depth, each in blocks of its own.
fn many_places(places: usize) -> String {
    let blocks = "(block ".repeat(places);
    let labels: String = (0..places).map(|label| format!("{label} ")).collect();
    let arm = |place: usize| {
        format!(
            "(if (i32.eqz (local.get $n)) (then
                (loop $again
                    (local.set $i (i32.add (local.get $i) (i32.const 1)))
                    (br_if $again (i32.lt_u (local.get $i) (i32.const 3))))
                (return (i32.const 1))))
            (return (i32.add (i32.const {place}) (call $go (i32.sub (local.get $n) (i32.const 1)))))"
        )
    };
    let arms: Vec<String> = (0..places).map(arm).collect();
    format!(
        "(module (func $go (export \"go\") (param $n i32) (result i32) (local $i i32)
            {blocks}(br_table {labels}(i32.rem_u (local.get $n) (i32.const {places}))))
            {arms} unreachable))",
        arms = arms.join(")\n")
    )
}

#[test]
fn frames_at_very_many_points_of_one_function_are_restored() {
    let wasm = many_places(700);
    let call = call("go", &[Value::I32(699)]);
    assert_eq!(
        stopped_once(wasm.as_bytes(), &call, 2),
        whole(wasm.as_bytes(), &call)
    );
}
