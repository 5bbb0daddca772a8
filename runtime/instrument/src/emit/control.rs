//! Control instructions: what they need of the operand stack, and where their labels are in the code written.

use super::peel::Peeled;
use super::sites::Frame;
use super::unroll::Written;
use super::{Emitter, Operand};
use crate::analysis::{Construct, block_signature};
use crate::error::Result;
use crate::points::Point;
use crate::types;
use wasm_encoder as enc;
use wasmparser::{BlockType, Catch, FrameKind, ModuleArity, Operator, ValType};

/// An open control instruction of live code.
pub(super) struct Control {
    /// Height of the symbolic stack below its parameters.
    base: usize,
    /// The operands that are its parameters, as they are at its start.
    params: Vec<Operand>,
    results: usize,
    /// Which of the control instructions open in the code written has its label.
    label: u32,
    shape: Shape,
    /// For a loop that can be written several times if nothing within speaks against it.
    unrollable: Option<Unrollable>,
    /// For the first copy of a loop that is written twice.
    peeled: Option<Peeled>,
    /// For a loop that polls on the way back.
    poll: Option<Frame>,
    /// Its place among the constructs; none for the function itself.
    construct: Option<Construct>,
    /// Offsets at which, in a clone, the code can be entered, last first.
    pub arrivals: Vec<u32>,
    /// In a clone: whether its start can be reached from behind a target, and, so far, whether its end can by a branch.
    pub is_start_behind_target: bool,
    pub is_end_behind_target: bool,
}

/// A loop without parameters that polls.
struct Unrollable {
    written: Written,
    /// How many safepoints there were with its poll.
    safepoints: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Shape {
    /// As in the original.
    Same,
    /// A loop with parameters that holds safepoints: `block $exit loop block $back … br $exit end … br 0 end end`.
    /// Branches to it go to the end of `$back`, where the new parameters are parked.
    WrappedLoop,
    /// A loop that polls on the ways back that have passed no other safepoint:
    /// `block $exit loop $loop block $back … br $exit end …poll… br $loop end end`. Branches go to the end of `$back`, unless
    /// they have passed a safepoint.
    PollsBack,
    /// The first copy of a loop that is written twice: `block $exit block $again … br $exit end`.
    FirstTurn,
    /// The second one: `loop … end end`.
    OtherTurns,
}

impl<'a> Emitter<'_, '_, 'a> {
    /// Opens the function's own label, polls if the plan says so, and lets a clone go where it must.
    pub(super) fn open_function(&mut self, site: u32, first: u32) {
        self.frames.push(Control {
            base: 0,
            params: Vec::new(),
            results: self.results.len(),
            label: 0,
            shape: Shape::Same,
            unrollable: None,
            peeled: None,
            poll: None,
            construct: None,
            arrivals: Vec::new(),
            is_start_behind_target: false,
            is_end_behind_target: false,
        });
        self.nest = 1;
        let end = self.module.body(self.function).range().end as u32;
        self.dispatch(site, end);
        if self.around.plan.decision(self.function).polls_entry && !self.is_clone() {
            self.poll_entry(Point::Next(first), site);
        }
    }

    /// The depth that a branch written now needs to reach the frame `depth` levels up.
    pub(super) fn label(&self, depth: u32) -> u32 {
        let frame = &self.frames[self.frames.len() - 1 - depth as usize];
        self.nest - 1 - frame.label
    }

    /// The same for the branch at `offset` in the original.
    fn label_of_branch(&self, depth: u32, offset: usize) -> u32 {
        let frame = &self.frames[self.frames.len() - 1 - depth as usize];
        let skips_poll = frame.shape == Shape::PollsBack
            && frame
                .construct
                .as_ref()
                .is_some_and(|to| self.analysis.is_checked_way(offset as u32, to));
        // The loop itself is one further out than what its poll follows.
        self.label(depth) + u32::from(skips_poll)
    }

