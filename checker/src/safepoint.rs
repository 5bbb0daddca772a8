//! Safepoints: what they test, and that a frame holds what is live where it says that it stands.

use crate::context::Role;
use crate::control;
use crate::error::Result;
use crate::frames::{STAGED_MAX, Slot, Slots, Staged, direct_values};
use crate::original;
use crate::product::Product;
use crate::state::{ALL_LOOPS, State, Value};
use std::collections::{BTreeSet, HashMap};
use wasmparser::{BlockType, Operator, ValType};

/// An operand of the code that stores a frame.
#[derive(Clone, Copy, Debug)]
enum Operand {
    /// The address of the frame.
    Address,
    /// A value of the function, or the index under which a reference was saved.
    Value(Value),
    Word(i32),
    Long(i64),
    /// The address behind the frame, if this is its size.
    Behind(i32),
    /// Something that is returned for nobody to look at.
    Any,
}

/// A frame as it is stored.
#[derive(Default)]
struct Frame {
    /// The function, and in the upper half what is staged.
    function: Option<i64>,
    /// The site, and in the upper half the size, or, if a function completes the frame, how much is stored directly.
    site: Option<i64>,
    /// By how much the save pointer is advanced, unless that function does it.
    advance: Option<i32>,
    is_completed: bool,
    /// Number of the staging global, value.
    staged: Vec<(u32, Value)>,
    /// Offset, size in bytes, value.
    direct: Vec<(u32, u32, Value)>,
}

/// Where a frame says that it stands: the original's instruction, and the locals that are live there.
struct Place {
    index: usize,
    live: Vec<u32>,
}

/// Where behind the test of a safepoint the way to a pad is.
enum Way {
    /// Within `if`, and nothing else.
    Then,
    /// Within `else`, the `if` being empty.
    Else,
    /// Within `if`, behind a question to the host.
    Asks,
}

impl Product<'_, '_> {
    /// `i32.const 0, i32.load (request word), … if … end`, with the way to a pad inside. Returns where the function goes on.
    pub fn safepoint(&mut self, index: usize, state: &mut State) -> Result<usize> {
        let test = self.rewritten.ops.get(index..).unwrap_or_default();
        let (length, way) = match test {
            [
                _,
                Operator::I32Load { memarg },
                Operator::If {
                    blockty: BlockType::Empty,
                },
                ..,
            ] if memarg.offset == u64::from(control::REQUEST_WORD) => (2, Way::Asks),
            [
                _,
                Operator::I32Load { memarg },
                Operator::I32Const { value: 0 },
                Operator::I32LtS,
                Operator::If {
                    blockty: BlockType::Empty,
                },
                ..,
            ] if memarg.offset == u64::from(control::REQUEST_WORD) => (4, Way::Then),
            [
                _,
                Operator::I32Load { memarg },
                Operator::I32Const { value: 0 },
                Operator::I32GeS,
                Operator::If {
                    blockty: BlockType::Empty,
                },
                Operator::Else,
                ..,
            ] if memarg.offset == u64::from(control::REQUEST_WORD) => (4, Way::Else),
            _ => {
                return self.fail(
                    index,
                    state,
                    "the request memory is read but no request is tested",
                );
            }
        };
        let start = index + length + 1;
        let construct = &self.rewritten.constructs[self.rewritten.opened[&(start - 1)]];
        let end = construct.end;
        if construct.middle.is_some() != matches!(way, Way::Else) {
            return self.fail(
                index,
                state,
                "a safepoint does something if nothing is requested",
            );
        }
        let way = match way {
            Way::Then => start,
            Way::Else => start + 1,
            Way::Asks => self.asked(start, end, state)?,
        };
        let frame = self.stored(way, state)?;
        self.compare(way, &frame, state)?;
        state.unchecked = None;
        state.polled = ALL_LOOPS;
        Ok(end + 1)
    }

