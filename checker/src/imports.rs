//! Calls of the host: the wrappers through which they are made, and the clones that make them again. And the helper that
//! completes frames.

use crate::context::{Context, Role};
use crate::control;
use crate::error::{Result, section};
use crate::frames::STAGED_MAX;
use crate::module::Module;
use wasmparser::{Operator, ValType};

/// Reads a function's instructions.
fn operators<'a>(module: &Module<'a>, function: u32) -> Result<Vec<Operator<'a>>> {
    let Some(body) = module.body(function) else {
        return section("code", format!("function {function} has no body"));
    };
    let operators = body.get_operators_reader()?.into_iter();
    Ok(operators.collect::<std::result::Result<_, _>>()?)
}

/// Instructions still to be read, which are compared one after the other.
struct Expect<'o, 'a> {
    left: &'o [Operator<'a>],
    control: u32,
}

impl<'a> Expect<'_, 'a> {
    fn next(&mut self) -> Option<Operator<'a>> {
        let (first, left) = self.left.split_first()?;
        self.left = left;
        Some(first.clone())
    }

    fn is(&mut self, expected: Operator<'_>) -> Option<()> {
        (self.next()? == expected).then_some(())
    }

    fn get(&mut self, local: u32) -> Option<()> {
        self.is(Operator::LocalGet { local_index: local })
    }

    /// An access of the control memory at `offset`, of which `take` returns the memory argument.
    fn accesses(
        &mut self,
        offset: u32,
        take: impl FnOnce(&Operator<'a>) -> Option<wasmparser::MemArg>,
    ) -> Option<()> {
        let memarg = take(&self.next()?)?;
        (memarg.memory == self.control && memarg.offset == u64::from(offset)).then_some(())
    }

    fn loads_word(&mut self, offset: u32) -> Option<()> {
        self.accesses(offset, |operator| match operator {
            Operator::I32Load { memarg } => Some(*memarg),
            _ => None,
        })
    }

    fn stores_word(&mut self, offset: u32) -> Option<()> {
        self.accesses(offset, |operator| match operator {
            Operator::I32Store { memarg } => Some(*memarg),
            _ => None,
        })
    }

    /// A store of a value of type `ty`, a reference through what saves it.
    fn stores(&mut self, context: &Context, ty: ValType, offset: u32) -> Option<()> {
        if let ValType::Ref(_) = ty {
            match self.next()? {
                Operator::Call { function_index }
                    if context.role(function_index) == Role::Saver => {}
                Operator::Drop => self.is(Operator::I32Const { value: -1 })?,
                _ => return None,
            }
        }
        self.accesses(offset, |operator| match (ty, operator) {
            (ValType::I32 | ValType::Ref(_), Operator::I32Store { memarg })
            | (ValType::I64, Operator::I64Store { memarg })
            | (ValType::F32, Operator::F32Store { memarg })
            | (ValType::F64, Operator::F64Store { memarg })
            | (ValType::V128, Operator::V128Store { memarg }) => Some(*memarg),
            _ => None,
        })
    }

    /// A load of a value of type `ty`, a reference through the table of saved ones.
    fn loads(&mut self, context: &Context, ty: ValType, offset: u32) -> Option<()> {
        self.accesses(offset, |operator| match (ty, operator) {
            (ValType::I32 | ValType::Ref(_), Operator::I32Load { memarg })
            | (ValType::I64, Operator::I64Load { memarg })
            | (ValType::F32, Operator::F32Load { memarg })
            | (ValType::F64, Operator::F64Load { memarg })
            | (ValType::V128, Operator::V128Load { memarg }) => Some(*memarg),
            _ => None,
        })?;
        if let ValType::Ref(_) = ty {
            match self.next()? {
                Operator::TableGet { table } if table >= context.added_tables => {}
                Operator::Drop => {
                    let Operator::RefNull { .. } = self.next()? else {
                        return None;
                    };
                }
                _ => return None,
            }
            while let Some(Operator::RefCastNullable { .. } | Operator::RefAsNonNull) =
                self.left.first()
            {
                self.next();
            }
        }
        Some(())
    }
}

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
    let operators = operators(main, original.function_count() + import)?;
    let mut expect = Expect {
        left: &operators,
        control: context.control,
    };
    match wrapper(context, original, import, &mut expect) {
        Some(()) => Ok(()),
        None => section(
            "code",
            format!(
                "the wrapper of import {import} is not what it should be before its last {} instructions",
                expect.left.len()
            ),
        ),
    }
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

