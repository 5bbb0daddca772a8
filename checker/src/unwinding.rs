//! Which functions may come back unwinding, and which of them functions with safepoints call, from the rewritten code alone; and
//! that chains of tail calls pass safepoints.

use crate::context::{Context, Role};
use crate::error::{Result, section};
use crate::module::Module;
use std::collections::HashMap;
use wasmparser::Operator;

/// What matters of a function of the rewritten module.
#[derive(Default)]
struct Function {
    has_safepoint: bool,
    /// Its first instructions are a safepoint.
    polls_entry: bool,
    calls: Vec<u32>,
    calls_unknown: bool,
    tail_calls: Vec<u32>,
    tail_calls_unknown: bool,
}

fn scan(context: &Context, main: &Module<'_>, function: u32) -> Result<Function> {
    let mut found = Function::default();
    let Some(body) = main.body(function) else {
        return Ok(found);
    };
    // Pads lie behind blocks around the whole body.
    let mut at_entry = 0;
    for operator in body.get_operators_reader()? {
        let operator = operator?;
        if !matches!(operator, Operator::Block { .. }) || at_entry > 0 {
            at_entry += 1;
        }
        match operator {
            Operator::Call { function_index } => {
                if let Role::Original(callee) = context.role(function_index) {
                    found.calls.push(callee);
                }
            }
            // `i32.const 0, i32.load`, which begins the function.
            Operator::I32Load { memarg } if memarg.memory == context.request => {
                found.has_safepoint = true;
                found.polls_entry |= at_entry == 2;
            }
            Operator::ReturnCall { function_index } => {
                if let Role::Original(callee) = context.role(function_index) {
                    found.tail_calls.push(callee);
                }
            }
            Operator::CallIndirect { .. } | Operator::CallRef { .. } => found.calls_unknown = true,
            Operator::ReturnCallIndirect { .. } | Operator::ReturnCallRef { .. } => {
                found.tail_calls_unknown = true;
            }
            _ => {}
        }
    }
    Ok(found)
}

/// By index in the original.
pub(crate) struct Functions {
    /// Calls of the function may come back unwinding.
    pub unwinding: Vec<bool>,
    /// A function with safepoints calls it, so that clones can, or it is the host's.
    pub called_by_clones: Vec<bool>,
}

/// Finds both for all functions of the original.
pub(crate) fn find(
    context: &Context,
    original: &Module<'_>,
    main: &Module<'_>,
) -> Result<Functions> {
    let imported = original.imported_functions;
    let count = original.function_count();
    let functions: Vec<Function> = (imported..count)
        .map(|function| scan(context, main, function))
        .collect::<Result<_>>()?;
    let mut unwinding = vec![true; imported as usize];
    unwinding.extend(functions.iter().map(|function| {
        function.has_safepoint || function.calls_unknown || function.tail_calls_unknown
    }));
    let mut callers: HashMap<u32, Vec<u32>> = HashMap::new();
    for (function, found) in (imported..).zip(&functions) {
        for callee in found.calls.iter().chain(&found.tail_calls) {
            callers.entry(*callee).or_default().push(function);
        }
    }
    let mut found: Vec<u32> = (0..count)
        .filter(|index| unwinding[*index as usize])
        .collect();
    while let Some(function) = found.pop() {
        for caller in callers.remove(&function).unwrap_or_default() {
            if !std::mem::replace(&mut unwinding[caller as usize], true) {
                found.push(caller);
            }
        }
    }
    refuse_silent_chains(imported, &functions)?;
    let mut called = vec![false; count as usize];
    called[..imported as usize].fill(true);
    for found in functions.iter().filter(|found| found.has_safepoint) {
        for callee in found.calls.iter().chain(&found.tail_calls) {
            called[*callee as usize] = true;
        }
    }
    Ok(Functions {
        unwinding,
        called_by_clones: called,
    })
}

/// Tail calls that could follow one another for ever must pass a safepoint at the entry of some function.
fn refuse_silent_chains(imported: u32, functions: &[Function]) -> Result<()> {
    let silent = |function: u32| {
        let function = function.checked_sub(imported)? as usize;
        functions.get(function).filter(|found| !found.polls_entry)
    };
    for (function, found) in (imported..).zip(functions) {
        if found.tail_calls_unknown && !found.polls_entry {
            return section(
                "code",
                format!(
                    "function {function} calls any function in tail position without a safepoint"
                ),
            );
        }
    }
    // Depth first, callees before callers: a function that is met while it is being looked at is on a cycle.
    let mut state = vec![0u8; functions.len()];
    for root in 0..functions.len() {
        let mut path = vec![(root, 0usize)];
        while let Some((function, next)) = path.pop() {
            let index = imported + function as u32;
            if next == 0 {
                if state[function] == 2 || silent(index).is_none() {
                    continue;
                }
                state[function] = 1;
            }
            match functions[function].tail_calls.get(next) {
                None => state[function] = 2,
                Some(callee) => {
                    path.push((function, next + 1));
                    if silent(*callee).is_some() {
                        let callee = (*callee - imported) as usize;
                        if state[callee] == 1 {
                            return section(
                                "code",
                                format!(
                                    "function {index} is on a cycle of tail calls without a safepoint"
                                ),
                            );
                        }
                        path.push((callee, 0));
                    }
                }
            }
        }
    }
    Ok(())
}
