//! Modules made by wasm-smith from a seed.

use crate::driver::{DriverCall, with_driver};
use crate::random::Random;
use arbitrary::Unstructured;
use wasm_smith::{Config, InstructionKind, InstructionKinds};
use wasmparser::{AbstractHeapType, ExternalKind, HeapType, RefType, UnpackedIndex, ValType};
use wsnap_instrument::Module;

/// How many loops and calls a program may execute before an exception or a trap ends it.
const FUEL: u32 = 300;

/// What a seed decides beside the module's content.
pub struct Choices {
    /// Whether the module may have typed function references, and with them types that are refused.
    pub typed_references: bool,
    /// Whether it may use atomics, which not every target can execute.
    pub atomics: bool,
    /// What functions consist of.
    instructions: Instructions,
    /// Whether `unreachable` and running out of fuel throw an exception, which the program may catch, or trap.
    pub fuel_throws: bool,
}

/// Kinds of instructions: the fewer, the more of them are calls and loops.
enum Instructions {
    All,
    Control,
    Integer,
}

impl Choices {
    pub fn of(seed: u64) -> Self {
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

/// A program that needs nothing, ends by itself and can be run by its driver; none if the module is refused, or the seed leads
/// nowhere.
pub fn program(seed: u64) -> Option<Vec<u8>> {
    let choices = Choices::of(seed);
    let bytes = bytes(seed, 16_000);
    let mut input = Unstructured::new(&bytes);
    let config = Config {
        max_imports: 0,
        max_types: if choices.typed_references { 4 } else { 12 },
        min_types: 1,
        min_funcs: 3,
        max_funcs: 12,
        max_instructions: 120,
        max_data_segments: 4,
        max_element_segments: 5,
        max_globals: 8,
        max_memory32_bytes: 4 << 16,
        max_memory64_bytes: 4 << 16,
        memory_max_size_required: true,
        max_table_elements: 40,
        table_max_size_required: true,
        export_everything: true,
        disallow_traps: seed % 4 != 2,
        allow_start_export: seed.is_multiple_of(7),
        ..base(&choices)
    };
    let mut module = wasm_smith::Module::new(config, &mut input).ok()?;
    module
        .ensure_termination(FUEL)
        .expect("all functions can be changed");
    let wasm = module.to_bytes();
    let parsed = Module::parse(&wasm).ok()?;
    let mut random = Random::new(!seed);
    let mut calls: Vec<DriverCall> = Vec::new();
    for _ in 0..2 {
        calls.extend(
            exported_functions(&parsed)
                .into_iter()
                .filter_map(|function| call(&parsed, function, &mut random)),
        );
    }
    let throw = |text: String| {
        if choices.fuel_throws {
            throwing(&text)
        } else {
            text
        }
    };
    Some(with_driver(&wasm, throw, &calls))
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

/// A call with arguments that are often special.
fn call(module: &Module<'_>, function: u32, random: &mut Random) -> Option<DriverCall> {
    let (params, _) = module.signature(function)?;
    if !params.iter().all(|ty| can_be_given(*ty)) {
        return None;
    }
    let arguments = params.iter().map(|ty| {
        let any = random.next();
        let value = [0, 1, u64::MAX, i64::MIN as u64, any, any & 0xff][random.below(6) as usize];
        match ty {
            ValType::I32 => format!("i32.const {}", value as i32),
            ValType::I64 => format!("i64.const {}", value as i64),
            ValType::F32 => format!("i32.const {} f32.reinterpret_i32", value as i32),
            ValType::F64 => format!("i64.const {} f64.reinterpret_i64", value as i64),
            ValType::V128 => format!("v128.const i64x2 {} {}", value as i64, any as i64),
            ValType::Ref(reference) => null(*reference).unwrap_or_default(),
        }
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

/// The text of a heap type.
fn heap_type(ty: HeapType) -> Option<String> {
    use AbstractHeapType as Abstract;
    Some(match ty {
        HeapType::Abstract { ty, .. } => match ty {
            Abstract::Func => "func".into(),
            Abstract::NoFunc => "nofunc".into(),
            Abstract::Extern => "extern".into(),
            Abstract::NoExtern => "noextern".into(),
            Abstract::Exn => "exn".into(),
            Abstract::NoExn => "noexn".into(),
            _ => return None,
        },
        HeapType::Concrete(UnpackedIndex::Module(index)) => index.to_string(),
        HeapType::Concrete(_) | HeapType::Exact(_) => return None,
    })
}

/// The instruction that gives null of a type, if null is of it.
fn null(ty: RefType) -> Option<String> {
    let heap_type = heap_type(ty.heap_type())?;
    ty.is_nullable().then(|| format!("ref.null {heap_type}"))
}

/// Whether the driver can give arguments of type `ty`.
fn can_be_given(ty: ValType) -> bool {
    match ty {
        ValType::Ref(reference) => null(reference).is_some(),
        _ => true,
    }
}
