//! Runs the original and the rewritten function side by side, on symbols instead of values, and keeps track of which values
//! are equal.
//!
//! Instructions are of two kinds. Those that have an *effect* compute, touch memory, call, or choose where to go: the two functions must
//! execute the same ones in the same order on equal operands. All others only move values and mark places; each
//! function may have as many of these as it likes. What is inserted tests words of the control memory, or constants, and
//! is recognised by that.
//!
//! The rewritten code is walked in the order of its instructions, as often as it takes until what is assumed at the headers of loops
//! is confirmed by all ways to them.

use crate::code::{Code, Jump};
use crate::context::Context;
use crate::control;
use crate::error::{Error, Result};
use crate::liveness::Liveness;
use crate::original;
use crate::state::{Side, State, Value, Values};
use std::collections::HashMap;
use wasmparser::Operator;

/// More passes than any loops need, each of which says less than the one before.
const MAX_PASSES: usize = 1000;

/// What is assumed at the header of a loop.
#[derive(Default)]
struct Header {
    assumed: Option<State>,
    /// What all ways to it seen in this pass have in common.
    confirmed: Option<State>,
    is_refuted: bool,
}

/// The two functions, and what is known at places not reached yet.
pub(crate) struct Product<'p, 'a> {
    pub context: &'p Context,
    pub function: u32,
    pub original: &'p Code<'a>,
    pub rewritten: &'p Code<'a>,
    pub liveness: &'p Liveness,
    pub values: Values,
    /// In a clone: the local that says which point is still to be reached.
    pub entry: Option<u32>,
    pending: Vec<Option<State>>,
    headers: HashMap<usize, Header>,
    /// The locals that a safepoint of the rewritten function saves, ascending.
    pub saved: Vec<u32>,
    /// What is known where the ways to the points of a clone end.
    pub arrivals: Vec<(usize, State)>,
}

impl<'p, 'a> Product<'p, 'a> {
    pub fn new(
        context: &'p Context,
        function: u32,
        original: &'p Code<'a>,
        rewritten: &'p Code<'a>,
        liveness: &'p Liveness,
    ) -> Self {
        Self {
            context,
            function,
            original,
            rewritten,
            liveness,
            values: Values::default(),
            entry: None,
            saved: Vec::new(),
            pending: vec![None; rewritten.ops.len() + 1],
            headers: HashMap::new(),
            arrivals: Vec::new(),
        }
    }

    /// What is known when both functions are entered: their locals hold the same arguments and zeros.
    pub fn at_entry(&mut self) -> State {
        let shared: Vec<Value> = self
            .original
            .locals
            .iter()
            .map(|_| self.values.fresh())
            .collect();
        let added = self.rewritten.locals.len().saturating_sub(shared.len());
        let mut locals = shared.clone();
        locals.extend((0..added).map(|_| self.values.fresh()));
        State {
            at: crate::state::At {
                index: 0,
                calling: false,
            },
            original: Side {
                locals: shared,
                stack: Vec::new(),
            },
            rewritten: Side {
                locals,
                stack: Vec::new(),
            },
            unchecked: None,
            polled: 0,
            moved: 0,
        }
    }

    /// Verifies the function, from its entry (unless that is never taken) and all arrivals.
    pub fn verify(&mut self, entry: Option<State>) -> Result<()> {
        for _ in 0..MAX_PASSES {
            self.pass(entry.clone())?;
            if !self.settle() {
                return Ok(());
            }
        }
        Err(Error::Section {
            what: "code",
            difference: format!("function {} has loops that never settle", self.function),
        })
    }

    fn pass(&mut self, entry: Option<State>) -> Result<()> {
        for (index, state) in self.arrivals.clone() {
            self.go_to(index, None, state)?;
        }
        let mut current = entry;
        for index in 0..self.rewritten.ops.len() {
            if let Some(state) = self.pending[index].take() {
                current = Some(match current {
                    Some(current) => self.join(index, current, state)?,
                    None => state,
                });
            }
            current = if let Operator::Loop { .. } = self.rewritten.ops[index] {
                self.enter_loop(index, current)?
            } else if let Some(state) = current {
                self.step(index, state)?
            } else {
                None
            };
        }
        Ok(())
    }

    /// Takes what was confirmed at headers for what is assumed next. Returns whether anything was refuted.
    fn settle(&mut self) -> bool {
        let mut changed = false;
        for header in self.headers.values_mut() {
            changed |= std::mem::take(&mut header.is_refuted);
            if let Some(confirmed) = header.confirmed.take() {
                header.assumed = Some(confirmed);
            }
        }
        changed
    }