    pub(super) fn open(
        &mut self,
        operator: &Operator<'a>,
        offset: usize,
        end: usize,
    ) -> Result<()> {
        let index = self.next_construct;
        let construct = self.analysis.constructs[index].clone();
        self.next_construct += 1;
        let (ty, tests) = match operator {
            Operator::Block { blockty } | Operator::Loop { blockty } => (*blockty, 0),
            Operator::If { blockty } => (*blockty, 1),
            Operator::TryTable { try_table } => (try_table.ty, 0),
            _ => unreachable!("only control instructions are opened"),
        };
        let (params, result_types) = block_signature(self.module, ty);
        let (params, results) = (params.len(), result_types.len());
        let mut shape = Shape::Same;
        let mut opening = self.code.len();
        let mut before = Vec::new();
        if construct.holds_points {
            self.park_all();
            opening = self.code.len();
            before.clone_from(&self.stack);
            if tests == 1 {
                self.test_with_targets(&construct);
                self.stack.pop();
            }
            shape = self.write_without_parameters(operator, ty, params, index);
            if tests == 1 {
                self.stack.push(Operand::Stacked);
            }
        } else {
            self.need(params + tests);
            self.write_opening(operator, offset, end, None);
        }
        self.validator.op(offset, operator)?;
        self.pop(tests);
        let base = self.stack.len() - params;
        self.nest += match shape {
            Shape::WrappedLoop | Shape::PollsBack => 3,
            Shape::FirstTurn => 2,
            Shape::Same | Shape::OtherTurns => 1,
        };
        let is_polled = construct.polls && shape != Shape::PollsBack;
        let is_fenced = construct.is_fenced;
        let point = Point::Next(end as u32);
        let poll = (shape == Shape::PollsBack)
            .then(|| self.frame_on_the_way_back(point, offset as u32, &construct));
        let (start, stop) = (construct.start, construct.middle.unwrap_or(construct.end));
        let holds_targets = !self.targets.within(start, stop).is_empty();
        let goes_round = construct.is_loop && shape != Shape::FirstTurn;
        if let Operator::TryTable { try_table } = operator {
            self.follow_catches(&try_table.catches, holds_targets);
        }
        self.frames.push(Control {
            base,
            params: self.stack[base..].to_vec(),
            results,
            label: self.nest - 1,
            shape,
            unrollable: None,
            peeled: (shape == Shape::FirstTurn).then_some(Peeled {
                construct: index,
                stack: before,
            }),
            poll,
            construct: Some(construct),
            arrivals: Vec::new(),
            is_start_behind_target: self.behind_target,
            // The first copy of a loop goes to where the second one ends.
            is_end_behind_target: shape == Shape::OtherTurns,
        });
        self.behind_target |= goes_round && holds_targets;
        self.dispatch(start, stop);
        if is_polled {
            self.poll_loop(point, offset as u32, is_fenced);
        }
        if is_polled && params == 0 && !holds_targets && !self.counts_turns() {
            let encoded: Vec<enc::ValType> = result_types
                .iter()
                .map(|ty| types::encode(self.module, *ty))
                .collect();
            let unrollable = Unrollable {
                written: Written {
                    opening,
                    body: self.code.len(),
                    results: self.around.types.block(&encoded),
                },
                safepoints: self.pads.len(),
            };
            if let Some(frame) = self.frames.last_mut() {
                frame.unrollable = Some(unrollable);
            }
        }
        Ok(())
    }

    /// Opens a control instruction whose parameters are parked.
    fn write_without_parameters(
        &mut self,
        operator: &Operator<'a>,
        ty: BlockType,
        params: usize,
        construct: usize,
    ) -> Shape {
        let (param_types, results) = block_signature(self.module, ty);
        let encode = |list: &[ValType]| {
            list.iter()
                .map(|ty| types::encode(self.module, *ty))
                .collect::<Vec<_>>()
        };
        let results = self.around.types.block(&encode(&results));
        if self
            .second_copy
            .take_if(|copied| *copied == construct)
            .is_some()
        {
            self.sink().loop_(results);
            return Shape::OtherTurns;
        }
        if params == 0 && self.is_peeled(construct) {
            self.sink().block(results).block(enc::BlockType::Empty);
            return Shape::FirstTurn;
        }
        if params == 0 && self.polls_back(construct) {
            self.sink()
                .block(results)
                .loop_(enc::BlockType::Empty)
                .block(enc::BlockType::Empty);
            return Shape::PollsBack;
        }
        if params == 0 || !matches!(operator, Operator::Loop { .. }) {
            self.write_opening(operator, 0, 0, Some(results));
            return Shape::Same;
        }
        let param_types = encode(param_types);
        self.widen_parameters(&param_types);
        for operand in &self.stack[self.stack.len() - params..] {
            if let Operand::Parked { local, .. } = *operand {
                // From here on it may be what a branch to the loop has brought.
                self.locals.park(local, self.code.len());
            }
        }
        let back = self.around.types.block(&param_types);
        self.sink()
            .block(results)
            .loop_(enc::BlockType::Empty)
            .block(back);
        Shape::WrappedLoop
    }

    /// Where safepoints are counted, each turn of a loop counts.
    fn counts_turns(&self) -> bool {
        let options = &self.around.plan.options;
        options.redundant_safepoints || options.countable_safepoints
    }

    /// Whether a control instruction is a loop that polls on the way back only. A loop in recursion is often left after a turn or
    /// two; the main loop of an interpreter would feel the jump more that each turn then takes.
    fn polls_back(&self, construct: usize) -> bool {
        let construct = &self.analysis.constructs[construct];
        !self.is_clone()
            && self.around.plan.decision(self.function).is_tight_recursion
            && construct.polls
            && construct.checks_calls
            && construct.is_fenced
            && !self.counts_turns()
    }

