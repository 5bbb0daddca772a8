//! The helper that completes frames: how many values it copies that were staged.

use crate::context::{Context, Role};
use crate::control;
use crate::error::{Result, section};
use crate::expect::{Expect, whole};
use crate::frames::{STAGED_MAX, Staged};
use crate::module::Module;
use wasmparser::Operator;

/// The helper writes a frame's header, copies what was staged, and lets the save pointer advance by all of it. Returns how much it
/// copies at most.
pub(crate) fn verify(context: &Context, main: &Module<'_>) -> Result<Staged> {
    let helper = context
        .roles
        .iter()
        .find(|(_, role)| **role == Role::PushFrame);
    let (Some((helper, _)), Some(staging)) = (helper, context.staging) else {
        return section("exports", "nothing completes frames");
    };
    whole(
        main,
        *helper,
        context.control,
        ("code", "what completes frames"),
        |expect| push_frame(staging, expect),
    )
}

fn push_frame(staging: u32, expect: &mut Expect<'_, '_>) -> Option<Staged> {
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
    let mut copied = Staged::default();
    let kinds = [
        (staging, &mut copied.short, 0, 4),
        (staging + STAGED_MAX.short, &mut copied.long, 8, 8),
    ];
    for (first, count, bit, bytes) in kinds {
        let block = Operator::Block {
            blockty: wasmparser::BlockType::Empty,
        };
        // A block for each number that there can be, none of which is needed if that is only zero. What follows says of which kind.
        let blocks = expect.left.iter().take_while(|next| **next == block);
        let blocks = blocks.count();
        if blocks == 0 || expect.left.get(blocks + 1) != Some(&word(bit)) {
            continue;
        }
        *count = blocks as u32 - 1;
        let count = *count;
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
            expect.is(block.clone())?;
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
    expect.is(Operator::End)?;
    Some(copied)
}