/// The helper that completes a frame writes its header, copies what was staged, and lets the save pointer advance by all of it.
pub(crate) fn verify_push_frame(context: &Context, main: &Module<'_>) -> Result<()> {
    let helper = context
        .roles
        .iter()
        .find(|(_, role)| **role == Role::PushFrame);
    let (Some((helper, _)), Some(staging)) = (helper, context.staging) else {
        return section("exports", "nothing completes frames");
    };
    let operators = operators(main, *helper)?;
    let mut expect = Expect {
        left: &operators,
        control: context.control,
    };
    match push_frame(staging, &mut expect) {
        Some(()) if expect.left.is_empty() => Ok(()),
        _ => section(
            "code",
            format!(
                "what completes frames is not what it should be before its last {} instructions",
                expect.left.len()
            ),
        ),
    }
}

fn push_frame(staging: u32, expect: &mut Expect<'_, '_>) -> Option<()> {
    let (function, site, staged, frame, address) = (0, 1, 2, 3, 4);
    let set = |local_index| Operator::LocalSet { local_index };
    let word = |value| Operator::I32Const { value };
    let upper = [
        Operator::I64Const { value: 32 },
        Operator::I64ShrU,
        Operator::I32WrapI64,
    ];
    let long_at = |expect: &mut Expect<'_, '_>, offset| {
        expect.accesses(offset, |operator| match operator {
            Operator::I64Store { memarg } => Some(*memarg),
            _ => None,
        })
    };
    expect.get(function)?;
    upper.iter().try_for_each(|next| expect.is(next.clone()))?;
    expect.is(set(staged))?;
    expect.is(word(0))?;
    expect.loads_word(control::SAVE_POINTER)?;
    expect.is(Operator::LocalTee { local_index: frame })?;
    expect.is(word(control::SAVED_VALUES as i32))?;
    expect.is(Operator::I32Add)?;
    expect.is(set(address))?;
    for (value, offset) in [(function, 0), (site, control::SAVED_SITE)] {
        expect.get(frame)?;
        expect.get(value)?;
        long_at(expect, offset)?;
    }
    let kinds = [
        (staging, STAGED_MAX.short, 0, 4),
        (staging + STAGED_MAX.short, STAGED_MAX.long, 8, 8),
    ];
    for (first, count, bit, bytes) in kinds {
        let number = [
            Operator::LocalGet {
                local_index: staged,
            },
            word(bit),
            Operator::I32ShrU,
            word(0xff),
            Operator::I32And,
        ];
        for _ in 0..=count {
            expect.is(Operator::Block {
                blockty: wasmparser::BlockType::Empty,
            })?;
        }
        number.iter().try_for_each(|next| expect.is(next.clone()))?;
        // With so many staged the last of them comes first; with more than there can be, none.
        let Operator::BrTable { targets } = expect.next()? else {
            return None;
        };
        let labels: Vec<u32> = targets
            .targets()
            .collect::<std::result::Result<_, _>>()
            .ok()?;
        (labels.into_iter().eq((0..=count).rev()) && targets.default() == count).then_some(())?;
        expect.is(Operator::End)?;
        for number in (0..count).rev() {
            expect.get(address)?;
            expect.is(Operator::GlobalGet {
                global_index: first + number,
            })?;
            match bytes {
                4 => expect.stores_word(4 * number)?,
                _ => long_at(expect, 8 * number)?,
            }
            expect.is(Operator::End)?;
        }
        expect.get(address)?;
        number.iter().try_for_each(|next| expect.is(next.clone()))?;
        expect.is(word(bytes))?;
        expect.is(Operator::I32Mul)?;
        expect.is(Operator::I32Add)?;
        expect.is(set(address))?;
    }
    expect.get(address)?;
    expect.get(site)?;
    upper.iter().try_for_each(|next| expect.is(next.clone()))?;
    expect.is(Operator::I32Add)?;
    expect.is(set(address))?;
    expect.get(frame)?;
    expect.get(address)?;
    expect.get(frame)?;
    expect.is(Operator::I32Sub)?;
    expect.stores_word(control::SAVED_SITE + 4)?;
    expect.is(word(0))?;
    expect.get(address)?;
    expect.stores_word(control::SAVE_POINTER)?;
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
    let operators = operators(clones, function)?;
    let mut expect = Expect {
        left: &operators,
        control: context.control,
    };
    match call_again(context, original, import, &mut expect) {
        Some(()) => Ok(()),
        None => section(
            "clones",
            format!(
                "the clone of import {import} is not what it should be before its last {} instructions",
                expect.left.len()
            ),
        ),
    }
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
