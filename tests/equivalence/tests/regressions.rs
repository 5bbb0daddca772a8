//! One test for each thing that once went wrong with a generated program.

use wsnap::Program;
use wsnap_equivalence::driven::{self, Manner};
use wsnap_equivalence::driver::Driven;
use wsnap_equivalence::validity::{self, Validated};
use wsnap_instrument::Options;

/// Rewrites a module that was found to be treated wrongly, with clones for all its points, and runs it with stops at
/// every safepoint.
fn check_again(text: &str) {
    let wasm = wat::parse_str(text).expect("the text is a module");
    for choice in [false, true] {
        let options = Options {
            redundant_safepoints: choice,
            countable_safepoints: choice,
        };
        let checked = validity::check(
            &driven::bare_engine(),
            &wasm,
            options,
            &mut Validated::default(),
        );
        assert_eq!(checked, Ok(()));
    }
    let driven = Driven {
        wasm,
        steps: 1,
        memories: 1,
    };
    let expected = driven::bare(&driven::bare_engine(), &driven, driven.all());
    let engine = driven::engine(None, Options::default());
    let program = [Program::new(&engine, driven.wasm.clone()).expect("the program compiles")];
    let gaps = std::iter::repeat_n(1, 50);
    let run = driven::with_stops(&program, &Manner::InPlace, &driven, driven.all(), gaps);
    let run = run.expect("the program goes on");
    assert!(run.stops > 0, "the program must be stopped");
    assert_eq!(run.seen, expected);
}

#[test]
fn an_if_without_else_that_holds_a_safepoint_passes_its_parameters_on() {
    check_again(
        r#"(module
          (memory (export "driver: memory 0") 1)
          (func $turns (param $left i32)
            (loop $again
              (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1))))))
          (func $maybe (param $value i32) (param $second i64) (param $test i32) (result i32 i64)
            local.get $value
            local.get $second
            local.get $test
            if (param i32 i64) (result i32 i64)
              i32.const 3
              call $turns
            end)
          (func (export "driver: run") (param i32 i32) (local $first i32) (local $second i64)
            (call $maybe (i32.const 7) (i64.const 8) (i32.const 1))
            local.set $second
            (call $maybe (local.get $second) (i32.const 0))
            local.set $second
            local.set $first
            (i64.store (i32.const 8) (local.get $second))
            (i32.store (i32.const 0) (local.get $first))))"#,
    );
}

/// A loop that begins with a reference to a function, and goes round with null, of a type that admits both.
fn loop_with_reference(ty: &str, null: &str) -> String {
    format!(
        r#"(module
          (type $nothing (func))
          (memory (export "driver: memory 0") 1)
          (func $something)
          (elem declare func $something)
          (func (export "driver: run") (param i32 i32) (local $turns i32) (local $nulls i32)
            (local.set $turns (i32.const 4))
            i32.const 8
            ref.func $something
            loop $again (param {ty}) (result i32)
              ref.is_null
              local.get $nulls
              i32.add
              local.set $nulls
              ref.null {null}
              (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))
              br_if $again
              drop
              local.get $nulls
            end
            i32.store))"#
    )
}

#[test]
fn a_loop_that_begins_with_a_function_of_known_type_goes_round_with_any_function() {
    check_again(&loop_with_reference("funcref", "func"));
}

#[test]
fn a_loop_that_begins_with_a_function_goes_round_with_null() {
    check_again(&loop_with_reference("(ref null $nothing)", "$nothing"));
}