    /// Branches to a loop may pass on any values of its parameters' types, whatever is known of those it starts with: its
    /// parameters move to locals of these types.
    fn widen_parameters(&mut self, types: &[enc::ValType]) {
        let base = self.stack.len() - types.len();
        for (height, ty) in (base..).zip(types) {
            let Operand::Parked { local, .. } = self.stack[height] else {
                continue;
            };
            let wide = self.locals.parking(height, *ty);
            self.stack[height] = Operand::Parked {
                local: wide,
                non_null: types::is_non_null(*ty),
            };
            if wide == local {
                continue;
            }
            if self.is_clone() {
                // On the way to a target inside, the wide one has just been restored and the other has not.
                let entry = self.locals.entry();
                self.sink()
                    .local_get(entry)
                    .i32_eqz()
                    .if_(enc::BlockType::Empty);
            }
            self.sink().local_get(local).local_set(wide);
            if self.is_clone() {
                self.sink().end();
            }
        }
    }

    /// Opens a control instruction, as it stands or with another block type.
    fn write_opening(
        &mut self,
        operator: &Operator<'a>,
        offset: usize,
        end: usize,
        ty: Option<enc::BlockType>,
    ) {
        if let Operator::TryTable { try_table } = operator {
            let (params, results) = block_signature(self.module, try_table.ty);
            let encode = |list: &[ValType]| {
                list.iter()
                    .map(|ty| types::encode(self.module, *ty))
                    .collect::<Vec<_>>()
            };
            let ty = ty.unwrap_or(match try_table.ty {
                BlockType::FuncType(index) => enc::BlockType::FunctionType(index),
                _ => {
                    debug_assert!(params.is_empty());
                    self.around.types.block(&encode(&results))
                }
            });
            let catches: Vec<enc::Catch> = try_table
                .catches
                .iter()
                .map(|catch| self.catch(catch))
                .collect();
            self.sink().try_table(ty, catches);
            return;
        }
        match (operator, ty) {
            (_, None) => self.copy(offset, end),
            (Operator::Block { .. }, Some(ty)) => {
                self.sink().block(ty);
            }
            (Operator::Loop { .. }, Some(ty)) => {
                self.sink().loop_(ty);
            }
            (_, Some(ty)) => {
                self.sink().if_(ty);
            }
        }
    }

    fn catch(&self, catch: &Catch) -> enc::Catch {
        match *catch {
            Catch::One { tag, label } => enc::Catch::One {
                tag,
                label: self.label(label),
            },
            Catch::OneRef { tag, label } => enc::Catch::OneRef {
                tag,
                label: self.label(label),
            },
            Catch::All { label } => enc::Catch::All {
                label: self.label(label),
            },
            Catch::AllRef { label } => enc::Catch::AllRef {
                label: self.label(label),
            },
        }
    }

    /// `else`: the results of the first arm are on the real stack, the second starts with the parameters.
    pub(super) fn alternative(
        &mut self,
        operator: &Operator<'a>,
        offset: usize,
        end: usize,
        live: bool,
    ) -> Result<()> {
        let frame = &self.frames[self.frames.len() - 1];
        let results = frame.results;
        if live {
            self.need(results);
        }
        self.copy(offset, end);
        self.validator.op(offset, operator)?;
        let frame = &self.frames[self.frames.len() - 1];
        self.stack.truncate(frame.base);
        self.stack.extend_from_slice(&frame.params);
        let stop = frame.construct.as_ref().map(|construct| construct.end);
        self.follow_alternative(live);
        if let Some(stop) = stop {
            self.dispatch(offset as u32, stop);
        }
        Ok(())
    }

    pub(super) fn close(
        &mut self,
        operator: &Operator<'a>,
        offset: usize,
        live: bool,
    ) -> Result<()> {
        if live {
            let results = self.frames[self.frames.len() - 1].results;
            self.need(results);
        }
        let lacks_alternative = self
            .validator
            .get_control_frame(0)
            .is_some_and(|frame| frame.kind == FrameKind::If);
        let Some(frame) = self.frames.pop() else {
            return Ok(());
        };
        if lacks_alternative
            && frame
                .construct
                .as_ref()
                .is_some_and(|construct| construct.holds_points)
        {
            self.pass_parameters_on(&frame);
        }
        self.follow_end(&frame, live, lacks_alternative);
        if let Some(peeled) = frame.peeled {
            self.nest = frame.label;
            return self.go_back(peeled, live);
        }
        let tiny = frame.unrollable.as_ref();
        let tiny = tiny.filter(|tiny| tiny.safepoints == self.pads.len());
        if matches!(frame.shape, Shape::WrappedLoop | Shape::PollsBack) {
            self.close_wrapped_loop(frame.label, &frame.params, frame.poll, live);
        } else if !self.unroll(tiny.map(|tiny| &tiny.written), live)? {
            self.sink().end();
        }
        if frame.shape == Shape::OtherTurns {
            self.sink().end();
        }
        self.nest = match frame.shape {
            Shape::WrappedLoop | Shape::PollsBack => frame.label - 2,
            Shape::OtherTurns => frame.label - 1,
            Shape::Same | Shape::FirstTurn => frame.label,
        };
        self.validator.op(offset, operator)?;
        self.stack.truncate(frame.base);
        self.push_stacked(frame.results);
        Ok(())
    }