    /// `i32.const 0, call $safepoint, if … end`, up to the end at `end`. Gives where the way to the pad begins.
    fn asked(&self, index: usize, end: usize, state: &State) -> Result<usize> {
        let Some(
            [
                Operator::I32Const { value: 0 },
                Operator::Call { function_index },
                Operator::If {
                    blockty: BlockType::Empty,
                },
            ],
        ) = self.rewritten.ops.get(index..index + 3)
        else {
            return self.fail(index, state, "a safepoint does not ask what to do");
        };
        let inner = &self.rewritten.constructs[self.rewritten.opened[&(index + 2)]];
        let is_safepoint = self.context.role(*function_index) == Role::Safepoint
            && inner.middle.is_none()
            && inner.end + 1 == end;
        if !is_safepoint {
            return self.fail(
                index,
                state,
                "a safepoint asks somebody else, or goes on elsewhere",
            );
        }
        Ok(index + 3)
    }

    /// The locals that are live at one of the safepoints of this function, ascending. They have the first slots of frames, those of a
    /// clone among them.
    pub fn find_saved(&mut self) -> Result<Vec<u32>> {
        let mut live: BTreeSet<u32> = BTreeSet::new();
        for (at, operator) in self.rewritten.ops.iter().enumerate() {
            let is_test = matches!(operator, Operator::I32Load { memarg } if memarg.memory == self.context.request);
            if !is_test {
                continue;
            }
            // The first 64-bit constant behind the test says which site it is.
            let site = self.rewritten.ops[at..]
                .iter()
                .find_map(|operator| match operator {
                    Operator::I64Const { value } => Some(*value as u32),
                    _ => None,
                });
            let state = self.at_entry();
            let place = self.place(at, site.unwrap_or(0), &state)?;
            live.extend(place.live);
        }
        Ok(live.into_iter().collect())
    }

