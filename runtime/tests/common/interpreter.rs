//! A module with a function as interpreters have: the rewriter takes it for crowded.

use std::fmt::Write;

const LOCALS: u32 = 14;
const CASES: u32 = 20;
/// Calls in a case.
const CALLS: u32 = 11;

/// An interpreter of nothing in particular: a `switch` in a loop, whose cases call something and write all locals, again
/// and again.
/// `go(times)` calls it again and again.
pub fn interpreter() -> String {
    let mut text = String::from(
        "(module
          (func $mix (param $x i32) (result i32) (local $i i32)
            (loop $again
              (local.set $x (i32.add (i32.rotl (local.get $x) (i32.const 5)) (local.get $i)))
              (local.set $i (i32.add (local.get $i) (i32.const 1)))
              (br_if $again (i32.lt_u (local.get $i) (i32.const 2))))
            (local.get $x))
          (func (export \"go\") (param $times i32) (result i32) (local $sum i32)
            (loop $again
              (local.set $sum (i32.add (i32.mul (local.get $sum) (i32.const 31)) (call $interpret (i32.const 20))))
              (br_if $again (local.tee $times (i32.sub (local.get $times) (i32.const 1)))))
            (local.get $sum))
          (func $interpret (param $turns i32) (result i32) (local",
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
