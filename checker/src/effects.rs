//! Instructions with an effect: both functions must execute the same, on equal operands.

use crate::code::Jump;
use crate::context::{Role, segment_words};
use crate::control;
use crate::error::Result;
use crate::original;
use crate::product::{Product, jump};
use crate::state::{ALL_LOOPS, At, State};
use wasmparser::Operator;

impl Product<'_, '_> {
    /// Executes an instruction of the rewritten function with the original's next one that has an effect.
    pub fn effect(&mut self, index: usize, mut state: State) -> Result<Option<State>> {
        if state.unchecked.is_some() {
            return self.fail(
                index,
                &state,
                "a call that may come back unwinding is not tested",
            );
        }
        original::to_next_effect(self.original, &mut state);
        let (first, second) = (
            &self.original.ops[state.at.index],
            &self.rewritten.ops[index],
        );
        match (first, second) {
            (Operator::If { .. }, Operator::If { .. }) => self.choose(index, state),
            (Operator::BrIf { .. }, Operator::BrIf { .. })
            | (Operator::BrOnNull { .. }, Operator::BrOnNull { .. })
            | (Operator::BrOnNonNull { .. }, Operator::BrOnNonNull { .. })
            | (Operator::BrOnCast { .. }, Operator::BrOnCast { .. })
            | (Operator::BrOnCastFail { .. }, Operator::BrOnCastFail { .. }) => {
                self.branch_conditionally(index, state)
            }
            (Operator::BrTable { .. }, Operator::BrTable { .. }) => {
                self.branch_by_table(index, state)
            }
            (Operator::Return | Operator::End, Operator::Return | Operator::End) => {
                let results = self.original.constructs[0].results;
                self.take(index, &mut state, results)?;
                Ok(None)
            }
            (Operator::Unreachable, Operator::Unreachable) => Ok(None),
            (Operator::Throw { .. } | Operator::ThrowRef, _) if first == second => {
                let count = self.original.effects[state.at.index].0;
                self.take(index, &mut state, count)?;
                self.catch(index, &state, state.at.index)?;
                Ok(None)
            }
            (
                Operator::Call { .. } | Operator::CallIndirect { .. } | Operator::CallRef { .. },
                Operator::Call { .. } | Operator::CallIndirect { .. } | Operator::CallRef { .. },
            ) => self.call(index, state),
            (
                Operator::ReturnCall { function_index },
                Operator::ReturnCall {
                    function_index: other,
                },
            ) if self.context.role(*other) == Role::Original(*function_index) => {
                let count = self.original.effects[state.at.index].0;
                self.take(index, &mut state, count)?;
                Ok(None)
            }
            (Operator::ReturnCallIndirect { .. } | Operator::ReturnCallRef { .. }, _)
                if first == second =>
            {
                let count = self.original.effects[state.at.index].0;
                self.take(index, &mut state, count)?;
                Ok(None)
            }
            (
                Operator::RefFunc { function_index },
                Operator::RefFunc {
                    function_index: other,
                },
            ) if self.context.role(*other) == Role::Original(*function_index) => {
                self.compute(index, state)
            }
            _ => self.other(index, state),
        }
    }

    fn other(&mut self, index: usize, mut state: State) -> Result<Option<State>> {
        let (first, second) = (
            &self.original.ops[state.at.index],
            &self.rewritten.ops[index],
        );
        if let Some(words) = segment_words(first) {
            return self.segment(index, state, words);
        }
        let is_same = first == second && !matches!(first, Operator::RefFunc { .. });
        if !is_same {
            let difference = format!("there is {second:?} where there should be {first:?}");
            original::to_next_effect(self.original, &mut state);
            return self.fail(index, &state, difference);
        }
        self.compute(index, state)
    }

    /// Takes operands off both stacks, which must be equal pair by pair.
    fn take(&mut self, index: usize, state: &mut State, count: usize) -> Result<()> {
        let (first, second) = (&mut state.original.stack, &mut state.rewritten.stack);
        let (Some(from), Some(there)) = (
            first.len().checked_sub(count),
            second.len().checked_sub(count),
        ) else {
            return self.fail(index, state, "there are too few operands");
        };
        let differing = (0..count).find(|operand| first[from + operand] != second[there + operand]);
        first.truncate(from);
        second.truncate(there);
        let Some(operand) = differing else {
            return Ok(());
        };
        let operator = &self.original.ops[state.at.index];
        let difference = format!("operand {operand} of {operator:?} is not the original's");
        self.fail(index, state, difference)
    }

    /// Puts new values on both stacks.
    fn give(&mut self, state: &mut State, count: usize) {
        for _ in 0..count {
            let value = self.values.fresh();
            state.original.stack.push(value);
            state.rewritten.stack.push(value);
        }
    }

    fn advance(state: &mut State) {
        state.at.index += 1;
        state.moved = ALL_LOOPS;
    }

    fn compute(&mut self, index: usize, mut state: State) -> Result<Option<State>> {
        let (pops, pushes) = self.original.effects[state.at.index];
        self.take(index, &mut state, pops)?;
        self.give(&mut state, pushes);
        Self::advance(&mut state);
        Ok(Some(state))
    }

