//! Modules made by wasm-smith from a seed, or from the bytes of a fuzzer.

use crate::driver::{Driven, DriverCall, constant, with_driver};
use crate::library;
use crate::random::Random;
use arbitrary::Unstructured;
use wasm_smith::{Config, InstructionKind, InstructionKinds, MemoryOffsetChoices};
use wasmparser::ExternalKind;
use wsnap_instrument::Module;

/// How many loops and calls a step may execute before an exception or a trap ends it.
const FUEL: u32 = 100;
/// Of how many functions a library function chooses one to call back.
const CALLBACKS: usize = 6;
/// How many calls a program makes at most.
const CALLS: usize = 24;

/// What a seed decides beside the module's content.
struct Choices {
    /// Whether the module may have typed function references, and with them types that are refused.
    typed_references: bool,
    /// Whether it may use atomics, which not every target can execute.
    atomics: bool,
    /// What functions consist of.
    instructions: Instructions,
    /// Whether `unreachable` and running out of fuel throw an exception, which the program may catch, or trap.
    fuel_throws: bool,
}

/// Kinds of instructions: the fewer, the more of them are calls and loops.
enum Instructions {
    All,
    Control,
    Integer,
}

impl Choices {
    fn of(seed: u64) -> Self {
        let instructions = match seed % 7 {
            0 | 1 => Instructions::All,
            2..=4 => Instructions::Control,
            _ => Instructions::Integer,
        };
        Self {
            typed_references: seed.is_multiple_of(8),
            atomics: seed.is_multiple_of(5),
            instructions,
            fuel_throws: !seed.is_multiple_of(4),
        }
    }
}

fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..length.div_ceil(8))
        .flat_map(|_| random.next().to_le_bytes())
        .collect()
}

fn base(choices: &Choices) -> Config {
    use InstructionKind::*;
    let kinds: &[InstructionKind] = match choices.instructions {
        Instructions::All => &[
            Numeric, Vector, Reference, Parametric, Variable, Table, Memory, Control, Aggregate,
        ],
        Instructions::Control => &[Parametric, Variable, Control, Reference],
        Instructions::Integer => &[
            NumericInt, Parametric, Variable, Table, MemoryInt, Control, Reference,
        ],
    };
    Config {
        allowed_instructions: InstructionKinds::new(kinds),
        gc_enabled: choices.typed_references,
        threads_enabled: choices.atomics,
        max_memories: 4,
        max_tables: 4,
        max_nesting_depth: 20,
        min_funcs: 1,
        min_exports: 1,
        ..Config::default()
    }
}

/// Any module that the engine accepts, with imports and all; none if the seed leads nowhere.
#[must_use]
pub fn any_module(seed: u64) -> Option<Vec<u8>> {
    let choices = Choices::of(seed);
    let bytes = bytes(seed, 20_000);
    let mut input = Unstructured::new(&bytes);
    let config = Config {
        max_types: if choices.typed_references { 6 } else { 20 },
        min_types: 1,
        max_imports: 10,
        min_funcs: 4,
        max_funcs: 20,
        max_instructions: 600,
        max_data_segments: 8,
        max_element_segments: 8,
        max_globals: 10,
        ..base(&choices)
    };
    Some(wasm_smith::Module::new(config, &mut input).ok()?.to_bytes())
}

/// A program that needs nothing, ends by itself and has a driver; none if the module is refused, or the seed leads nowhere.
#[must_use]
pub fn of_seed(seed: u64) -> Option<Driven> {
    of_bytes(seed, &bytes(seed, 16_000))
}

/// As [`of_seed`], with the content from elsewhere.
#[must_use]
pub fn of_bytes(seed: u64, bytes: &[u8]) -> Option<Driven> {
    let choices = Choices::of(seed);
    let mut input = Unstructured::new(bytes);
    let mut module = wasm_smith::Module::new(config(seed, &choices), &mut input).ok()?;
    let fuel = module.ensure_termination(FUEL).ok()?;
    let wasm = module.to_bytes();
    let parsed = Module::parse(&wasm).ok()?;
    let mut random = Random::new(!seed);
    let wasm = link(&wasm, &parsed, &choices, &mut random);
    let parsed = Module::parse(&wasm).ok()?;
    let mut calls = some_calls(&parsed, &mut random);
    calls.extend(some_calls(&parsed, &mut random));
    calls.truncate(CALLS);
    let refuel = format!("i32.const {FUEL} global.set {fuel}");
    Some(with_driver(&wasm, |text| text, &refuel, &calls))
}

