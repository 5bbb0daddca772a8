//! Safepoints: what they test, and that a frame holds what is live where it says that it stands.

use crate::context::Role;
use crate::control;
use crate::error::Result;
use crate::original;
use crate::product::Product;
use crate::state::{ALL_LOOPS, State, Value};
use wasmparser::{BlockType, Operator};

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
    header: Option<i64>,
    size: Option<i32>,
    /// By how much the code itself advances the save pointer.
    advance: Option<i32>,
    /// Offset, size in bytes, value.
    values: Vec<(u32, u32, Value)>,
}

/// Where a frame says that it stands: the original's instruction, and the locals that are live there.
struct Place {
    index: usize,
    live: Vec<u32>,
}

impl Product<'_, '_> {
    /// `i32.const 0, i32.load (request word), … if … end`, with the cold path of the safepoint inside. Returns where it
    /// goes on.
    pub fn safepoint(&mut self, index: usize, state: &mut State) -> Result<usize> {
        let test = self.rewritten.ops.get(index..).unwrap_or_default();
        let (length, leaves) = match test {
            [
                _,
                Operator::I32Load { memarg },
                Operator::If {
                    blockty: BlockType::Empty,
                },
                ..,
            ] if memarg.offset == u64::from(control::REQUEST_WORD) => (2, false),
            [
                _,
                Operator::I32Load { memarg },
                Operator::I32Const { value: 0 },
                Operator::I32LtS,
                Operator::If {
                    blockty: BlockType::Empty,
                },
                ..,
            ] if memarg.offset == u64::from(control::REQUEST_WORD) => (4, true),
            _ => {
                return self.fail(
                    index,
                    state,
                    "the request memory is read but no request is tested",
                );
            }
        };
        let start = index + length + 1;
        let end = self.rewritten.constructs[self.rewritten.opened[&(start - 1)]].end;
        let local = if leaves {
            self.leave(start, end, state)?
        } else {
            self.ask(start, end, state)?
        };
        state.rewritten.locals[local as usize] = self.values.fresh();
        state.unchecked = None;
        state.polled = ALL_LOOPS;
        Ok(end + 1)
    }

    /// `i32.const SIZE, call $safepoint, local.tee $frame, if … end`, up to the end at `end`. Gives the local.
    fn ask(&self, index: usize, end: usize, state: &mut State) -> Result<u32> {
        let Some(
            [
                Operator::I32Const { value: size },
                Operator::Call { function_index },
                Operator::LocalTee { local_index },
                Operator::If {
                    blockty: BlockType::Empty,
                },
            ],
        ) = self.rewritten.ops.get(index..index + 4)
        else {
            return self.fail(index, state, "a safepoint does not ask what to do");
        };
        let inner = self.rewritten.constructs[self.rewritten.opened[&(index + 3)]].end;
        let is_safepoint =
            self.context.role(*function_index) == Role::Safepoint && inner + 1 == end;
        if !is_safepoint {
            return self.fail(
                index,
                state,
                "a safepoint asks somebody else, or goes on elsewhere",
            );
        }
        self.is_scratch(index, *local_index, state)?;
        let frame = self.stored(index + 4, inner, *local_index, state)?;
        if frame.size != Some(*size) || frame.advance.is_some() {
            return self.fail(
                index,
                state,
                "the size of a frame is not the one that was asked for",
            );
        }
        self.compare(index, &frame, state)?;
        Ok(*local_index)
    }

    /// `i32.const 0, i32.load (save pointer), local.set $frame, …`, up to the end at `end`. Gives the local.
    fn leave(&self, index: usize, end: usize, state: &mut State) -> Result<u32> {
        let local = match self.rewritten.ops.get(index..index + 3) {
            Some(
                [
                    Operator::I32Const { value: 0 },
                    Operator::I32Load { memarg },
                    Operator::LocalSet { local_index },
                ],
            ) if memarg.memory == self.context.control
                && memarg.offset == u64::from(control::SAVE_POINTER) =>
            {
                *local_index
            }
            _ => return self.fail(index, state, "a frame is not stored at the save pointer"),
        };
        self.is_scratch(index, local, state)?;
        let frame = self.stored(index + 3, end, local, state)?;
        if frame.advance.is_none() || frame.advance != frame.size {
            return self.fail(
                index,
                state,
                "the save pointer does not advance by the size of the frame",
            );
        }
        self.compare(index, &frame, state)?;
        Ok(local)
    }

    /// The local that has a frame's address is none of the original's, and not the one that says where a clone goes.
    fn is_scratch(&self, index: usize, local: u32, state: &State) -> Result<()> {
        if (local as usize) < self.original.locals.len() || Some(local) == self.entry {
            return self.fail(index, state, "the address of a frame overwrites a local");
        }
        Ok(())
    }

