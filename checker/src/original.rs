//! How the original goes on by itself: over instructions that move values and mark places, which the rewritten code may
//! execute earlier, later or not at all.

use crate::code::{Code, Jump};
use crate::state::{ALL_LOOPS, State};
use wasmparser::Operator;

/// Takes the branch in the original.
pub(crate) fn jump(state: &mut State, jump: Jump) {
    state.original.cut(jump.height, jump.arity);
    state.at.index = jump.to;
    state.moved = ALL_LOOPS;
}

/// Executes the original's next instruction if it only moves values or marks a place.
fn step(code: &Code<'_>, state: &mut State) -> bool {
    if state.at.calling {
        return false;
    }
    let index = state.at.index;
    let side = &mut state.original;
    match code.ops[index] {
        Operator::Nop | Operator::Block { .. } | Operator::Loop { .. } => {}
        Operator::TryTable { .. } => {}
        Operator::End if !code.is_last(index) => {}
        Operator::Else => {
            state.at.index = code.constructs[code.within[index]].end + 1;
            return true;
        }
        Operator::LocalGet { local_index } => side.stack.push(side.locals[local_index as usize]),
        Operator::LocalSet { local_index } => {
            if let Some(value) = side.stack.pop() {
                side.locals[local_index as usize] = value;
            }
        }
        Operator::LocalTee { local_index } => {
            if let Some(value) = side.stack.last() {
                side.locals[local_index as usize] = *value;
            }
        }
        Operator::Drop => {
            side.stack.pop();
        }
        Operator::Br { relative_depth } => {
            jump(state, code.branch(index, relative_depth));
            return true;
        }
        _ => return false,
    }
    state.at.index += 1;
    true
}

/// Lets the original go on to the next instruction that does more than move values.
pub(crate) fn to_next_effect(code: &Code<'_>, state: &mut State) {
    // A loop without effects comes back to where it was.
    let mut left = code.ops.len() + 1;
    while left > 0 && step(code, state) {
        left -= 1;
    }
}

/// Whether the original only moves values from here on, for ever.
pub(crate) fn goes_round(code: &Code<'_>, state: &State) -> bool {
    let mut ahead = state.clone();
    (0..=code.ops.len()).all(|_| step(code, &mut ahead))
}

/// Lets the original go on to an instruction, if it gets there without doing more than moving values.
pub(crate) fn to_index(code: &Code<'_>, state: &mut State, index: usize) -> bool {
    let mut left = code.ops.len() + 1;
    while state.at.index != index {
        if left == 0 || !step(code, state) {
            return false;
        }
        left -= 1;
    }
    true
}

/// Lets the original go on in both states until it stands at the same instruction, the first that both get to without
/// doing more than moving values. Returns whether there is one.
pub(crate) fn to_meeting(code: &Code<'_>, state: &mut State, other: &mut State) -> bool {
    if state.at == other.at {
        return true;
    }
    let mut ahead = other.clone();
    let mut places = vec![ahead.at.index];
    while places.len() <= code.ops.len() && step(code, &mut ahead) {
        places.push(ahead.at.index);
    }
    let mut left = code.ops.len() + 1;
    while !places.contains(&state.at.index) {
        if left == 0 || !step(code, state) {
            return false;
        }
        left -= 1;
    }
    to_index(code, other, state.at.index)
}