    /// An instruction on a segment: the rewritten module notes what was dropped, clones call a helper.
    fn segment(
        &mut self,
        index: usize,
        mut state: State,
        words: [u32; 3],
    ) -> Result<Option<State>> {
        let operator = &self.rewritten.ops[index];
        let mut next = index + 1;
        if self.context.clones.is_some() {
            let helper = match operator {
                Operator::Call { function_index } => self.context.role(*function_index),
                _ => Role::Other,
            };
            if helper != Role::Segment(words) {
                return self.fail(index, &state, "an instruction on a segment is another one");
            }
        } else {
            if *operator != self.original.ops[state.at.index] {
                return self.fail(index, &state, "an instruction on a segment is another one");
            }
            let flag = match words {
                [2, _, segment] => Some(control::DROPPED + segment),
                [3, _, segment] => Some(control::DROPPED + self.context.data_segments + segment),
                _ => None,
            };
            if let Some(flag) = flag {
                if !self.notes_dropped(next, flag) {
                    return self.fail(next, &state, "it is not noted that a segment was dropped");
                }
                next += 3;
            }
        }
        let (pops, _) = self.original.effects[state.at.index];
        self.take(index, &mut state, pops)?;
        Self::advance(&mut state);
        if next == index + 1 {
            return Ok(Some(state));
        }
        self.go_to(next, Some(index), state)?;
        Ok(None)
    }

    fn notes_dropped(&self, index: usize, flag: u32) -> bool {
        matches!(
            self.rewritten.ops.get(index..index + 3),
            Some([
                Operator::I32Const { value: 0 },
                Operator::I32Const { value: 1 },
                Operator::I32Store8 { memarg },
            ]) if memarg.memory == self.context.control && memarg.offset == u64::from(flag)
        )
    }

    fn choose(&mut self, index: usize, mut state: State) -> Result<Option<State>> {
        self.take(index, &mut state, 1)?;
        let mut otherwise = state.clone();
        otherwise.at.index = self.original.alternative(state.at.index);
        otherwise.moved = ALL_LOOPS;
        self.go_to(self.rewritten.alternative(index), Some(index), otherwise)?;
        Self::advance(&mut state);
        Ok(Some(state))
    }

    /// Both functions take a branch.
    fn branch(
        &mut self,
        index: usize,
        mut state: State,
        to: Jump,
        rewritten_to: Jump,
    ) -> Result<()> {
        original::jump(&mut state, to);
        let next = jump(&mut state, rewritten_to);
        self.go_to(next, Some(index), state)
    }

    fn branch_conditionally(&mut self, index: usize, mut state: State) -> Result<Option<State>> {
        let at = state.at.index;
        let (first, second) = (&self.original.ops[at], &self.rewritten.ops[index]);
        let (Some(depth), Some(rewritten_depth)) = (depth(first), depth(second)) else {
            return self.fail(index, &state, "a branch has no label");
        };
        if casts(first) != casts(second) {
            return self.fail(index, &state, "a cast is another one");
        }
        let to = self.original.branch(at, depth);
        let rewritten_to = self.rewritten.branch(index, rewritten_depth);
        let mut taken = state.clone();
        let value = state.rewritten.stack.last().copied();
        self.take(index, &mut state, 1)?;
        self.take(index, &mut taken, 1)?;
        let (goes_along, stays) = match first {
            Operator::BrIf { .. } => (false, false),
            Operator::BrOnNull { .. } => (false, true),
            Operator::BrOnNonNull { .. } => (true, false),
            _ => (true, true),
        };
        for (keeps, state) in [(goes_along, &mut taken), (stays, &mut state)] {
            if let Some(value) = value.filter(|_| keeps) {
                state.original.stack.push(value);
                state.rewritten.stack.push(value);
            }
        }
        self.branch(index, taken, to, rewritten_to)?;
        Self::advance(&mut state);
        Ok(Some(state))
    }

    fn branch_by_table(&mut self, index: usize, mut state: State) -> Result<Option<State>> {
        let at = state.at.index;
        self.take(index, &mut state, 1)?;
        let (Operator::BrTable { targets }, Operator::BrTable { targets: others }) =
            (&self.original.ops[at], &self.rewritten.ops[index])
        else {
            return Ok(None);
        };
        if targets.len() != others.len() {
            return self.fail(index, &state, "a table of labels has another length");
        }
        let labels = targets.targets().flatten().chain([targets.default()]);
        let others = others.targets().flatten().chain([others.default()]);
        let mut pairs: Vec<(u32, u32)> = labels.zip(others).collect();
        pairs.sort_unstable();
        pairs.dedup();
        for (depth, rewritten_depth) in pairs {
            let to = self.original.branch(at, depth);
            let rewritten_to = self.rewritten.branch(index, rewritten_depth);
            self.branch(index, state.clone(), to, rewritten_to)?;
        }
        Ok(None)
    }