    /// Follows the code that stores the frame up to its end at `end`.
    fn stored(&self, index: usize, end: usize, frame_local: u32, state: &State) -> Result<Frame> {
        let mut frame = Frame::default();
        let mut stack: Vec<Operand> = Vec::new();
        let mut dropped = None;
        for at in index..end {
            match &self.rewritten.ops[at] {
                Operator::LocalGet { local_index } if *local_index == frame_local => {
                    stack.push(Operand::Address);
                }
                Operator::LocalGet { local_index } => {
                    stack.push(Operand::Value(
                        state.rewritten.locals[*local_index as usize],
                    ));
                }
                Operator::I32Const { value } => stack.push(Operand::Word(*value)),
                Operator::I32Add => match (stack.pop(), stack.pop()) {
                    (Some(Operand::Word(size)), Some(Operand::Address)) => {
                        stack.push(Operand::Behind(size));
                    }
                    _ => return self.fail(at, state, "a cold path adds something else"),
                },
                Operator::I64Const { value } => stack.push(Operand::Long(*value)),
                // The index of a saved reference stands for it.
                Operator::Call { function_index }
                    if self.context.role(*function_index) == Role::Saver => {}
                Operator::Drop => dropped = stack.pop(),
                Operator::I32Store { memarg }
                | Operator::F32Store { memarg }
                | Operator::I64Store { memarg }
                | Operator::F64Store { memarg }
                | Operator::V128Store { memarg }
                    if memarg.memory == self.context.control =>
                {
                    let size = match &self.rewritten.ops[at] {
                        Operator::V128Store { .. } => 16,
                        Operator::I64Store { .. } | Operator::F64Store { .. } => 8,
                        _ => 4,
                    };
                    let (value, address) = (stack.pop(), stack.pop());
                    let offset = u32::try_from(memarg.offset).unwrap_or(u32::MAX);
                    match (value, address, dropped.take()) {
                        (Some(Operand::Value(value)), Some(Operand::Address), _)
                        // A reference that can only be null.
                        | (Some(Operand::Word(-1)), Some(Operand::Address), Some(Operand::Value(value))) => {
                            frame.values.push((offset, size, value));
                        }
                        (Some(Operand::Long(header)), Some(Operand::Address), _)
                            if offset == 0 && size == 8 && frame.header.is_none() =>
                        {
                            frame.header = Some(header);
                        }
                        (Some(Operand::Word(word)), Some(Operand::Address), _)
                            if offset == control::FRAME_SIZE && size == 4 && frame.size.is_none() =>
                        {
                            frame.size = Some(word);
                        }
                        // Last of all, since what lies behind it is nobody's.
                        (Some(Operand::Behind(size)), Some(Operand::Word(0)), _)
                            if offset == control::SAVE_POINTER && frame.advance.is_none() =>
                        {
                            frame.advance = Some(size);
                        }
                        _ => return self.fail(at, state, "something else is stored into a frame"),
                    }
                }
                Operator::Return | Operator::Unreachable => {
                    if at + 1 != end {
                        return self.fail(at, state, "a cold path does not end where it returns");
                    }
                    return Ok(frame);
                }
                Operator::F32Const { .. }
                | Operator::F64Const { .. }
                | Operator::V128Const { .. }
                | Operator::RefNull { .. }
                | Operator::RefFunc { .. } => stack.push(Operand::Any),
                Operator::RefI31 | Operator::ExternConvertAny => {}
                _ => return self.fail(at, state, "a cold path does more than to store a frame"),
            }
        }
        self.fail(end, state, "a cold path does not return")
    }

    /// The place in the original that a frame's header names.
    fn place(&self, index: usize, header: i64, state: &mut State) -> Result<Place> {
        let (function, site) = (header as u32, (header >> 32) as u32);
        if function != self.function {
            return self.fail(index, state, "a frame names another function");
        }
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
        let Some(header) = frame.header else {
            return self.fail(index, state, "a frame has no header");
        };
        let place = self.place(index, header, state)?;
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
        let side = &state.original;
        let locals = place.live.iter().map(|local| side.locals[*local as usize]);
        let expected: Vec<Value> = locals.chain(side.stack.iter().copied()).collect();
        if expected.len() != frame.values.len() {
            let difference = format!(
                "a frame has {} values, the original needs {}",
                frame.values.len(),
                expected.len()
            );
            return self.fail(index, state, difference);
        }
        let mut offset = control::SAVED_VALUES;
        for (number, (value, stored)) in expected.iter().zip(&frame.values).enumerate() {
            let (at, size, there) = *stored;
            if at != offset || there != *value {
                return self.fail(
                    index,
                    state,
                    format!("value {number} of a frame is another one"),
                );
            }
            offset += size;
        }
        if frame.size != Some(offset as i32) {
            return self.fail(
                index,
                state,
                "the size of a frame is not that of its values",
            );
        }
        Ok(())
    }
}