    /// An `if` without `else` has its parameters as results when the test fails, which it cannot take from the real
    /// stack when they are parked.
    fn pass_parameters_on(&mut self, frame: &Control) {
        if frame.params.is_empty() {
            return;
        }
        self.sink().else_();
        for param in &frame.params {
            if let Operand::Parked { local, non_null } = *param {
                self.get_parked(local, non_null);
            }
        }
    }

    /// Ends a loop that has a block in it, whose label is `label`, and what is behind that.
    fn close_wrapped_loop(
        &mut self,
        label: u32,
        params: &[Operand],
        poll: Option<Frame>,
        live: bool,
    ) {
        let mut sink = self.sink();
        if live {
            sink.br(2);
        }
        sink.end();
        for param in params.iter().rev() {
            if let Operand::Parked { local, .. } = param {
                sink.local_set(*local);
            }
        }
        self.nest = label;
        if let Some(poll) = poll {
            self.check(poll);
        }
        self.sink().br(0).end().unreachable().end();
    }

    /// Branches: the operands that they may pass on are on the real stack, labels are those of the code written.
    pub(super) fn branch(&mut self, operator: &Operator<'a>, offset: usize) -> Result<()> {
        let (pops, pushes) = self.arity(operator);
        self.need(pops as usize);
        match operator {
            Operator::Br { relative_depth } => {
                let label = self.label_of_branch(*relative_depth, offset);
                self.sink().br(label);
            }
            Operator::BrIf { relative_depth } => {
                let label = self.label_of_branch(*relative_depth, offset);
                self.sink().br_if(label);
            }
            Operator::BrOnNull { relative_depth } => {
                let label = self.label_of_branch(*relative_depth, offset);
                self.sink().br_on_null(label);
            }
            Operator::BrOnNonNull { relative_depth } => {
                let label = self.label_of_branch(*relative_depth, offset);
                self.sink().br_on_non_null(label);
            }
            Operator::BrTable { targets } => {
                let default = self.label_of_branch(targets.default(), offset);
                let labels: Vec<u32> = targets
                    .targets()
                    .flatten()
                    .map(|depth| self.label_of_branch(depth, offset))
                    .collect();
                self.sink().br_table(labels, default);
            }
            Operator::BrOnCast {
                relative_depth,
                from_ref_type,
                to_ref_type,
            }
            | Operator::BrOnCastFail {
                relative_depth,
                from_ref_type,
                to_ref_type,
            } => {
                let label = self.label_of_branch(*relative_depth, offset);
                let from = types::encode_ref(self.module, *from_ref_type);
                let to = types::encode_ref(self.module, *to_ref_type);
                match operator {
                    Operator::BrOnCast { .. } => self.sink().br_on_cast(label, from, to),
                    _ => self.sink().br_on_cast_fail(label, from, to),
                };
            }
            _ => unreachable!("only branches branch"),
        }
        self.advance(operator, offset, pops, pushes)
    }

    /// How many operands an instruction pops and pushes.
    pub(super) fn arity(&self, operator: &Operator<'a>) -> (u32, u32) {
        // The arities of these two depend on the label, which the library counts without the reference itself.
        let label_arity = |depth: u32| {
            let (ty, kind) = self
                .validator
                .label_block(depth)
                .unwrap_or((BlockType::Empty, FrameKind::Block));
            let (params, results) = block_signature(self.module, ty);
            (if kind == FrameKind::Loop {
                params.len()
            } else {
                results.len()
            }) as u32
        };
        match operator {
            Operator::BrOnNull { relative_depth } => {
                let label = label_arity(*relative_depth);
                (label + 1, label + 1)
            }
            Operator::BrOnNonNull { relative_depth } => {
                let label = label_arity(*relative_depth);
                (label, label - 1)
            }
            _ => operator.operator_arity(&self.validator).unwrap_or((0, 0)),
        }
    }

    /// Whether the code is for a module of clones.
    pub(super) fn is_clone(&self) -> bool {
        matches!(self.around.kind, super::Kind::Clones(_))
    }
}