fn config(seed: u64, choices: &Choices) -> Config {
    let library = wat::parse_str(library::IMPORTS).expect("the library is a module");
    Config {
        available_imports: (!seed.is_multiple_of(9)).then_some(library),
        max_imports: if seed.is_multiple_of(9) { 0 } else { 16 },
        max_types: if choices.typed_references { 4 } else { 12 },
        min_types: 1,
        min_funcs: 3,
        max_funcs: 22,
        max_instructions: 120,
        max_data_segments: 4,
        max_element_segments: 5,
        max_globals: 8,
        max_memory32_bytes: 4 << 16,
        max_memory64_bytes: 4 << 16,
        memory_max_size_required: true,
        memory_offset_choices: MemoryOffsetChoices(90, 9, 1),
        min_memories: u32::from(!seed.is_multiple_of(3)),
        min_tables: u32::from(!seed.is_multiple_of(3)),
        min_element_segments: 1,
        max_table_elements: 40,
        table_max_size_required: true,
        export_everything: true,
        disallow_traps: seed % 4 != 2,
        allow_start_export: seed.is_multiple_of(7),
        ..base(choices)
    }
}

/// Defines what the module imports of the library, and makes it throw where it would trap if so chosen.
fn link(wasm: &[u8], parsed: &Module<'_>, choices: &Choices, random: &mut Random) -> Vec<u8> {
    let mut text = wasmprinter::print_bytes(wasm).expect("a valid module can be printed");
    if choices.fuel_throws {
        text = throwing(&text);
    }
    let mut callbacks = some_calls(parsed, random);
    callbacks.retain(|call| !parsed.is_imported_function(call.function));
    callbacks.truncate(CALLBACKS);
    let text = library::link(&text, parsed, &callbacks);
    wat::parse_str(text).expect("the library fits the module")
}

/// One call of each function that can be called.
fn some_calls(module: &Module<'_>, random: &mut Random) -> Vec<DriverCall> {
    exported_functions(module)
        .into_iter()
        .filter_map(|function| call(module, function, random))
        .collect()
}

/// Throws, instead of trapping, where fuel has run out or the program gives up.
fn throwing(text: &str) -> String {
    let body = text.trim_end().strip_suffix(')').unwrap_or(text);
    let lines = body.lines().map(|line| {
        if line.trim() == "unreachable" {
            "throw $driver-fuel"
        } else {
            line
        }
    });
    let body: Vec<&str> = lines.collect();
    format!(
        "{}\n  (type $driver-fuel-type (func)) (tag $driver-fuel (type $driver-fuel-type)))",
        body.join("\n")
    )
}

/// A call with arguments that are often special; none if a parameter takes only references that are not null.
fn call(module: &Module<'_>, function: u32, random: &mut Random) -> Option<DriverCall> {
    let (params, _) = module.signature(function)?;
    if params.iter().any(|ty| constant(*ty, 0).is_none()) {
        return None;
    }
    let arguments = params.iter().map(|_| {
        let any = random.next();
        let low = [0, 1, u64::MAX, i64::MIN as u64, any, any & 0xff][random.below(6) as usize];
        u128::from(low) | u128::from(any) << 64
    });
    Some(DriverCall {
        function,
        arguments: arguments.collect(),
    })
}

/// The functions that the module exports, by index, each once.
fn exported_functions(module: &Module<'_>) -> Vec<u32> {
    let functions = module
        .exports()
        .iter()
        .filter(|export| matches!(export.kind, ExternalKind::Func | ExternalKind::FuncExact));
    let mut functions: Vec<u32> = functions.map(|export| export.index).collect();
    functions.sort_unstable();
    functions.dedup();
    functions
}