    /// An exception thrown here goes on at the same handlers in both functions.
    fn catch(&mut self, index: usize, state: &State, original_index: usize) -> Result<()> {
        let handlers = self.original.handlers(original_index);
        let others = self.rewritten.handlers(index);
        let are_same = handlers.len() == others.len()
            && handlers.iter().zip(&others).all(|(handler, other)| {
                handler.tag == other.tag
                    && handler.reference == other.reference
                    && handler.jump.arity == other.jump.arity
            });
        if !are_same {
            return self.fail(index, state, "exceptions are caught by others");
        }
        for (handler, other) in handlers.iter().zip(&others) {
            let mut caught = state.clone();
            caught.unchecked = None;
            caught.original.stack.truncate(handler.jump.height);
            caught.rewritten.stack.truncate(other.jump.height);
            self.give(&mut caught, handler.jump.arity);
            caught.at = At {
                index: handler.jump.to,
                calling: false,
            };
            caught.moved = ALL_LOOPS;
            self.go_to(other.jump.to, Some(index), caught)?;
        }
        Ok(())
    }

    fn call(&mut self, index: usize, mut state: State) -> Result<Option<State>> {
        let at = state.at.index;
        let (first, second) = (&self.original.ops[at], &self.rewritten.ops[index]);
        let is_same = match (first, second) {
            (
                Operator::Call { function_index },
                Operator::Call {
                    function_index: other,
                },
            ) => self.context.role(*other) == Role::Original(*function_index),
            _ => first == second,
        };
        if !is_same {
            return self.fail(
                index,
                &state,
                format!("{second:?} calls something else than {first:?}"),
            );
        }
        let (pops, _) = self.original.effects[at];
        self.take(index, &mut state, pops)?;
        self.finish_call(index, &mut state)?;
        Ok(Some(state))
    }

    /// What a call of both functions, whose arguments are gone, can lead to.
    fn finish_call(&mut self, index: usize, state: &mut State) -> Result<()> {
        let at = state.at.index;
        self.catch(index, state, at)?;
        let (_, pushes) = self.original.effects[at];
        self.give(state, pushes);
        let unwinds = match self.original.ops[at] {
            Operator::Call { function_index } => self.context.unwinds(function_index),
            _ => true,
        };
        state.unchecked = (unwinds || state.at.calling).then_some(at);
        state.at = At {
            index: at + 1,
            calling: false,
        };
        state.moved = ALL_LOOPS;
        Ok(())
    }

    /// In a clone, where a call was in progress: `i32.const 0, i32.load (restore pointer), i32.load (clone), call_indirect`.
    pub fn call_clone(&mut self, index: usize, state: &mut State) -> Result<usize> {
        let is_call = matches!(
            self.rewritten.ops.get(index..index + 4),
            Some([
                Operator::I32Const { value: 0 },
                Operator::I32Load { memarg: pointer },
                Operator::I32Load { memarg: clone },
                Operator::CallIndirect { table_index, .. },
            ]) if pointer.offset == u64::from(control::RESTORE_POINTER)
                && clone.memory == self.context.control
                && clone.offset == 0
                && Some(*table_index) == self.context.clones
        );
        if !is_call {
            return self.fail(
                index,
                state,
                "a call in progress does not go on in the next clone",
            );
        }
        self.finish_call(index + 3, state)?;
        Ok(index + 4)
    }

    /// In a clone: a reference to a function is taken from the rewritten module's table of them.
    pub fn referenced_function(
        &mut self,
        index: usize,
        place: i32,
        state: &mut State,
    ) -> Result<usize> {
        if state.unchecked.is_some() {
            return self.fail(
                index,
                state,
                "a call that may come back unwinding is not tested",
            );
        }
        original::to_next_effect(self.original, state);
        let function = usize::try_from(place)
            .ok()
            .and_then(|place| self.context.referenced.get(place));
        match &self.original.ops[state.at.index] {
            Operator::RefFunc { function_index } if Some(function_index) == function => {}
            _ => return self.fail(index, state, "a reference is to another function"),
        }
        self.give(state, 1);
        Self::advance(state);
        let is_cast = matches!(
            self.rewritten.ops.get(index + 2),
            Some(Operator::RefCastNonNull { .. })
        );
        Ok(index + 2 + usize::from(is_cast))
    }
}

/// The label of a conditional branch.
fn depth(operator: &Operator<'_>) -> Option<u32> {
    match operator {
        Operator::BrIf { relative_depth }
        | Operator::BrOnNull { relative_depth }
        | Operator::BrOnNonNull { relative_depth }
        | Operator::BrOnCast { relative_depth, .. }
        | Operator::BrOnCastFail { relative_depth, .. } => Some(*relative_depth),
        _ => None,
    }
}

/// The types between which a branch casts.
fn casts(operator: &Operator<'_>) -> Option<(wasmparser::RefType, wasmparser::RefType)> {
    match operator {
        Operator::BrOnCast {
            from_ref_type,
            to_ref_type,
            ..
        }
        | Operator::BrOnCastFail {
            from_ref_type,
            to_ref_type,
            ..
        } => Some((*from_ref_type, *to_ref_type)),
        _ => None,
    }
}
