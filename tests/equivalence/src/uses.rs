//! What a program does when it runs, found by counting instructions in its text.

use crate::driver::{DRIVER, Driven, THREW};
use std::fmt::Write;

/// Kinds of behaviour, and how the instructions begin whose execution shows them.
const KINDS: &[(&str, &[&str])] = &[
    ("calls", &["call "]),
    ("calls indirectly", &["call_indirect"]),
    ("calls a reference", &["call_ref"]),
    ("tail calls", &["return_call"]),
    ("throws", &["throw"]),
    ("tries", &["try_table"]),
    ("grows a memory", &["memory.grow"]),
    ("grows a table", &["table.grow"]),
    (
        "moves memory",
        &["memory.copy", "memory.fill", "memory.init"],
    ),
    ("reads or writes a table", &["table.get", "table.set"]),
    (
        "moves elements",
        &["table.copy", "table.fill", "table.init"],
    ),
    ("drops a segment", &["data.drop", "elem.drop"]),
    ("references a function", &["ref.func"]),
    (
        "computes vectors",
        &[
            "v128.", "i8x16.", "i16x8.", "i32x4.", "i64x2.", "f32x4.", "f64x2.",
        ],
    ),
    ("computes floats", &["f32.", "f64."]),
    (ATOMICS, &["i32.atomic", "i64.atomic", "memory.atomic"]),
];

const ATOMICS: &str = "atomics";
/// Kinds that follow from several counts.
const ROUND: &str = "goes round a loop";
const CATCHES: &str = "catches";

/// What functions of the driver are named.
const DRIVER_FUNCTION: &str = "(func $driver-";

/// All kinds of behaviour but those that need something that not every target has.
pub fn common() -> impl Iterator<Item = &'static str> {
    let counted = KINDS.iter().map(|(kind, _)| *kind);
    counted
        .filter(|kind| *kind != ATOMICS)
        .chain([ROUND, CATCHES])
}

/// Kinds of behaviour that a program shows in a bare run. Instructions of its driver do not count.
///
/// # Panics
///
/// When the module is not valid.
#[must_use]
pub fn of(driven: &Driven, engine: &wasmtime::Engine) -> Vec<&'static str> {
    let text = wasmprinter::print_bytes(&driven.wasm).expect("a valid module can be printed");
    let wasm = wat::parse_str(counting(&text)).expect("any instruction can be counted");
    let module = wasmtime::Module::from_binary(engine, &wasm).expect("the engine takes the module");
    let mut store = wasmtime::Store::new(engine, ());
    let Ok(instance) = wasmtime::Instance::new(&mut store, &module, &[]) else {
        return Vec::new();
    };
    let driver = instance
        .get_typed_func::<(u32, u32), ()>(&mut store, DRIVER)
        .expect("the module has a driver");
    // However it ends, counts remain.
    let _ = driver.call(&mut store, (0, driven.steps));
    let mut count = |counter: &str| {
        let global = instance.get_global(&mut store, counter);
        global.map_or(0, |global| global.get(&mut store).unwrap_i32())
    };
    let kinds = KINDS.iter().map(|(kind, _)| *kind);
    let mut found: Vec<_> = kinds.filter(|kind| count(kind) > 0).collect();
    if count("turns") > count("loops") {
        found.push(ROUND);
    }
    if count("throws") > count("threw") {
        found.push(CATCHES);
    }
    found
}

/// The text with a counter before each instruction of a kind.
fn counting(text: &str) -> String {
    let mut counting = String::new();
    let mut of_driver = false;
    for line in text.lines() {
        let instruction = line.trim_start();
        if instruction.starts_with("(func ") {
            of_driver = instruction.starts_with(DRIVER_FUNCTION);
        }
        if of_driver {
            if instruction.starts_with(&format!("i32.const {THREW}")) {
                count(&mut counting, "threw");
            }
            line_to(&mut counting, line);
            continue;
        }
        for (kind, starts) in KINDS {
            if starts.iter().any(|start| instruction.starts_with(start)) {
                count(&mut counting, kind);
            }
        }
        let is_loop = instruction.starts_with("loop");
        if is_loop {
            count(&mut counting, "loops");
        }
        line_to(&mut counting, line);
        if is_loop {
            count(&mut counting, "turns");
        }
    }
    let body = counting
        .trim_end()
        .strip_suffix(')')
        .expect("a module ends in a parenthesis");
    let others = ["loops", "turns", "threw"];
    let names = KINDS.iter().map(|(kind, _)| *kind).chain(others);
    let globals = names.map(|name| {
        format!(
            "(global {} (export \"{name}\") (mut i32) (i32.const 0))\n",
            id(name)
        )
    });
    let globals: String = globals.collect();
    format!("{body}{globals})")
}

fn line_to(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a String takes everything");
}

fn count(text: &mut String, name: &str) {
    let id = id(name);
    line_to(
        text,
        &format!("global.get {id} i32.const 1 i32.add global.set {id}"),
    );
}

fn id(name: &str) -> String {
    format!("$uses-{}", name.replace(' ', "-"))
}
