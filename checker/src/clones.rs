//! Clones: that from each of its points a clone goes on as the original does with the values of the frame.

use crate::Point;
use crate::code::Code;
use crate::context::Context;
use crate::control;
use crate::error::{Error, Result};
use crate::liveness::Liveness;
use crate::product::{Product, jump};
use crate::state::{ALL_LOOPS, At, Side, State, Value};
use std::collections::HashMap;
use wasmparser::{Operator, ValType};

/// The original's index and operands at a point.
struct Place {
    at: At,
    live: Vec<u32>,
    operands: Vec<ValType>,
}

/// The values of a frame: those of the function where it stands, and where in the frame each lies.
struct Frame {
    state: State,
    slots: HashMap<u64, Value>,
}

/// What the first instructions of a clone say.
struct Prologue {
    /// Local with the address of the frame.
    frame: u32,
    /// Local with the point to go to.
    entry: u32,
    /// Index of the instruction that goes to where values are restored.
    choice: usize,
}

/// Verifies the clone of a function for `points`, the original having kept operands at their offsets.
pub(crate) fn verify(mut product: Product<'_, '_>, points: &[Point]) -> Result<()> {
    let Some(prologue) = prologue(product.context, product.rewritten) else {
        return Err(Error::Section {
            what: "clones",
            difference: format!(
                "the clone of function {} does not begin with taking a frame",
                product.function
            ),
        });
    };
    product.entry = Some(prologue.entry);
    let start = product.at_entry();
    for (number, point) in points.iter().enumerate() {
        let Some(place) = place(product.original, product.liveness, *point) else {
            return product.fail(0, &start, format!("there is no {point:?}"));
        };
        let frame = frame(&mut product, &place);
        let arrival = arrive(&mut product, &prologue, number, frame)?;
        product.arrivals.push(arrival);
    }
    product.verify(None)
}

/// `frame = restore pointer; entry = frame.entry; restore pointer = frame + frame.size`, then a table of labels.
fn prologue(context: &Context, code: &Code<'_>) -> Option<Prologue> {
    let is_control = |memarg: &wasmparser::MemArg, offset: u32| {
        memarg.memory == context.control && memarg.offset == u64::from(offset)
    };
    let Some(
        [
            Operator::I32Const { value: 0 },
            Operator::I32Load { memarg: pointer },
            Operator::LocalTee { local_index: frame },
            Operator::I32Load { memarg: number },
            Operator::LocalSet { local_index: entry },
            Operator::I32Const { value: 0 },
            Operator::LocalGet { local_index: base },
            Operator::LocalGet { local_index: sized },
            Operator::I32Load { memarg: size },
            Operator::I32Add,
            Operator::I32Store { memarg: next },
        ],
    ) = code.ops.get(..11)
    else {
        return None;
    };
    let blocks = code.ops[11..]
        .iter()
        .take_while(|operator| matches!(operator, Operator::Block { .. }))
        .count();
    let choice = 12 + blocks;
    let is_prologue = is_control(pointer, control::RESTORE_POINTER)
        && is_control(number, control::RESTORED_ENTRY)
        && is_control(size, control::FRAME_SIZE)
        && is_control(next, control::RESTORE_POINTER)
        && base == frame
        && sized == frame
        && frame != entry
        && matches!(&code.ops[choice - 1], Operator::LocalGet { local_index } if local_index == entry)
        && matches!(code.ops[choice], Operator::BrTable { .. });
    is_prologue.then_some(Prologue {
        frame: *frame,
        entry: *entry,
        choice,
    })
}

fn place(code: &Code<'_>, liveness: &Liveness, point: Point) -> Option<Place> {
    let (offset, calling) = match point {
        Point::Calling(offset) => (offset, true),
        Point::Next(offset) => (offset, false),
    };
    let index = code.at_offset(offset)?;
    let mut operands = code.stacks.get(&index)?.clone();
    if calling {
        operands.truncate(operands.len().checked_sub(code.effects[index].0)?);
    }
    Some(Place {
        at: At { index, calling },
        live: liveness.before(code, index),
        operands,
    })
}

/// Makes up the values of a frame that stands at a place.
fn frame(product: &mut Product<'_, '_>, place: &Place) -> Frame {
    let mut state = product.at_entry();
    // Dead locals hold something that the clone does not have.
    let values = &mut product.values;
    let locals = state
        .original
        .locals
        .iter()
        .map(|_| values.fresh())
        .collect();
    let mut slots = HashMap::new();
    let mut offset = control::RESTORED_VALUES;
    state.original = Side {
        locals,
        stack: place.operands.iter().map(|_| values.fresh()).collect(),
    };
    let live = place.live.iter().map(|local| {
        let local = *local as usize;
        (state.original.locals[local], product.original.locals[local])
    });
    let operands = state
        .original
        .stack
        .iter()
        .copied()
        .zip(place.operands.iter().copied());
    for (value, ty) in live.chain(operands) {
        slots.insert(u64::from(offset), value);
        offset += control::size(ty);
    }
    state.at = place.at;
    // Coming from a frame is no way around a loop.
    state.polled = ALL_LOOPS;
    state.moved = ALL_LOOPS;
    Frame { state, slots }
}

/// Follows a clone from where its values are restored to where it stops being on its way.
fn arrive(
    product: &mut Product<'_, '_>,
    prologue: &Prologue,
    number: usize,
    frame: Frame,
) -> Result<(usize, State)> {
    let Frame { mut state, slots } = frame;
    let code = product.rewritten;
    let Operator::BrTable { targets } = &code.ops[prologue.choice] else {
        return product.fail(
            prologue.choice,
            &state,
            "a clone does not choose where to go",
        );
    };
    let Some(depth) = targets.targets().flatten().nth(number) else {
        return product.fail(prologue.choice, &state, "a clone lacks a point");
    };
    let address = product.values.fresh();
    state.rewritten.locals[prologue.frame as usize] = address;
    let mut index = jump(&mut state, code.branch(prologue.choice, depth));
    // Each instruction is passed at most once, since a clone on its way does not go backwards.
    loop {
        let entry = state.rewritten.locals[prologue.entry as usize];
        if entry.known() == Some(0) {
            return Ok((index, state));
        }
        let next = match restore(product, index, &mut state, address, &slots) {
            Some(next) => next,
            None => product.move_values(index, &mut state).unwrap_or(index),
        };
        if next <= index {
            return product.fail(index, &state, "a clone does not get to its point");
        }
        index = next;
    }
}

/// Executes an instruction that takes a value out of the frame; none if it is no such instruction.
fn restore(
    product: &Product<'_, '_>,
    index: usize,
    state: &mut State,
    address: Value,
    slots: &HashMap<u64, Value>,
) -> Option<usize> {
    let stack = &mut state.rewritten.stack;
    match &product.rewritten.ops[index] {
        Operator::I32Load { memarg }
        | Operator::I64Load { memarg }
        | Operator::F32Load { memarg }
        | Operator::F64Load { memarg }
        | Operator::V128Load { memarg }
            if memarg.memory == product.context.control && stack.last() == Some(&address) =>
        {
            let value = slots.get(&memarg.offset)?;
            stack.pop();
            stack.push(*value);
        }
        // The frame has the place of a reference in a table of saved ones; its type is narrowed.
        Operator::TableGet { table } if product.context.saved_tables.contains(table) => {}
        Operator::RefCastNullable { .. }
        | Operator::RefCastNonNull { .. }
        | Operator::RefAsNonNull => {}
        _ => return None,
    }
    Some(index + 1)
}
