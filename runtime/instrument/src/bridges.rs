//! Bridges: how clones call functions of the program that are not exported.
//!
//! What clones call is in another module than they, and for each function that another module can see compilers add an entry, which
//! takes as long to compile as many of the functions themselves. So only functions that some loop calls, unless they are long, are exported one by
//! one. All others are called through a bridge: a function that stands for up to [`BRIDGED_MAX`] of them, and is given the number of the
//! one that is meant.
//!
//! ```text
//! bridge(argument0: i64, …, number: i32) -> i64
//! ```
//!
//! Arguments and results are bits: 32-bit integers are extended, floating-point numbers reinterpreted. A module of clones has, for each
//! function that it calls so, one of the function's own type that calls the bridge, so that the code of clones is the same.

use crate::emit::main_function;
use crate::module::Module;
use crate::plan::Plan;
use crate::scan::Summary;
use std::collections::HashSet;
use wasm_encoder as enc;
use wasmparser::ValType;

/// A bridge stands for so many functions at most.
const BRIDGED_MAX: usize = 64;
/// For fewer functions a bridge is not worth it.
const BRIDGED_MIN: usize = 4;
/// Loops that call functions of fewer instructions could feel the way over a bridge, some nanoseconds.
const SHORT: u32 = 500;
/// Functions with more parameters are exported.
const PARAMETERS_MAX: usize = 8;

/// The functions that clones may call, by their indices in the original module, ascending: whatever functions with safepoints call, and
/// the host's.
pub(crate) fn called_by_clones(
    module: &Module<'_>,
    plan: &Plan,
    summaries: &[Summary],
) -> Vec<u32> {
    let mut called: Vec<u32> = rewritten(module, plan, summaries)
        .flat_map(|summary| summary.callees.iter().chain(&summary.tail_callees))
        .copied()
        .chain(0..module.imported_functions)
        .collect();
    called.sort_unstable();
    called.dedup();
    called
}

fn rewritten<'s>(
    module: &Module<'_>,
    plan: &'s Plan,
    summaries: &'s [Summary],
) -> impl Iterator<Item = &'s Summary> {
    (module.imported_functions..)
        .zip(summaries)
        .filter(|(function, _)| plan.decision(*function).rewritten)
        .map(|(_, summary)| summary)
}

/// Chooses the functions that clones call through bridges, by their indices in the original module: those with few parameters
/// first, so that bridges have no more than they need. `called` are all that they may call, `referenced` those that other modules can see
/// anyway.
pub(crate) fn choose(
    module: &Module<'_>,
    plan: &Plan,
    summaries: &[Summary],
    called: &[u32],
    referenced: &[u32],
) -> Vec<u32> {
    // The host's functions are not: beside what they do the way over a bridge is not felt.
    let is_short = |function: u32| {
        let summary = function
            .checked_sub(module.imported_functions)
            .map(|defined| &summaries[defined as usize]);
        summary.is_some_and(|summary| summary.instructions < SHORT)
    };
    let direct: HashSet<u32> = rewritten(module, plan, summaries)
        .flat_map(|summary| &summary.callees_in_loops)
        .filter(|function| is_short(**function))
        .chain(referenced)
        .chain(&module.start)
        .copied()
        .collect();
    let mut bridged: Vec<u32> = called
        .iter()
        .copied()
        .filter(|function| !direct.contains(function) && can_be_bridged(module, *function))
        .collect();
    if bridged.len() < BRIDGED_MIN {
        return Vec::new();
    }
    bridged.sort_unstable_by_key(|function| order(module, *function));
    bridged
}

/// The place of a function among those that have bridges: by the number of parameters, then by index.
fn order(module: &Module<'_>, function: u32) -> (usize, u32) {
    (module.function_type(function).params().len(), function)
}

/// Whether functions, which exist, could have been chosen so.
pub(crate) fn are_chosen(module: &Module<'_>, bridged: &[u32]) -> bool {
    let are_in_order = |pair: &[u32]| order(module, pair[0]) < order(module, pair[1]);
    bridged.windows(2).all(are_in_order)
        && bridged
            .iter()
            .all(|function| can_be_bridged(module, *function))
}