    /// Follows the code that stores a frame from `index` to where it returns.
    fn stored(&self, index: usize, state: &State) -> Result<Frame> {
        let mut frame = Frame::default();
        let mut stack: Vec<Operand> = Vec::new();
        // The locals that this code writes: it must not read another value where it stores the function's.
        let mut written: HashMap<u32, Operand> = HashMap::new();
        let mut at = index;
        while let Some(operator) = self.rewritten.ops.get(at) {
            let mut next = at + 1;
            match operator {
                Operator::LocalGet { local_index } => {
                    let own = written.get(local_index).copied();
                    let value = || Operand::Value(state.rewritten.locals[*local_index as usize]);
                    stack.push(own.unwrap_or_else(value));
                }
                Operator::LocalSet { local_index } => match stack.pop() {
                    Some(value) => {
                        written.insert(*local_index, value);
                    }
                    None => return self.fail(at, state, "a pad takes an operand of nobody's"),
                },
                Operator::I32Const { value } => stack.push(Operand::Word(*value)),
                Operator::I64Const { value } => stack.push(Operand::Long(*value)),
                Operator::I32Load { memarg }
                    if memarg.memory == self.context.control
                        && memarg.offset == u64::from(control::SAVE_POINTER)
                        && matches!(stack.last(), Some(Operand::Word(0)))
                        && frame.advance.is_none() =>
                {
                    stack.pop();
                    stack.push(Operand::Address);
                }
                Operator::LocalTee { local_index } => match stack.last() {
                    Some(value) => {
                        written.insert(*local_index, *value);
                    }
                    None => return self.fail(at, state, "a pad takes an operand of nobody's"),
                },
                Operator::I32Add | Operator::I64ShrU | Operator::I32WrapI64 => {
                    let right = stack.pop();
                    let result = match (operator, right) {
                        (Operator::I32WrapI64, Some(Operand::Long(long))) => {
                            Some(Operand::Word(long as i32))
                        }
                        (Operator::I64ShrU, Some(Operand::Long(32))) => match stack.pop() {
                            Some(Operand::Long(long)) => {
                                Some(Operand::Long((long as u64 >> 32) as i64))
                            }
                            _ => None,
                        },
                        (Operator::I32Add, Some(Operand::Word(size))) => match stack.pop() {
                            Some(Operand::Address) => Some(Operand::Behind(size)),
                            _ => None,
                        },
                        _ => None,
                    };
                    let Some(result) = result else {
                        return self.fail(at, state, "a pad computes something else");
                    };
                    stack.push(result);
                }
                // The index of a saved reference stands for it.
                Operator::Call { function_index }
                    if self.context.role(*function_index) == Role::Saver => {}
                Operator::Call { function_index }
                    if self.context.role(*function_index) == Role::PushFrame
                        && !frame.is_completed
                        && frame.function.is_none()
                        && frame.site.is_none() =>
                {
                    let (Some(Operand::Long(site)), Some(Operand::Long(function))) =
                        (stack.pop(), stack.pop())
                    else {
                        return self.fail(at, state, "a frame is completed with something else");
                    };
                    (frame.function, frame.site) = (Some(function), Some(site));
                    frame.is_completed = true;
                }
                Operator::GlobalSet { global_index } if !frame.is_completed => {
                    let number = self.staging_number(*global_index);
                    match (number, stack.pop()) {
                        (Some(number), Some(Operand::Value(value))) => {
                            frame.staged.push((number, value));
                        }
                        _ => return self.fail(at, state, "something else is staged"),
                    }
                }
                Operator::I32Store { memarg }
                | Operator::F32Store { memarg }
                | Operator::I64Store { memarg }
                | Operator::F64Store { memarg }
                | Operator::V128Store { memarg }
                    if memarg.memory == self.context.control && !frame.is_completed =>
                {
                    let size = match operator {
                        Operator::V128Store { .. } => 16,
                        Operator::I64Store { .. } | Operator::F64Store { .. } => 8,
                        _ => 4,
                    };
                    let (value, address) = (stack.pop(), stack.pop());
                    let offset = u32::try_from(memarg.offset).unwrap_or(u32::MAX);
                    match (value, address) {
                        (Some(Operand::Value(value)), Some(Operand::Address)) => {
                            frame.direct.push((offset, size, value));
                        }
                        (Some(Operand::Long(function)), Some(Operand::Address))
                            if offset == 0 && size == 8 && frame.function.is_none() =>
                        {
                            frame.function = Some(function);
                        }
                        (Some(Operand::Long(site)), Some(Operand::Address))
                            if offset == control::SAVED_SITE
                                && size == 8
                                && frame.site.is_none() =>
                        {
                            frame.site = Some(site);
                        }
                        (Some(Operand::Behind(size)), Some(Operand::Word(0)))
                            if offset == control::SAVE_POINTER && frame.advance.is_none() =>
                        {
                            frame.advance = Some(size);
                        }
                        _ => return self.fail(at, state, "something else is stored into a frame"),
                    }
                }
                Operator::Br { relative_depth } => {
                    let jump = self.rewritten.branch(at, *relative_depth);
                    // Only forward: the way to the end of every pad is finite.
                    if jump.to <= at || jump.arity != 0 {
                        return self.fail(at, state, "a pad does not go on to another one");
                    }
                    next = jump.to;
                }
                Operator::Return | Operator::Unreachable => return Ok(frame),
                Operator::End if self.rewritten.is_last(at) => return Ok(frame),
                Operator::End => {}
                Operator::F32Const { .. }
                | Operator::F64Const { .. }
                | Operator::V128Const { .. }
                | Operator::RefNull { .. }
                | Operator::RefFunc { .. } => stack.push(Operand::Any),
                Operator::RefI31 | Operator::ExternConvertAny => {}
                _ => return self.fail(at, state, "a pad does more than to store a frame"),
            }
            at = next;
        }
        self.fail(index, state, "a pad does not return")
    }

    /// The place in the original that a frame's site names.
    fn place(&self, index: usize, site: u32, state: &State) -> Result<Place> {
        if site == self.original.start {
            return Ok(Place {
                index: 0,
                live: self.liveness.before(self.original, 0),
            });
        }
        let Some(at) = self.original.at_offset(site) else {
            return self.fail(index, state, "a frame names no instruction");
        };
        let live = match self.original.ops[at] {
            Operator::Loop { .. } => self.liveness.before(self.original, at + 1),
            // Locals do not change in a call: they are live in it or behind it, or for a handler.
            Operator::Call { .. } | Operator::CallIndirect { .. } | Operator::CallRef { .. } => {
                self.liveness.before(self.original, at)
            }
            _ => return self.fail(index, state, "a frame names neither a loop nor a call"),
        };
        Ok(Place {
            index: at + 1,
            live,
        })
    }

