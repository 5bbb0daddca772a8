//! Safepoints: the test and what follows it, and calls that leave a frame.

use super::pads::{Leaving, Saved};
use super::{Emitter, Kind, Operand};
use crate::analysis::{Analysis, Construct, is_checked_call};
use crate::control::{FENCE, REQUEST_WORD, RESTORE_POINTER};
use crate::error::Result;
use crate::helpers;
use crate::points::Point;
use crate::types;
use wasm_encoder as enc;
use wasmparser::{Operator, ValType};

/// Marks versions that a loop's header has not.
const ON_THE_WAY_BACK: u64 = 1 << 63;

/// A frame as a safepoint stores it.
pub(super) struct Frame {
    /// Names the safepoint: an offset in the original module.
    site: u32,
    /// In the order of the slots that they get.
    values: Vec<Saved>,
}

impl<'a> Emitter<'_, '_, 'a> {
    /// A safepoint at the entry of the function. `site` names it in a raw frame.
    pub(super) fn poll_entry(&mut self, point: Point, site: u32) {
        let frame = self.frame(point, point.offset(), site, 0);
        self.ask(frame);
    }

    /// A safepoint at the header of a loop, where everything on the operand stack is parked; `is_fenced` if compilers
    /// cannot believe anyway that memory is the same on every turn.
    pub(super) fn poll_loop(&mut self, point: Point, site: u32, is_fenced: bool) {
        let frame = self.frame(point, point.offset(), site, self.stack.len());
        self.check(frame);
        if !is_fenced && !self.around.plan.options.countable_safepoints {
            let fence = helpers::at(self.around.request_memory, FENCE);
            self.sink().i32_const(0).i32_const(0).i32_store(fence);
        }
    }

    /// What a frame holds at the header of the loop that `construct` is, if it is stored on a way back there.
    pub(super) fn frame_on_the_way_back(
        &mut self,
        point: Point,
        site: u32,
        construct: &Construct,
    ) -> Frame {
        let mut frame = self.frame(point, point.offset(), site, self.stack.len());
        for saved in &mut frame.values {
            // What is written in the loop is another value there than at the header.
            if saved.version as u32 == construct.start {
                saved.version |= ON_THE_WAY_BACK;
            }
        }
        frame
    }

    /// What a frame holds that is stored at `point`: the live locals, and the operands below `height`. The code at
    /// `offset` is executed next.
    fn frame(&mut self, point: Point, offset: u32, site: u32, height: usize) -> Frame {
        let Analysis {
            constructs, live, ..
        } = &self.analysis;
        self.versions.go_to(constructs, offset);
        // A value differs from what it is in an earlier copy of the same code.
        let copy = u64::from(self.copies) << 32;
        let mut values = Vec::new();
        for &local in live.at(point).unwrap_or_default() {
            let version = self.versions.at(constructs, local, offset);
            values.push(Saved {
                local,
                version: copy | u64::from(version.max(self.entered)),
            });
        }
        for (local, _) in self.parked_below(height) {
            let version = copy | u64::from(self.locals.parked_at(local));
            values.push(Saved { local, version });
        }
        Frame { site, values }
    }

    /// A safepoint that only has to leave when the program is unwinding, unless safepoints are to be counted.
    pub(super) fn check(&mut self, frame: Frame) {
        if self.around.plan.options.countable_safepoints {
            self.ask(frame);
        } else {
            self.leave(frame);
        }
    }

    /// `if request word { if safepoint(0) { leave } }`
    ///
    /// The host is asked, and may say that the program goes on.
    fn ask(&mut self, frame: Frame) {
        let request = helpers::at(self.around.request_memory, REQUEST_WORD);
        let safepoint = self.around.safepoint;
        self.sink().i32_const(0).i32_load(request);
        self.hint(false);
        self.sink()
            .if_(enc::BlockType::Empty)
            .i32_const(0)
            .call(safepoint);
        // The path that does not come back is the first that Cranelift's numbering of blocks follows, and so the last
        // in its order: behind all loops, where the values that it stores don't count as used in a loop.
        self.hint(false);
        self.sink().if_(enc::BlockType::Empty);
        self.go_to_pad(frame, 2, None);
        self.sink().end().end();
    }

    /// `if request word < 0 { leave }`
    ///
    /// Nothing comes back, so that the hot code has to hold no value anywhere for its sake.
    fn leave(&mut self, frame: Frame) {
        let request = helpers::at(self.around.request_memory, REQUEST_WORD);
        self.sink().i32_const(0).i32_load(request).i32_const(0);
        let test_bytes = self.test();
        self.go_to_pad(frame, 1, Some(test_bytes));
        self.sink().end();
    }

    /// Within `nest` control instructions of a safepoint: here the way to its pad will be.
    fn go_to_pad(&mut self, frame: Frame, nest: u32, test_bytes: Option<usize>) {
        self.pads.add(Leaving {
            at: self.code.len(),
            test_bytes,
            depth: self.nest + nest,
            site: frame.site,
            values: frame.values,
        });
    }