/// Whether all that a function takes and gives is bits, and not too many of them.
fn can_be_bridged(module: &Module<'_>, function: u32) -> bool {
    let ty = module.function_type(function);
    let are_bits = |types: &[ValType]| {
        types
            .iter()
            .all(|ty| !matches!(ty, ValType::V128 | ValType::Ref(_)))
    };
    ty.params().len() <= PARAMETERS_MAX
        && ty.results().len() <= 1
        && are_bits(ty.params())
        && are_bits(ty.results())
}

/// For how many functions a bridge stands, the last one perhaps for fewer, if there are so many in all.
fn length(count: usize) -> usize {
    count.div_ceil(count.div_ceil(BRIDGED_MAX).max(1)).max(1)
}

/// The functions of each bridge.
pub(crate) fn bridges(bridged: &[u32]) -> impl Iterator<Item = &[u32]> {
    bridged.chunks(length(bridged.len()))
}

/// The bridge that has `function`, and its number there, if it has one.
pub(crate) fn find(module: &Module<'_>, bridged: &[u32], function: u32) -> Option<(usize, u32)> {
    let key = order(module, function);
    let place = bridged
        .binary_search_by_key(&key, |function| order(module, *function))
        .ok()?;
    let length = length(bridged.len());
    Some((place / length, (place % length) as u32))
}

/// How many arguments the bridge for `functions` passes on.
pub(crate) fn arguments(module: &Module<'_>, functions: &[u32]) -> usize {
    let counts = functions
        .iter()
        .map(|function| module.function_type(*function).params().len());
    counts.max().unwrap_or(0)
}

/// The parameters of a bridge that passes on so many arguments.
pub(crate) fn parameters(arguments: usize) -> Vec<enc::ValType> {
    let mut parameters = vec![enc::ValType::I64; arguments];
    parameters.push(enc::ValType::I32);
    parameters
}

/// The body of the bridge for `functions` that passes on so many `arguments`.
pub(crate) fn bridge(module: &Module<'_>, functions: &[u32], arguments: usize) -> Vec<u8> {
    let number = arguments as u32;
    let last = functions.len() as u32 - 1;
    let mut function = enc::Function::new([]);
    let mut sink = function.instructions();
    for _ in functions {
        sink.block(enc::BlockType::Empty);
    }
    sink.local_get(number)
        .br_table((0..last).collect::<Vec<_>>(), last);
    for function in functions {
        let ty = module.function_type(*function);
        sink.end();
        for (param, ty) in (0..).zip(ty.params()) {
            sink.local_get(param);
            from_bits(&mut sink, *ty);
        }
        sink.call(main_function(module, *function));
        match ty.results().first() {
            Some(result) => to_bits(&mut sink, *result),
            None => {
                sink.i64_const(0);
            }
        }
        sink.return_();
    }
    sink.unreachable().end();
    function.into_raw_body()
}

/// The body of a function of the type of `function` that calls it through function `bridge`, which has it under `number` and passes
/// on so many `arguments`.
pub(crate) fn across(
    module: &Module<'_>,
    function: u32,
    bridge: u32,
    number: u32,
    arguments: usize,
) -> Vec<u8> {
    let ty = module.function_type(function);
    let mut function = enc::Function::new([]);
    let mut sink = function.instructions();
    for (param, ty) in (0..).zip(ty.params()) {
        sink.local_get(param);
        to_bits(&mut sink, *ty);
    }
    for _ in ty.params().len()..arguments {
        sink.i64_const(0);
    }
    sink.i32_const(number as i32).call(bridge);
    match ty.results().first() {
        Some(result) => from_bits(&mut sink, *result),
        None => {
            sink.drop();
        }
    }
    sink.end();
    function.into_raw_body()
}

fn to_bits(sink: &mut enc::InstructionSink<'_>, ty: ValType) {
    match ty {
        ValType::I32 => sink.i64_extend_i32_u(),
        ValType::F32 => sink.i32_reinterpret_f32().i64_extend_i32_u(),
        ValType::F64 => sink.i64_reinterpret_f64(),
        // They are bits; functions with other types have no bridge.
        ValType::I64 | ValType::V128 | ValType::Ref(_) => sink,
    };
}

fn from_bits(sink: &mut enc::InstructionSink<'_>, ty: ValType) {
    match ty {
        ValType::I32 => sink.i32_wrap_i64(),
        ValType::F32 => sink.i32_wrap_i64().f32_reinterpret_i32(),
        ValType::F64 => sink.f64_reinterpret_i64(),
        ValType::I64 | ValType::V128 | ValType::Ref(_) => sink,
    };
}