    fn enter_loop(&mut self, index: usize, current: Option<State>) -> Result<Option<State>> {
        if let Some(state) = current {
            self.confirm(index, state)?;
        }
        let header = self.headers.entry(index).or_default();
        if header.assumed.is_none() {
            // What is known on the way from above is assumed at once.
            header.assumed.clone_from(&header.confirmed);
            header.is_refuted = false;
        }
        Ok(header.assumed.clone())
    }

    /// Compares what is known on a way to the header of the loop that `index` opens with what is assumed there.
    fn confirm(&mut self, index: usize, mut state: State) -> Result<()> {
        let loops = self.rewritten.constructs[self.rewritten.opened[&index]].loops;
        state.polled = state.polled.min(loops - 1);
        state.moved = state.moved.min(loops - 1);
        let mut header = self.headers.remove(&index).unwrap_or_default();
        let common = match header.confirmed.take().or_else(|| header.assumed.clone()) {
            None => {
                // Nothing has been assumed so far: the code behind the header is still to be looked at.
                header.is_refuted = true;
                state
            }
            Some(mut common) => {
                let before = common.at;
                self.align(index, &mut common, &mut state)?;
                header.is_refuted |= common.at != before || !common.holds_in(&state);
                if header.is_refuted {
                    common.meet(&state, &mut self.values);
                }
                common
            }
        };
        header.confirmed = Some(common);
        self.headers.insert(index, header);
        Ok(())
    }

    /// Deposits what is known on a way from `from` to `to`, which may be the header of a loop.
    pub fn go_to(&mut self, to: usize, from: Option<usize>, state: State) -> Result<()> {
        if let Some(from) = from.filter(|from| to <= *from) {
            let opening = to - 1;
            let loops = self.rewritten.constructs[self.rewritten.opened[&opening]].loops;
            if state.polled < loops {
                return self.fail(from, &state, "a loop goes round without a safepoint");
            }
            if state.moved < loops && !original::goes_round(self.original, &state) {
                return self.fail(from, &state, "a loop goes round by itself");
            }
            return self.confirm(opening, state);
        }
        let joined = match self.pending[to].take() {
            Some(other) => self.join(to, other, state)?,
            None => state,
        };
        self.pending[to] = Some(joined);
        Ok(())
    }

    fn join(&mut self, index: usize, mut state: State, mut other: State) -> Result<State> {
        self.align(index, &mut state, &mut other)?;
        state.meet(&other, &mut self.values);
        Ok(state)
    }

    /// Lets the original go on in one of two states until it stands where it does in the other.
    fn align(&self, index: usize, state: &mut State, other: &mut State) -> Result<()> {
        original::to_meeting(self.original, state, other);
        if state.fits(other) {
            return Ok(());
        }
        let there = self.original.offsets.get(other.at.index).copied();
        let difference = format!(
            "ways meet here on which the original stands at different places (the other at {:#x})",
            there.unwrap_or(0)
        );
        self.fail(index, state, difference)
    }

    /// Executes an instruction of the rewritten function; returns what is known before the next.
    fn step(&mut self, index: usize, mut state: State) -> Result<Option<State>> {
        let next = match self.unit(index, &mut state)? {
            Some(next) => Some(next),
            None => self.move_values(index, &mut state),
        };
        let Some(next) = next else {
            return self.effect(index, state);
        };
        if next == index + 1 {
            return Ok(Some(state));
        }
        self.go_to(next, Some(index), state)?;
        Ok(None)
    }

