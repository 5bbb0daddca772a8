//! Bridges, through which clones call functions that are not exported: what they pass on is what they were given.

use crate::context::{Context, Role};
use crate::error::{Result, section};
use crate::expect::{Expect, operators};
use crate::module::Module;
use wasmparser::{BlockType, FuncType, Operator, ValType};

/// A bridge of the rewritten module.
#[derive(Clone)]
pub(crate) struct Bridge {
    /// How many arguments it passes on.
    arguments: usize,
    /// The functions of the original for which it stands, by their numbers.
    functions: Vec<u32>,
}

/// The bridges of the rewritten module, by their numbers.
pub(crate) fn read(
    context: &Context,
    original: &Module<'_>,
    main: &Module<'_>,
) -> Result<Vec<Bridge>> {
    let mut found: Vec<(usize, u32)> = context
        .roles
        .iter()
        .filter_map(|(function, role)| match role {
            Role::Bridge(number) => Some((*number, *function)),
            _ => None,
        })
        .collect();
    found.sort_unstable();
    let mut bridges = Vec::new();
    for (number, function) in found {
        let operators = operators(main, function)?;
        let mut expect = Expect {
            left: &operators,
            control: context.control,
        };
        let parameters = main.signature(function).map(|ty| ty.params().len());
        let bridge = parameters
            .and_then(|count| bridge(context, original, count.checked_sub(1)?, &mut expect));
        match bridge {
            Some(bridge) if number == bridges.len() => bridges.push(bridge),
            _ => {
                return section(
                    "code",
                    format!(
                        "bridge {number} of the rewritten module is not what it should be before its last {} instructions",
                        expect.left.len()
                    ),
                );
            }
        }
    }
    Ok(bridges)
}

/// A bridge that passes on so many arguments.
fn bridge(
    context: &Context,
    original: &Module<'_>,
    arguments: usize,
    expect: &mut Expect<'_, '_>,
) -> Option<Bridge> {
    let block = Operator::Block {
        blockty: BlockType::Empty,
    };
    let blocks = expect.left.iter().take_while(|next| **next == block);
    let count = blocks.count() as u32;
    expect.left = &expect.left[count as usize..];
    expect.get(u32::try_from(arguments).ok()?)?;
    let Operator::BrTable { targets } = expect.next()? else {
        return None;
    };
    let labels = targets.targets().chain([Ok(targets.default())]);
    let labels: Vec<u32> = labels.collect::<std::result::Result<_, _>>().ok()?;
    if !labels.into_iter().eq(0..count) {
        return None;
    }
    let mut functions = Vec::new();
    for _ in 0..count {
        expect.is(Operator::End)?;
        functions.push(call(context, original, arguments, expect)?);
        expect.is(Operator::Return)?;
    }
    expect.is(Operator::Unreachable)?;
    expect.is(Operator::End)?;
    expect.left.is_empty().then_some(Bridge {
        arguments,
        functions,
    })
}

/// Calls a function of the original with as many of the arguments as it has parameters.
fn call(
    context: &Context,
    original: &Module<'_>,
    arguments: usize,
    expect: &mut Expect<'_, '_>,
) -> Option<u32> {
    let is_call = |operator: &&Operator<'_>| matches!(operator, Operator::Call { .. });
    let Operator::Call { function_index } = expect.left.iter().find(is_call)? else {
        return None;
    };
    let Role::Original(function) = context.role(*function_index) else {
        return None;
    };
    let ty = original.signature(function)?;
    if ty.params().len() > arguments {
        return None;
    }
    for (param, ty) in (0..).zip(ty.params()) {
        expect.get(param)?;
        from_bits(expect, *ty)?;
    }
    expect.is(Operator::Call {
        function_index: *function_index,
    })?;
    match ty.results() {
        [] => expect.is(Operator::I64Const { value: 0 })?,
        [result] => to_bits(expect, *result)?,
        _ => return None,
    }
    Some(function)
}

/// What a function of a module of clones calls through a bridge, whose code is nothing else.
pub(crate) fn called_across(
    context: &Context,
    original: &Module<'_>,
    clones: &Module<'_>,
    function: u32,
) -> Result<u32> {
    let operators = operators(clones, function)?;
    let mut expect = Expect {
        left: &operators,
        control: context.control,
    };
    let ty = clones.signature(function);
    match ty.and_then(|ty| across(context, original, ty, &mut expect)) {
        Some(called) if expect.left.is_empty() => Ok(called),
        _ => section(
            "clones",
            format!(
                "function {function} of a module of clones does not call through a bridge before its last {} instructions",
                expect.left.len()
            ),
        ),
    }
}

fn across(
    context: &Context,
    original: &Module<'_>,
    ty: &FuncType,
    expect: &mut Expect<'_, '_>,
) -> Option<u32> {
    for (param, ty) in (0..).zip(ty.params()) {
        expect.get(param)?;
        to_bits(expect, *ty)?;
    }
    let mut arguments = ty.params().len();
    while let Some(Operator::I64Const { value: 0 }) = expect.left.first() {
        expect.next();
        arguments += 1;
    }
    let Operator::I32Const { value: number } = expect.next()? else {
        return None;
    };
    let Operator::Call { function_index } = expect.next()? else {
        return None;
    };
    let Role::Bridge(bridge) = context.role(function_index) else {
        return None;
    };
    match ty.results() {
        [] => expect.is(Operator::Drop)?,
        [result] => from_bits(expect, *result)?,
        _ => return None,
    }
    expect.is(Operator::End)?;
    let bridge = context.bridges.get(bridge)?;
    let called = *bridge.functions.get(usize::try_from(number).ok()?)?;
    let its = original.signature(called)?;
    let fits = its.params() == ty.params() && its.results() == ty.results();
    (fits && arguments == bridge.arguments).then_some(called)
}

fn to_bits(expect: &mut Expect<'_, '_>, ty: ValType) -> Option<()> {
    match ty {
        ValType::I32 => expect.is(Operator::I64ExtendI32U),
        ValType::I64 => Some(()),
        ValType::F32 => {
            expect.is(Operator::I32ReinterpretF32)?;
            expect.is(Operator::I64ExtendI32U)
        }
        ValType::F64 => expect.is(Operator::I64ReinterpretF64),
        ValType::V128 | ValType::Ref(_) => None,
    }
}

fn from_bits(expect: &mut Expect<'_, '_>, ty: ValType) -> Option<()> {
    match ty {
        ValType::I32 => expect.is(Operator::I32WrapI64),
        ValType::I64 => Some(()),
        ValType::F32 => {
            expect.is(Operator::I32WrapI64)?;
            expect.is(Operator::F32ReinterpretI32)
        }
        ValType::F64 => expect.is(Operator::F64ReinterpretI64),
        ValType::V128 | ValType::Ref(_) => None,
    }
}