    /// Any values of the function's result types: nobody looks at them while the stack unwinds.
    pub(super) fn default_results(&mut self) {
        let around = self.around;
        for ty in self.results.clone() {
            helpers::dummy_value(&mut self.sink(), ty, around.safepoint, &around.dummies);
        }
    }

    /// A call that is no tail call.
    pub(super) fn call(
        &mut self,
        operator: &Operator<'a>,
        offset: usize,
        end: usize,
    ) -> Result<()> {
        let (params, results) = self.arity(operator);
        let (params, results) = (params as usize, results as usize);
        let point = Point::Calling(offset as u32);
        let target = self.targets.id(point);
        let checks_all = self.around.plan.decision(self.function).checks_all_calls;
        let checked = is_checked_call(self.around.plan, checks_all, operator) == Some(true);
        if !checked && target.is_none() {
            self.need(params);
            self.write_call(operator, offset, end);
            return self.advance(operator, offset, params as u32, results as u32);
        }
        let beneath = self.stack.len() - params;
        if target.is_some() || self.stack[..beneath].contains(&Operand::Stacked) {
            self.park_all();
        }
        let result_types = self.result_types(operator);
        if let Some(target) = target {
            let operands = self.parked_below(beneath);
            self.targets.describe(target, &operands);
            self.reenter_or_call(operator, offset, end, params, &result_types);
        } else {
            self.need(params);
            self.write_call(operator, offset, end);
        }
        self.advance(operator, offset, params as u32, results as u32)?;
        self.park_results(beneath, &result_types);
        let frame = self.frame(point, end as u32, offset as u32, self.stack.len());
        self.check(frame);
        Ok(())
    }

    /// The results lie on the real stack; each goes into its local.
    fn park_results(&mut self, beneath: usize, types: &[enc::ValType]) {
        for (index, ty) in types.iter().enumerate().rev() {
            self.park_top_as(beneath + index, *ty);
        }
    }

    /// In a clone, at the call that was in progress: goes on in the clone of what was called, or calls.
    fn reenter_or_call(
        &mut self,
        operator: &Operator<'a>,
        offset: usize,
        end: usize,
        params: usize,
        results: &[enc::ValType],
    ) {
        let Kind::Clones(indices) = &self.around.kind else {
            return;
        };
        let table = indices.clones;
        let tops: Vec<enc::ValType> = results.iter().map(|ty| types::top(*ty)).collect();
        let ty = self.around.types.results(&tops);
        let block = self.around.types.block(results);
        let entry = self.locals.entry();
        let pointer = self.memory(RESTORE_POINTER);
        let clone = self.memory(0);
        self.sink().local_get(entry);
        self.hint(false);
        let mut sink = self.sink();
        sink.if_(block).i32_const(0).local_set(entry);
        sink.i32_const(0)
            .i32_load(pointer)
            .i32_load(clone)
            .call_indirect(table, ty);
        self.narrow_results(self.stack.len() - params, &tops, results);
        self.sink().else_();
        let arguments = self.stack[self.stack.len() - params..].to_vec();
        for argument in arguments {
            if let Operand::Parked { local, non_null } = argument {
                self.get_parked(local, non_null);
            }
        }
        self.write_call(operator, offset, end);
        self.sink().end();
    }

    /// Casts what a clone returned, which lies on the real stack, to the types that the call has.
    fn narrow_results(&mut self, beneath: usize, tops: &[enc::ValType], results: &[enc::ValType]) {
        if tops == results {
            return;
        }
        let locals: Vec<u32> = (beneath..)
            .zip(tops)
            .map(|(height, ty)| self.locals.parking(height, *ty))
            .collect();
        for local in locals.iter().rev() {
            self.sink().local_set(*local);
        }
        for ((local, top), ty) in locals.into_iter().zip(tops).zip(results) {
            let mut sink = self.sink();
            sink.local_get(local);
            match ty {
                enc::ValType::Ref(reference) if ty != top && reference.nullable => {
                    sink.ref_cast_nullable(reference.heap_type);
                }
                enc::ValType::Ref(reference) if ty != top => {
                    sink.ref_cast_non_null(reference.heap_type);
                }
                _ => {}
            }
        }
    }

    fn result_types(&self, operator: &Operator<'a>) -> Vec<enc::ValType> {
        let ty = match *operator {
            Operator::Call { function_index } => self.module.function_type(function_index),
            Operator::CallIndirect { type_index, .. } | Operator::CallRef { type_index } => {
                &self.module.types[type_index as usize]
            }
            _ => unreachable!("only calls are called"),
        };
        ty.results()
            .iter()
            .map(|ty: &ValType| types::encode(self.module, *ty))
            .collect()
    }
}
