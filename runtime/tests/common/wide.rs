//! Modules with a function whose frames hold many values of all types.

use std::fmt::Write;

/// So many of each are alive at every safepoint of the function: locals, and operands that wait on the stack.
#[derive(Clone, Copy, Debug, Default)]
pub struct Values {
    pub i32s: u32,
    pub i64s: u32,
    pub f64s: u32,
    pub v128s: u32,
    pub functions: u32,
    pub externs: u32,
    /// Operands of type `i32`, and as many of type `i64`.
    pub operands: u32,
}

/// `go(turns)` calls, on every turn, a function that loops, then changes all values. What it returns depends on all of them.
pub fn wide(values: Values) -> String {
    let mut text = String::from(
        "(module
          (table $functions 1 funcref)
          (elem declare func $three $five $seven)
          (func $three (result i32) (i32.const 3))
          (func $five (result i32) (i32.const 5))
          (func $seven (result i32) (i32.const 7))
          (func $number (param $function funcref) (result i32)
            (table.set $functions (i32.const 0) (local.get $function))
            (call_indirect $functions (result i32) (i32.const 0)))
          (func $mix (param $x i32) (result i32) (local $i i32)
            (loop $again
              (local.set $x (i32.add (i32.rotl (local.get $x) (i32.const 5)) (local.get $i)))
              (local.set $i (i32.add (local.get $i) (i32.const 1)))
              (br_if $again (i32.lt_u (local.get $i) (i32.const 2))))
            (local.get $x))
          (func (export \"go\") (param $turns i32) (result i32) (local $mixed i32)\n",
    );
    let kinds = kinds(values);
    for kind in &kinds {
        for number in 0..kind.count {
            let (name, ty) = (kind.name, kind.ty);
            writeln!(text, "(local ${name}{number} {ty})").expect("texts take it");
        }
    }
    for kind in &kinds {
        for number in 0..kind.count {
            let (name, first) = (kind.name, (kind.first)(number));
            writeln!(text, "(local.set ${name}{number} {first})").expect("texts take it");
        }
    }
    writeln!(text, "(loop $next").expect("texts take it");
    for operand in 0..values.operands {
        writeln!(
            text,
            "(i32.add (local.get $turns) (i32.const {operand}))
             (i64.mul (i64.extend_i32_u (local.get $turns)) (i64.const {}))",
            0x1_2345_6789_u64 + u64::from(operand)
        )
        .expect("texts take it");
    }
    writeln!(
        text,
        "(local.set $mixed (call $mix (i32.xor (local.get $turns) (local.get $mixed))))"
    )
    .expect("texts take it");
    for _ in 0..values.operands {
        writeln!(
            text,
            "(i32.wrap_i64 (i64.rem_u (i64.const 1000003)))
             (local.set $mixed (i32.xor (i32.rotl (local.get $mixed) (i32.const 3))))
             (local.set $mixed (i32.add (local.get $mixed)))"
        )
        .expect("texts take it");
    }
    for kind in &kinds {
        for number in 0..kind.count {
            let name = kind.name;
            let own = format!("(local.get ${name}{number})");
            let other = format!("(local.get ${name}{})", (number + 1) % kind.count);
            writeln!(
                text,
                "(local.set ${name}{number} {})",
                (kind.next)(&own, &other)
            )
            .expect("texts take it");
        }
    }
    writeln!(
        text,
        "(br_if $next (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))"
    )
    .expect("texts take it");
    for kind in &kinds {
        for number in 0..kind.count {
            let own = format!("(local.get ${}{number})", kind.name);
            writeln!(
                text,
                "(local.set $mixed (i32.add (i32.mul (local.get $mixed) (i32.const 31)) {}))",
                (kind.folded)(&own)
            )
            .expect("texts take it");
        }
    }
    text.push_str("(local.get $mixed)))");
    text
}

/// `go(turns)`, whose frames hold nothing but 64-bit integers.
pub fn only_long() -> String {
    let mut text = String::from(
        "(module
          (func $wait (local $i i32)
            (loop $again
              (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 2)))))
          (func (export \"go\") (param $turns i32) (result i32)",
    );
    let longs = 0..30;
    text.push_str(&"(local i64)".repeat(longs.len()));
    for long in longs.clone() {
        writeln!(
            text,
            "(local.set {} (i64.mul (i64.extend_i32_u (local.get $turns)) (i64.const {})))",
            1 + long,
            (long as u64 + 1) * 0x1_2345_6789
        )
        .expect("texts take it");
    }
    for _ in 0..5 {
        text.push_str("(call $wait)\n");
        for long in longs.clone() {
            writeln!(
                text,
                "(local.set {0} (i64.add (i64.rotl (local.get {0}) (i64.const 23)) (local.get {1})))",
                1 + long,
                1 + (long + 1) % longs.len()
            )
            .expect("texts take it");
        }
    }
    text.push_str("(i64.const 0)");
    for long in longs {
        writeln!(
            text,
            "(i64.rem_u (local.get {}) (i64.const 1000003)) i64.xor (i64.const 7) i64.rotl",
            1 + long
        )
        .expect("texts take it");
    }
    text.push_str("i32.wrap_i64))");
    text
}

/// Values of a type: how they begin, what becomes of them, and what of them is a number.
struct Kind {
    name: &'static str,
    ty: &'static str,
    count: u32,
    first: fn(u32) -> String,
    next: fn(&str, &str) -> String,
    folded: fn(&str) -> String,
}

fn kinds(values: Values) -> [Kind; 6] {
    [
        Kind {
            name: "word",
            ty: "i32",
            count: values.i32s,
            first: |number| format!("(i32.const {})", number * 40503 + 1),
            next: |own, other| {
                format!(
                    "(i32.add (i32.rotl {own} (i32.const 7)) (i32.xor {other} (local.get $mixed)))"
                )
            },
            folded: str::to_owned,
        },
        Kind {
            name: "long",
            ty: "i64",
            count: values.i64s,
            first: |number| format!("(i64.const {})", u64::from(number) * 0x9_E377_9B97 + 1),
            next: |own, other| {
                format!(
                    "(i64.add (i64.rotl {own} (i64.const 21)) (i64.xor {other} (i64.extend_i32_u (local.get $mixed))))"
                )
            },
            folded: |own| format!("(i32.wrap_i64 (i64.rem_u {own} (i64.const 1000003)))"),
        },
        Kind {
            name: "float",
            ty: "f64",
            count: values.f64s,
            first: |number| format!("(f64.const {number}.25)"),
            next: |own, other| {
                format!(
                    "(f64.add (f64.mul {own} (f64.const 0.5)) (f64.sub (f64.convert_i32_s (local.get $mixed)) {other}))"
                )
            },
            folded: |own| {
                format!(
                    "(i32.wrap_i64 (i64.rem_u (i64.reinterpret_f64 {own}) (i64.const 1000003)))"
                )
            },
        },
        Kind {
            name: "vector",
            ty: "v128",
            count: values.v128s,
            first: |number| format!("(v128.const i32x4 {number} 2 3 4)"),
            next: |own, other| {
                format!(
                    "(i32x4.add (i32x4.mul {own} (v128.const i32x4 3 5 7 9)) (v128.xor {other} (i32x4.splat (local.get $mixed))))"
                )
            },
            folded: |own| {
                format!(
                    "(i32.xor (i32x4.extract_lane 0 {own}) (i32.rotl (i32x4.extract_lane 3 {own}) (i32.const 9)))"
                )
            },
        },
        Kind {
            name: "function",
            ty: "funcref",
            count: values.functions,
            first: |number| {
                let name = ["three", "five", "seven"][number as usize % 3];
                format!("(ref.func ${name})")
            },
            next: |own, other| {
                format!(
                    "(select (result funcref) {own} {other} (i32.and (local.get $mixed) (i32.const 4)))"
                )
            },
            folded: |own| format!("(call $number {own})"),
        },
        Kind {
            name: "extern",
            ty: "externref",
            count: values.externs,
            first: |_| "(ref.null extern)".into(),
            next: |own, _| own.to_owned(),
            folded: |own| format!("(ref.is_null {own})"),
        },
    ]
}

/// Frames around what can be staged of each type, with values of each type behind.
pub fn around_the_limits() -> Vec<Values> {
    let values = Values {
        f64s: 3,
        v128s: 2,
        operands: 2,
        ..Values::default()
    };
    let mut all = Vec::new();
    for around in 0..6 {
        // Beside these are the number of turns, the sum and the operands.
        all.push(Values {
            i32s: 58 + around,
            i64s: 28 + around,
            ..values
        });
        // References are what comes last, and what does not fit.
        all.push(Values {
            i32s: 20,
            i64s: 1,
            functions: 36 + around,
            externs: 3,
            ..values
        });
    }
    all.push(Values {
        i32s: 140,
        i64s: 70,
        functions: 5,
        ..values
    });
    all.push(Values {
        f64s: 40,
        v128s: 10,
        ..Values::default()
    });
    all
}