    /// Executes several inserted instructions that only make sense together; returns where it goes on.
    fn unit(&mut self, index: usize, state: &mut State) -> Result<Option<usize>> {
        let Operator::I32Const { value } = self.rewritten.ops[index] else {
            return Ok(None);
        };
        match self.rewritten.ops.get(index + 1) {
            Some(Operator::I32Load { memarg }) if memarg.memory == self.context.request => {
                self.safepoint(index, state).map(Some)
            }
            Some(Operator::I32Load { memarg })
                if memarg.memory == self.context.control && state.at.calling =>
            {
                self.call_clone(index, state).map(Some)
            }
            Some(Operator::I32Const { value: 0 })
                if matches!(
                    self.rewritten.ops.get(index + 2),
                    Some(Operator::I32Store { memarg })
                        if memarg.memory == self.context.request
                            && memarg.offset == u64::from(control::FENCE)
                ) =>
            {
                Ok(Some(index + 3))
            }
            Some(Operator::TableGet { table })
                if *table == self.context.referenced_table && self.context.clones.is_some() =>
            {
                self.referenced_function(index, value, state).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Executes an instruction that only moves values, marks a place, or whose operands are constants of inserted
    /// code; returns where it goes on, or nothing if the instruction has an effect.
    pub fn move_values(&mut self, index: usize, state: &mut State) -> Option<usize> {
        let rewritten = self.rewritten;
        let side = &mut state.rewritten;
        match &rewritten.ops[index] {
            Operator::Nop
            | Operator::Block { .. }
            | Operator::Loop { .. }
            | Operator::TryTable { .. } => {}
            Operator::End if !rewritten.is_last(index) => {}
            Operator::Else => {
                return Some(rewritten.constructs[rewritten.within[index]].end + 1);
            }
            Operator::LocalGet { local_index } => {
                side.stack.push(side.locals[*local_index as usize]);
            }
            Operator::LocalSet { local_index } => {
                side.locals[*local_index as usize] = side.stack.pop()?;
            }
            Operator::LocalTee { local_index } => {
                side.locals[*local_index as usize] = *side.stack.last()?;
            }
            Operator::Drop => {
                side.stack.pop();
            }
            Operator::Br { relative_depth } => {
                return Some(jump(state, rewritten.branch(index, *relative_depth)));
            }
            Operator::RefAsNonNull => {
                return self
                    .is_inserted_assertion(index, state)
                    .then_some(index + 1);
            }
            Operator::RefCastNonNull { .. } | Operator::RefCastNullable { .. }
                if state.unchecked.is_some() => {}
            _ => return self.constant(index, state),
        }
        Some(index + 1)
    }

    /// Whether the assertion that a reference is not null is none of the original: locals that were added admit null.
    fn is_inserted_assertion(&self, index: usize, state: &State) -> bool {
        if state.unchecked.is_some()
            || matches!(
                self.rewritten.ops.get(index + 1),
                Some(Operator::RefAsNonNull)
            )
        {
            return true;
        }
        let mut ahead = state.clone();
        original::to_next_effect(self.original, &mut ahead);
        !(matches!(self.original.ops[ahead.at.index], Operator::RefAsNonNull)
            && ahead.original.stack.last() == state.rewritten.stack.last())
    }

    /// Executes an instruction on constants of inserted code.
    fn constant(&mut self, index: usize, state: &mut State) -> Option<usize> {
        let rewritten = self.rewritten;
        let stack = &mut state.rewritten.stack;
        let top = stack.last().and_then(|value| value.known());
        match &rewritten.ops[index] {
            Operator::I32Const { value } => {
                let sets_entry = matches!(rewritten.ops.get(index + 1), Some(Operator::LocalSet { local_index }) if Some(*local_index) == self.entry);
                if !sets_entry && top.is_none() {
                    return None;
                }
                stack.push(Value::constant(*value)?);
                return Some(index + 1);
            }
            Operator::I32Eqz => {
                let result = Value::constant(i32::from(top? == 0))?;
                stack.pop();
                stack.push(result);
                return Some(index + 1);
            }
            Operator::I32Sub | Operator::I32LtU | Operator::I32Eq => {
                let left = stack.get(stack.len().checked_sub(2)?)?.known()?;
                let (left, right) = (left as i32, top? as i32);
                let result = match &rewritten.ops[index] {
                    Operator::I32Sub => left.wrapping_sub(right),
                    Operator::I32LtU => i32::from(left < right),
                    _ => i32::from(left == right),
                };
                let result = Value::constant(result)?;
                stack.truncate(stack.len() - 2);
                stack.push(result);
                return Some(index + 1);
            }
            _ => {}
        }
        let top = top?;
        let target = match &rewritten.ops[index] {
            Operator::BrIf { relative_depth } => {
                (top != 0).then(|| rewritten.branch(index, *relative_depth))
            }
            Operator::If { .. } => {
                stack.pop();
                return Some(if top != 0 {
                    index + 1
                } else {
                    rewritten.alternative(index)
                });
            }
            Operator::BrTable { targets } => {
                let depth = targets.targets().flatten().nth(top as usize);
                Some(rewritten.branch(index, depth.unwrap_or(targets.default())))
            }
            _ => return None,
        };
        stack.pop();
        Some(match target {
            Some(target) => jump(state, target),
            None => index + 1,
        })
    }

    /// The error that says where the two functions part.
    pub fn fail<T>(&self, index: usize, state: &State, difference: impl Into<String>) -> Result<T> {
        let offset = |code: &Code<'_>, index: usize| code.offsets.get(index).copied();
        Err(Error::Code {
            function: self.function,
            rewritten: offset(self.rewritten, index).unwrap_or(0),
            original: offset(self.original, state.at.index).unwrap_or(0),
            difference: difference.into(),
        })
    }
}

/// Takes the branch in the rewritten function.
pub(crate) fn jump(state: &mut State, jump: Jump) -> usize {
    state.rewritten.cut(jump.height, jump.arity);
    jump.to
}
