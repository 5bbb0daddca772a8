//! Programs too large to write by hand, as WebAssembly text.

use std::fmt::Write;

/// A program whose main function calls `calls` times, each time with other locals alive.
///
/// Every call site reads two of 40 locals and sets a third, so no two sites have the same live set for long.
#[must_use]
pub fn many_calls(calls: u32) -> String {
    const LOCALS: u32 = 40;
    let mut body = String::new();
    for local in 0..LOCALS {
        line(
            &mut body,
            &format!(
                "(local.set {local} (i64.const {}))",
                u64::from(local) * 0x9E37_79B9
            ),
        );
    }
    for call in 0..calls {
        let first = call * 7 % LOCALS;
        let second = (call / 3 * 11 + 5) % LOCALS;
        let target = (call * call + 3 * call) % LOCALS;
        let callee = if call % 5 == 0 { "$spin" } else { "$mix" };
        line(
            &mut body,
            &format!(
                "(local.set {target} (call {callee} (local.get {first}) (local.get {second})))"
            ),
        );
    }
    let sum = (0..LOCALS).fold("(i64.const 0)".to_string(), |sum, local| {
        format!("(call $mix {sum} (local.get {local}))")
    });
    line(&mut body, &format!("(call $print {sum})"));
    program(&format!(
        "  (func (export \"_start\")\n    (local{})\n{body}  )\n",
        " i64".repeat(LOCALS as usize)
    ))
}

/// A program with `depth` blocks inside each other, a loop innermost, and a value waiting beneath each block.
#[must_use]
pub fn deep_nesting(depth: u32) -> String {
    let mut text = String::from(
        "  (func (export \"_start\")\n    (local $i i64)\n    (local.set $i (i64.const 2000))\n",
    );
    for level in 0..depth {
        line(
            &mut text,
            &format!("(i64.const {level}) (block (result i64)"),
        );
    }
    line(&mut text, "(loop $again (result i64)");
    line(
        &mut text,
        "(drop (call $spin (i64.const 3) (local.get $i)))",
    );
    line(
        &mut text,
        "(local.set $i (i64.sub (local.get $i) (i64.const 1)))",
    );
    line(&mut text, "(br_if $again (i32.wrap_i64 (local.get $i)))");
    line(&mut text, "(call $spin (local.get $i) (i64.const 9)))");
    for _ in 0..depth {
        line(&mut text, ") (call $mix)");
    }
    line(&mut text, "(call $print))");
    program(&text)
}

fn line(text: &mut String, content: &str) {
    writeln!(text, "    {content}").expect("a String takes everything");
}

/// Adds imports, memory and the functions that the generated ones use.
fn program(functions: &str) -> String {
    format!(
        r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func $mix (param $hash i64) (param $value i64) (result i64)
    (i64.mul (i64.rotl (i64.xor (local.get $hash) (local.get $value)) (i64.const 29)) (i64.const 0x9E3779B97F4A7C15)))
  (func $spin (param $x i64) (param $y i64) (result i64)
    (local $turns i32)
    (local.set $turns (i32.const 3))
    (loop $again
      (local.set $x (call $mix (local.get $x) (local.get $y)))
      (br_if $again (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
    (local.get $x))
  (func $print (param $value i64)
    (i64.store (i32.const 16)
      (i64.or (i64.and (local.get $value) (i64.const 0x0f0f0f0f0f0f0f0f)) (i64.const 0x4040404040404040)))
    (i64.store (i32.const 24)
      (i64.or (i64.and (i64.shr_u (local.get $value) (i64.const 4)) (i64.const 0x0f0f0f0f0f0f0f0f))
        (i64.const 0x4040404040404040)))
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const 16))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
{functions})
"#
    )
}
