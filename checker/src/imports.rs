//! Calls of the host: the wrappers through which they are made, and the clones that make them again.

use crate::context::{Context, Role};
use crate::control;
use crate::error::Result;
use crate::expect::{Expect, whole};
use crate::module::Module;
use wasmparser::{Operator, ValType};

/// Bytes of the arguments in a frame.
fn arguments_size(params: &[ValType]) -> u32 {
    params.iter().map(|ty| control::size(*ty)).sum()
}

/// The wrapper passes its arguments on, and saves them when the host wants the call to be made again.
pub(crate) fn verify_wrapper(
    context: &Context,
    original: &Module<'_>,
    main: &Module<'_>,
    import: u32,
) -> Result<()> {
    whole(
        main,
        original.function_count() + import,
        context.control,
        ("code", format_args!("the wrapper of import {import}")),
        |expect| wrapper(context, original, import, expect),
    )
}

fn wrapper(
    context: &Context,
    original: &Module<'_>,
    import: u32,
    expect: &mut Expect<'_, '_>,
) -> Option<()> {
    let ty = original.signature(import)?;
    let (params, results) = (ty.params(), ty.results());
    for param in 0..params.len() as u32 {
        expect.get(param)?;
    }
    expect.is(Operator::Call {
        function_index: import,
    })?;
    let frame = params.len() as u32;
    for result in (0..results.len() as u32).rev() {
        expect.is(Operator::LocalSet {
            local_index: frame + 1 + result,
        })?;
    }
    expect.is(Operator::I32Const { value: 0 })?;
    expect.loads_word(control::REQUEST_WORD)?;
    expect.is(Operator::I32Const {
        value: control::CALL_CUT_SHORT,
    })?;
    expect.is(Operator::I32And)?;
    expect.is(Operator::If {
        blockty: wasmparser::BlockType::Empty,
    })?;
    let size = (control::SAVED_VALUES + arguments_size(params)) as i32;
    expect.is(Operator::I32Const { value: size })?;
    let Operator::Call { function_index } = expect.next()? else {
        return None;
    };
    if context.role(function_index) != Role::Safepoint {
        return None;
    }
    expect.is(Operator::LocalTee { local_index: frame })?;
    expect.is(Operator::I64Const {
        value: i64::from(import),
    })?;
    expect.accesses(0, |operator| match operator {
        Operator::I64Store { memarg } => Some(*memarg),
        _ => None,
    })?;
    // The size, and that nothing was staged.
    expect.get(frame)?;
    expect.is(Operator::I64Const {
        value: i64::from(size) << 32,
    })?;
    expect.accesses(control::SAVED_SITE, |operator| match operator {
        Operator::I64Store { memarg } => Some(*memarg),
        _ => None,
    })?;
    let mut offset = control::SAVED_VALUES;
    for (param, ty) in (0..).zip(params) {
        expect.get(frame)?;
        expect.get(param)?;
        expect.stores(context, *ty, offset)?;
        offset += control::size(*ty);
    }
    loop {
        match expect.next()? {
            Operator::Return => break,
            Operator::I32Const { .. }
            | Operator::I64Const { .. }
            | Operator::F32Const { .. }
            | Operator::F64Const { .. }
            | Operator::V128Const { .. }
            | Operator::RefNull { .. }
            | Operator::RefFunc { .. }
            | Operator::RefI31
            | Operator::ExternConvertAny
            | Operator::Unreachable => {}
            _ => return None,
        }
    }
    expect.is(Operator::End)?;
    for result in 0..results.len() as u32 {
        expect.get(frame + 1 + result)?;
        if let Some(Operator::RefAsNonNull) = expect.left.first() {
            expect.next();
        }
    }
    expect.is(Operator::End)
}

/// The clone of an imported function takes the arguments out of the frame and calls the wrapper in its place.
pub(crate) fn verify_call_again(
    context: &Context,
    original: &Module<'_>,
    clones: &Module<'_>,
    import: u32,
    function: u32,
) -> Result<()> {
    whole(
        clones,
        function,
        context.control,
        ("clones", format_args!("the clone of import {import}")),
        |expect| call_again(context, original, import, expect),
    )
}

fn call_again(
    context: &Context,
    original: &Module<'_>,
    import: u32,
    expect: &mut Expect<'_, '_>,
) -> Option<()> {
    expect.is(Operator::I32Const { value: 0 })?;
    expect.loads_word(control::RESTORE_POINTER)?;
    let Operator::LocalSet { local_index: frame } = expect.next()? else {
        return None;
    };
    expect.is(Operator::I32Const { value: 0 })?;
    expect.get(frame)?;
    expect.get(frame)?;
    expect.loads_word(control::FRAME_SIZE)?;
    expect.is(Operator::I32Add)?;
    expect.stores_word(control::RESTORE_POINTER)?;
    let mut offset = control::RESTORED_VALUES;
    for ty in original.signature(import)?.params() {
        expect.get(frame)?;
        expect.loads(context, *ty, offset)?;
        offset += control::size(*ty);
    }
    let Operator::ReturnCall { function_index } = expect.next()? else {
        return None;
    };
    if context.role(function_index) != Role::Original(import) {
        return None;
    }
    expect.is(Operator::End)
}
