//! Bridges, through which clones call functions that are not exported: what they pass on is what they were given.

use crate::context::{Context, Role};
use crate::error::{Result, section};
use crate::expect::{Expect, whole};
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
        let bridge = whole(
            main,
            function,
            context.control,
            (
                "code",
                format_args!("bridge {number} of the rewritten module"),
            ),
            |expect| {
                let parameters = main.signature(function)?.params().len();
                bridge(context, original, parameters.checked_sub(1)?, expect)
            },
        )?;
        if number != bridges.len() {
            return section("exports", format!("bridge {number} is not the next one"));
        }
        bridges.push(bridge);
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
    Some(Bridge {
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
    whole(
        clones,
        function,
        context.control,
        (
            "clones",
            format_args!("what calls through a bridge, function {function},"),
        ),
        |expect| across(context, original, clones.signature(function)?, expect),
    )
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