    /// Compares a frame with what the original needs at the place that it names.
    fn compare(&self, index: usize, frame: &Frame, state: &mut State) -> Result<()> {
        let (Some(function), Some(site)) = (frame.function, frame.site) else {
            return self.fail(index, state, "a frame has no header");
        };
        if function as u32 != self.function {
            return self.fail(index, state, "a frame names another function");
        }
        let place = self.place(index, site as u32, state)?;
        let mut there = state.clone();
        if !original::to_index(self.original, &mut there, place.index) {
            return self.fail(
                index,
                state,
                "a frame names a place where the function does not stand",
            );
        }
        if state.unchecked.is_some_and(|call| call + 1 != place.index) {
            return self.fail(index, state, "the test after a call names something else");
        }
        *state = there;
        let staged = Staged::from_word((function as u64 >> 32) as u32);
        let copied = self.context.copied;
        if staged.short > copied.short || staged.long > copied.long {
            return self.fail(
                index,
                state,
                "more is staged than what completes frames copies",
            );
        }
        let stages = self.context.staging.is_some() && staged != Staged::default();
        let mut slots = Slots {
            max: if stages {
                STAGED_MAX
            } else {
                Staged::default()
            },
            ..Slots::default()
        };
        let type_of = |local: u32| self.original.locals[local as usize];
        let saved = self.saved.iter();
        let places: HashMap<u32, Slot> = saved
            .map(|local| (*local, slots.give(type_of(*local))))
            .collect();
        let side = &state.original;
        let mut expected: Vec<(Slot, ValType, Value)> = Vec::new();
        for local in &place.live {
            let ty = type_of(*local);
            let slot = places.get(local).copied();
            let slot = slot.unwrap_or_else(|| slots.give(ty));
            expected.push((slot, ty, side.locals[*local as usize]));
        }
        let types = self.original.stacks.get(&place.index);
        let types = types.map_or(&[][..], |types| &types[..]);
        if types.len() != side.stack.len() {
            return self.fail(
                index,
                state,
                "a frame is stored where its operands are unknown",
            );
        }
        for (operand, ty) in side.stack.iter().zip(types) {
            expected.push((slots.give(*ty), *ty, *operand));
        }
        if !slots.agree(staged) {
            return self.fail(index, state, "a frame says that something else is staged");
        }
        expected.sort_unstable_by_key(|(slot, ..)| *slot);
        let in_globals = frame.staged.iter();
        let in_globals = in_globals.map(|(number, value)| (Slot::Staged(*number), None, *value));
        let direct = frame.direct.iter().map(|(offset, size, value)| {
            let behind = offset.checked_sub(direct_values(staged));
            let slot = Slot::Direct(behind.unwrap_or(u32::MAX));
            (slot, Some(*size), *value)
        });
        let mut stored: Vec<(Slot, Option<u32>, Value)> = in_globals.chain(direct).collect();
        stored.sort_unstable_by_key(|(slot, ..)| *slot);
        if expected.len() != stored.len() {
            let difference = format!(
                "a frame has {} values, the original needs {}",
                stored.len(),
                expected.len()
            );
            return self.fail(index, state, difference);
        }
        for (number, (expected, stored)) in expected.iter().zip(&stored).enumerate() {
            let (slot, ty, value) = *expected;
            let (place, size, there) = *stored;
            let is_same_size = size.is_none_or(|size| size == control::size(ty));
            if slot != place || !is_same_size || value != there {
                let difference = format!("value {number} of a frame is another one");
                return self.fail(index, state, difference);
            }
        }
        let bytes = (site as u64 >> 32) as u32;
        let is_right = match frame.is_completed {
            true => bytes == slots.direct && frame.advance.is_none(),
            false => {
                let size = direct_values(staged) + slots.direct;
                !stages && bytes == size && frame.advance == Some(size as i32)
            }
        };
        if !is_right {
            return self.fail(
                index,
                state,
                "the size of a frame is not that of its values, or the save pointer does not advance by it",
            );
        }
        Ok(())
    }

    /// The number of a global in which values are staged.
    fn staging_number(&self, global: u32) -> Option<u32> {
        let number = global.checked_sub(self.context.staging?)?;
        (number < STAGED_MAX.short + STAGED_MAX.long).then_some(number)
    }
}
